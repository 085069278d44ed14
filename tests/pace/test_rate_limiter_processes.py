"""The pace between real processes: shared, killed, stopped, forked, spawned, and interrupted by signals."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import operator
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

from alarms import alarm_once
from children import Child
from crowds import ended, started
from kis_retry import Credentials, MemoryTokenStore, RateLimiter, TokenStore
from patience import PATIENCE, until
from simulated_pace import worst_second

KEY = Credentials("a-key", "a-secret")
PROCESSES, THREADS, RATE = 4, 8, 40
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
quietly = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
shared = pytest.mark.parametrize("store", ["file", "redis"], indirect=True)

pytestmark = pytest.mark.one_python


class Slot(NamedTuple):
    process: int
    thread: int
    at: float


class Record:
    """The slots that processes have had, in a file to which each adds a line in one step."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def slots(self) -> list[Slot]:
        lines = os.pread(self._file, 1_000_000, 0).decode().splitlines()
        return sorted((Slot(int(pid), int(thread), float(at)) for pid, thread, at in map(str.split, lines)), key=_at)

    def take_slots(self, store: TokenStore) -> None:
        """Take slots on all threads until somebody kills this process."""
        limiter = RateLimiter(KEY, rate=RATE, store=store)

        def call(number: int) -> None:
            while limiter.acquire():
                os.write(self._file, f"{os.getpid()} {number} {time.monotonic()}\n".encode())

        for number in range(THREADS):
            threading.Thread(target=call, args=(number,)).start()


_at = operator.attrgetter("at")


@forking
@quietly
@shared
def test_processes_share_the_whole_rate_and_one_that_dies_or_stands_still_costs_next_to_nothing(
    store: TokenStore, tmp_path: Path
) -> None:
    record, context = Record(tmp_path / "record"), multiprocessing.get_context("fork")
    workers = [context.Process(target=record.take_slots, args=(store,)) for _ in range(PROCESSES)]
    try:
        for worker in workers:
            worker.start()
        until(lambda: len({slot.process for slot in record.slots()}) == PROCESSES)
        begun = len(record.slots())
        until(lambda: len(record.slots()) >= begun + 80)
        found = record.slots()[begun : begun + 80]
        assert 0.97 <= (found[-1].at - found[0].at) / 79 / (1.024 / RATE) <= 1.4
        assert worst_second([slot.at for slot in found]) <= RATE + 2, "but for what a busy machine is late"
        had = Counter(slot.process for slot in found)
        assert min(had[worker.pid or 0] for worker in workers) >= 0.5 * len(found) / PROCESSES, "nobody starves"
        assert len({(slot.process, slot.thread) for slot in found}) >= 0.9 * PROCESSES * THREADS
        began, before = time.monotonic(), len(record.slots())
        workers[0].kill()
        os.kill(workers[1].pid or 0, signal.SIGSTOP)
        until(lambda: len(record.slots()) >= before + 40)
        times = [slot.at for slot in record.slots() if slot.at > began - 0.2]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 4
    finally:
        for worker in workers:
            worker.kill()
            worker.join(PATIENCE)


# -- forked


@forking
@quietly
def test_a_child_that_was_forked_while_others_waited_has_a_queue_of_its_own(store: TokenStore) -> None:
    limiter, stop = RateLimiter(KEY, rate=60, store=store), threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            limiter.acquire(1)

    def served() -> bool:
        return all(limiter.acquire(PATIENCE) for _ in range(2)) and asyncio.run(limiter.acquire_async(PATIENCE))

    threads = started(4, keep_busy)
    try:
        children = []
        for _ in range(5):
            time.sleep(0.02)
            children.append(Child(served))
        assert [child.ended_well() for child in children] == [True] * 5
    finally:
        stop.set()
        ended(threads)


# -- signals


class AlarmError(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_a_signals_exception_ends_the_waiting_at_once_and_costs_no_slot() -> None:
    def raise_it(*_: object) -> None:
        raise AlarmError

    limiter = RateLimiter(KEY, rate=1, store=MemoryTokenStore())
    assert limiter.acquire(PATIENCE)
    began = time.monotonic()
    with pytest.raises(AlarmError), alarm_once(raise_it, lambda: True):
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
