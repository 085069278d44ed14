"""Threads and tasks that wait for slots: in order, each its share, and none left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry import Credentials, FileTokenStore, MemoryTokenStore, RateLimiter, RefreshEvent
from kis_retry.retry.ledger import MemoryLedger
from kis_retry.retry.outage import LEAST_FAILURES, Tally
from kis_retry.retry.pace import Grant, interval_of
from kis_retry.retry.slots import SlotQueue
from patience import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kis_retry import TokenStore

KEY = Credentials("a-key", "a-secret")


@pytest.fixture(params=["memory", "file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenStore:
    """A place that nothing is known of: not by itself, and not by this process, which remembers its own last slot."""
    monkeypatch.setattr("kis_retry.retry.shared_queues._of_places", {})
    if request.param == "redis":
        from kis_retry import RedisTokenStore

        server = request.getfixturevalue("valkey_server")
        server.flush()
        return RedisTokenStore(server.url)
    return MemoryTokenStore() if request.param == "memory" else FileTokenStore(tmp_path / "store")


def in_threads(count: int, work: Callable[[int], None]) -> None:
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        ready.wait()
        work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_threads_share_the_rate_evenly_and_all_of_it(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=100, store=store)
    went: list[tuple[float, int]] = []

    def call(number: int) -> None:
        for _ in range(5):
            assert limiter.acquire()
            went.append((time.monotonic(), number))

    in_threads(8, call)
    times = sorted(now for now, _ in went)
    assert len(times) == 40
    assert times[-1] - times[0] >= 30 * interval_of(100)  # 39, but for what the first of them was late
    first_half = [number for _, number in sorted(went)[:24]]
    assert min(first_half.count(number) for number in range(8)) >= 1  # nobody starves


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    limiter = RateLimiter(KEY, rate=20, store=MemoryTokenStore())
    limiter.acquire()
    served: list[int] = []

    def waiting() -> int:
        return len(limiter._queue()._waiters) + len(served)

    def call(number: int) -> None:
        limiter.acquire()
        served.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for number, thread in enumerate(threads):
        thread.start()
        until(partial(lambda number: waiting() > number, number))
    for thread in threads:
        thread.join(PATIENCE)
    assert served == list(range(4))


async def test_tasks_are_served_in_the_order_in_which_they_came(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=100, store=store)
    served: list[int] = []

    async def call(number: int) -> None:
        assert await limiter.acquire_async()
        served.append(number)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert served == list(range(20))


async def test_a_thousand_waiting_tasks_occupy_one_thread_and_leave_the_loop_free(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=20, store=store)
    before, began = threading.active_count(), time.monotonic()
    tasks = [asyncio.create_task(limiter.acquire_async()) for _ in range(1_000)]
    turns = 0
    while turns < 50 or not any(task.done() for task in tasks):
        await asyncio.sleep(0.001)
        turns += 1
    assert threading.active_count() <= before + 1
    assert sum(task.done() for task in tasks) < 500, "each turn waited for slots"
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert 1 <= sum(found is True for found in done) <= 2 + (time.monotonic() - began) / interval_of(20)
    assert await limiter.acquire_async(PATIENCE)


def test_tasks_and_threads_wait_in_one_queue(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=100, store=store)
    went: dict[str, int] = {"thread": 0, "task": 0}

    def call(number: int) -> None:
        if number:
            for _ in range(5):
                assert limiter.acquire()
                went["thread"] += 1
        else:
            asyncio.run(tasks())

    async def task() -> None:
        assert await limiter.acquire_async()
        went["task"] += 1

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(5)))

    in_threads(3, call)
    assert went == {"thread": 10, "task": 5}


# -- not for ever


def test_who_cannot_be_served_in_time_is_told_so_and_takes_nothing(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=2, store=store)
    assert limiter.acquire(PATIENCE)
    began = time.monotonic()
    served = [limiter.acquire(timeout) for timeout in (*[0] * 19, 0.05)].count(True)
    assert served <= (time.monotonic() - began) / interval_of(2)
    assert limiter.acquire(PATIENCE)
    assert 0.45 < time.monotonic() - began < 5, "each that was told so took half a second"


async def test_a_task_that_cannot_be_served_in_time_is_told_so(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=0.1, store=store)
    assert await limiter.acquire_async(PATIENCE)
    assert not await limiter.acquire_async(0.1)


def test_a_place_in_the_queue_does_not_outlast_its_time() -> None:
    limiter = RateLimiter(KEY, rate=4, store=MemoryTokenStore())
    limiter.acquire()
    patient = threading.Thread(target=limiter.acquire)
    patient.start()
    until(lambda: limiter._queue()._busy)
    began = time.monotonic()
    assert not limiter.acquire(0.01)
    assert time.monotonic() - began < 5
    patient.join(PATIENCE)
    assert limiter.acquire(PATIENCE)


async def test_a_cancelled_task_leaves_its_slot_to_the_next(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=4, store=store)
    assert await limiter.acquire_async()
    began = time.monotonic()
    cancelled = [asyncio.create_task(limiter.acquire_async()) for _ in range(40)]
    last = asyncio.create_task(limiter.acquire_async())
    await asyncio.sleep(0.05)
    for task in cancelled:
        task.cancel()
    assert await last
    assert time.monotonic() - began < 5, "forty slots of a quarter of a second each"


def test_a_loop_that_was_closed_stops_nobody() -> None:
    limiter = RateLimiter(KEY, rate=5, store=MemoryTokenStore())

    async def leave_behind() -> None:
        await limiter.acquire_async()
        loop = asyncio.get_running_loop()
        loop._left = [loop.create_task(limiter.acquire_async()) for _ in range(3)]  # type: ignore[attr-defined]  # kept
        await asyncio.sleep(0.01)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_behind())
    left = loop._left  # type: ignore[attr-defined]  # as above
    loop.close()
    assert limiter.acquire(PATIENCE)
    for task in left:
        task._log_destroy_pending = False


def test_where_no_thread_can_be_started_a_caller_waits_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter(KEY, rate=20, store=MemoryTokenStore())

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    began = time.monotonic()
    assert all(limiter.acquire() for _ in range(4))
    assert time.monotonic() - began >= 2.9 * interval_of(20)


def test_the_thread_ends_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kis_retry.retry.slots._PARKED", 0.05)
    begun: list[threading.Thread] = []  # on a busy machine one may have ended before it could be looked for
    start = threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    limiter = RateLimiter(KEY, rate=20, store=MemoryTokenStore())
    for _ in range(2):
        assert all(limiter.acquire() for _ in range(3))
        assert begun
        while begun:
            begun.pop().join(PATIENCE)
        assert limiter._queue()._thread is None


# -- what became of calls


def test_an_outage_lets_probes_out_and_all_go_on_when_one_is_answered(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=300, store=store)
    away = threading.Event()
    away.set()
    went: list[float] = []
    answered: list[float] = []

    def call(_: int) -> None:
        while len(answered) < 30:
            assert limiter.acquire(PATIENCE)
            went.append(time.monotonic())
            if away.is_set():
                limiter.report("failed")
            else:
                limiter.report("answered")
                answered.append(time.monotonic())

    mending = threading.Timer(0.4, away.clear)
    mending.start()
    in_threads(8, call)
    during = [now for now in went if now < answered[0]]
    probes = 1 + (answered[0] - during[0]) / 0.5
    assert LEAST_FAILURES <= len(during) <= LEAST_FAILURES + 8 + probes, "eight were under way when it was known"
    assert sorted(answered)[29] - answered[0] < 8, "as probes they take 15 seconds"


def test_others_learn_of_the_end_of_an_outage_from_the_store(tmp_path: Path) -> None:
    """Two queues, as two processes have them."""
    from kis_retry.retry.shared_ledger import ledger_of

    first, second = (SlotQueue(ledger_of(FileTokenStore(tmp_path), "0" * 32), 100) for _ in range(2))
    for _ in range(LEAST_FAILURES + 1):
        first.acquire()
        first.report("failed")
    first.acquire()  # tells of the last one, and is a probe
    began = time.monotonic()
    waiting = threading.Thread(target=lambda: [second.acquire() for _ in range(20)])
    waiting.start()
    first.report("answered")
    first.acquire()
    waiting.join(PATIENCE)
    assert time.monotonic() - began < 8, "as probes they take 10 seconds"


def test_a_change_of_the_pace_is_told(events: list[RefreshEvent]) -> None:
    class Changing(MemoryLedger):
        def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
            return Grant(time.monotonic(), slot=True, rate=rates.pop(), changed=changes.pop())

    changes: list[float | None] = [2.5, None, 18.0]
    rates = [3.0, 2.5, 2.5]
    queue = SlotQueue(Changing(), 18)
    for in_force in (2.5, 2.5, 3.0):
        queue.acquire()
        assert queue.in_force == in_force
    assert [(event.name, event.rate) for event in events] == [("rate_lowered", 2.5), ("rate_raised", 3.0)]


def test_one_that_cannot_be_served_in_time_keeps_nobody_behind_it_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kis_retry.retry.slots._PARKED", 2 * PATIENCE)
    asked, answer = threading.Event(), threading.Event()

    class Slow(MemoryLedger):
        def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
            asked.set()
            assert answer.wait(PATIENCE)
            in_time = limit is None
            return Grant(time.monotonic() + (0 if in_time else 2 * PATIENCE), slot=in_time, rate=rate)

    queue = SlotQueue(Slow(), 18)
    served: dict[str, bool] = {}

    def wait(name: str, timeout: float | None) -> None:
        served[name] = queue.acquire(timeout)

    def queued(number: int) -> bool:
        return len(queue._waiters) == number

    threads = []
    for number, (name, timeout) in enumerate([("first", None), ("late", PATIENCE), ("behind", None)]):
        threads.append(threading.Thread(target=wait, args=(name, timeout), daemon=True))
        threads[-1].start()
        assert asked.wait(PATIENCE)
        until(partial(queued, number))
    answer.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert served == {"first": True, "late": False, "behind": True}
    monkeypatch.setattr("kis_retry.retry.slots._PARKED", 0.01)
    queue._work.release()
    until(lambda: queue._thread is None)


def test_a_limiter_says_the_rate_in_force(monkeypatch: pytest.MonkeyPatch, events: list[RefreshEvent]) -> None:
    monkeypatch.setattr("kis_retry.retry.adaptive._WINDOW", 0.9)
    limiter = RateLimiter(KEY, rate=100, store=MemoryTokenStore())
    ends = time.monotonic() + PATIENCE
    while limiter.rate == 100 and time.monotonic() < ends:
        limiter.acquire()
        limiter.report("refused")
    assert limiter.rate == 1
    assert [(event.name, event.rate) for event in events] == [("rate_lowered", 1)]


def test_a_report_never_waits_for_the_store(tmp_path: Path) -> None:
    store: Any = FileTokenStore(tmp_path)
    limiter = RateLimiter(KEY, rate=18, store=store)
    limiter.acquire()
    from kis_retry.stores.base import key_of

    with store.documents.lock(key_of(KEY), "pace", timeout=1, lease=1):
        waiting = threading.Thread(target=limiter.acquire)
        waiting.start()
        until(lambda: limiter._queue()._busy)
        began = time.monotonic()
        for _ in range(1_000):
            limiter.report("answered")
        assert time.monotonic() - began < 5
    waiting.join(PATIENCE)
