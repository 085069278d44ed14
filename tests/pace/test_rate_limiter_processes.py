"""The pace between real processes: shared, killed, stopped, forked, spawned, and interrupted by signals."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from alarms import alarm_once
from children import Child
from kis_retry import Credentials, FileTokenStore, MemoryTokenStore, RateLimiter, RedisTokenStore, TokenStore
from patience import PATIENCE
from simulated_pace import worst_second

KEY = Credentials("a-key", "a-secret")
PROGRAM = Path(__file__).parents[1] / "programs" / "slots.py"
PROCESSES, THREADS, RATE = 4, 8, 40
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
quietly = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Worker:
    """One process, and the slots that it has had: the thread's number and when."""

    def __init__(self, store: str, rate: float = RATE) -> None:
        command = [sys.executable, str(PROGRAM), store, str(rate), str(THREADS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.slots: list[tuple[int, float]] = []
        assert self._pipe("stdout").readline() == "ready\n"
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _pipe(self, name: str) -> Any:
        return getattr(self.process, name)

    def _read(self) -> None:
        for line in self._pipe("stdout"):
            number, _, now = line.partition(" ")
            if now.endswith("\n"):  # one that was killed leaves half a line
                self.slots.append((int(number), float(now)))

    def tell(self) -> None:
        self._pipe("stdin").write("\n")
        self._pipe("stdin").flush()

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # it was killed, or has been told before
            self.tell()
        self.process.wait(PATIENCE)
        self._reader.join()
        for name in ("stdin", "stdout"):
            with contextlib.suppress(BrokenPipeError):  # what was not flushed to one that was killed
                self._pipe(name).close()


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"{tmp_path}/store"
    server = request.getfixturevalue("valkey_server")
    server.flush()
    url: str = server.url
    return url


@pytest.fixture
def workers(place: str) -> Iterator[list[Worker]]:
    made = [Worker(place) for _ in range(PROCESSES)]
    yield made
    for worker in made:
        worker.process.kill()
        worker.end()


def slots_of(workers: list[Worker]) -> list[float]:
    return sorted(now for worker in workers for _, now in worker.slots)


def until_slots(workers: list[Worker], count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while sum(len(worker.slots) for worker in workers) < count:
        assert time.monotonic() < deadline, "the slots never came"
        time.sleep(0.01)


def longest_gap(times: list[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise(times))


pytestmark = pytest.mark.one_python


def test_they_share_the_whole_rate_and_no_more_and_nobody_starves(workers: list[Worker]) -> None:
    for worker in workers:
        worker.tell()
    until_slots(workers, 90)
    for worker in workers:
        worker.end()
    times = slots_of(workers)[10:90]
    assert 0.97 <= (times[-1] - times[0]) / 79 / (1.024 / RATE) <= 1.4
    assert worst_second(times) <= RATE + 2, "but for what a busy machine is late"
    for worker in workers:
        assert len(worker.slots) >= 0.5 * len(slots_of(workers)) / PROCESSES
        assert {number for number, _ in worker.slots} == {*range(THREADS)}


def test_one_that_is_killed_or_stands_still_costs_the_others_next_to_nothing(workers: list[Worker]) -> None:
    for worker in workers:
        worker.tell()
    until_slots(workers, 20)
    began = time.monotonic()
    workers[0].process.kill()
    workers[1].process.send_signal(signal.SIGSTOP)
    try:
        until_slots(workers, 60)
    finally:
        workers[1].process.send_signal(signal.SIGCONT)
    assert longest_gap([now for now in slots_of(workers) if now > began - 0.2]) < 4


def test_one_that_is_set_to_less_slows_nobody(place: str) -> None:
    workers = [Worker(place, rate) for rate in (18, 3)]
    for worker in workers:
        worker.tell()
    until_slots(workers, 45)
    for worker in workers:
        worker.end()
    fast, slow = ([now for _, now in worker.slots] for worker in workers)
    spent = fast[-1] - fast[0]
    assert (len(fast) + len(slow)) / spent >= 0.9 * 18 / 1.024
    assert 0.6 * 3 <= (len(slow) - 1) / (slow[-1] - slow[0]) <= 3.1


# -- forked and spawned


@forking
@quietly
@pytest.mark.parametrize("kind", ["memory", "file", "redis"])
def test_a_child_that_was_forked_while_others_waited_has_a_queue_of_its_own(
    kind: str, tmp_path: Path, valkey_server: Any
) -> None:
    stores: dict[str, Callable[[], TokenStore]] = {
        "memory": MemoryTokenStore,
        "file": lambda: FileTokenStore(tmp_path / "store"),
        "redis": lambda: RedisTokenStore(valkey_server.url),
    }
    limiter, stop = RateLimiter(KEY, rate=60, store=stores[kind]()), threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            limiter.acquire(1)

    def served() -> bool:
        return all(limiter.acquire(PATIENCE) for _ in range(2)) and asyncio.run(limiter.acquire_async(PATIENCE))

    threads = [threading.Thread(target=keep_busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        children = []
        for _ in range(5):
            time.sleep(0.02)
            children.append(Child(served))
        assert [child.ended_well() for child in children] == [True] * 5
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


@forking
@quietly
def test_what_failed_in_the_parent_is_no_outage_of_a_childs() -> None:
    limiter = RateLimiter(KEY, rate=500, store=MemoryTokenStore())

    def fail() -> None:
        reservation = limiter.reserve()
        reservation.result(PATIENCE)
        limiter.report(reservation, "failed")

    for _ in range(4):
        fail()

    def fails_once() -> bool:
        fail()
        return all(limiter.acquire(0.4) for _ in range(4)) and not limiter.is_away

    assert Child(fails_once).ended_well()


def take_one(limiter: RateLimiter) -> bool:
    return limiter.acquire(0)


def test_a_spawned_worker_shares_the_pace(place: str) -> None:
    store = RedisTokenStore(place) if "://" in place else FileTokenStore(place)
    limiter = RateLimiter(KEY, rate=0.1, store=store)
    assert limiter.acquire(PATIENCE)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(take_one, (limiter,)) is False


# -- signals


class AlarmError(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[None]:
    def raise_it(*_: object) -> None:
        raise AlarmError

    before = signal.signal(signal.SIGALRM, raise_it)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_a_signals_exception_ends_the_waiting_at_once_and_costs_no_slot(alarm: None) -> None:
    limiter = RateLimiter(KEY, rate=1, store=MemoryTokenStore())
    assert limiter.acquire(PATIENCE)
    began = time.monotonic()
    with pytest.raises(AlarmError), alarm_once(lambda: True):
        limiter.acquire()
    assert time.monotonic() - began < 0.9
    assert limiter.acquire(PATIENCE)
    assert time.monotonic() - began < 1.9, "its slot went to the next"


def interrupted_at(line: int, limiter: RateLimiter) -> bool:
    """Raise at the so-many-th line, call or return of `acquire`; return whether it was that long."""
    seen = 0

    def look(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.endswith(("weakref.py", "_weakrefset.py")):
            seen += 1
            if seen == line:
                sys.settrace(None)
                raise AlarmError
        return look

    sys.settrace(look)
    try:
        limiter.acquire()
    except AlarmError:
        return True
    finally:
        sys.settrace(None)
    return False


def test_wherever_an_exception_meets_a_caller_the_next_one_has_its_slot() -> None:
    """Signal handlers raise between any two lines of the main thread, those of the standard library too."""
    store, line = MemoryTokenStore(), 1
    while interrupted_at(line, limiter := RateLimiter(KEY, rate=1_000, store=store)):
        assert limiter.acquire(5), f"after an exception at step {line} nobody has a slot any more"
        line += 1
        if line % 3 == 0:  # with a thread that runs and without one
            store = MemoryTokenStore()
    assert line > 50
