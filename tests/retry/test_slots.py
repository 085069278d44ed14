"""Who gets which slot, on a clock and from a ledger of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from clocks import FakeClock, interrupt
from kis_retry.retry import slots
from kis_retry.retry.ledger import MemoryLedger
from kis_retry.retry.outage import Tally
from kis_retry.retry.pace import Grant
from kis_retry.retry.slots import SlotQueue
from patience import PATIENCE, until

RATE = 1.024  # an interval is a second


class Scripted(MemoryLedger):
    """Answers so many seconds from then, with a slot or None; tells what it was asked. At the end, slots are free."""

    def __init__(self, clock: FakeClock, *answers: float | tuple[float, None]) -> None:
        super().__init__()
        self.clock, self.answers = clock, list(answers)
        self.tallies: list[Tally] = []
        self.limits: list[float | None] = []

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        self.tallies.append(tally)
        self.limits.append(limit)
        answer = self.answers.pop(0) if self.answers else 0.0
        after, slot = (answer, True) if isinstance(answer, float) else (answer[0], False)
        return Grant(self.clock.now + after, slot=slot, rate=rate)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """On which a caller waits by itself: no thread can be started."""
    made = FakeClock(0.5)
    for module in ("slots", "reports"):
        monkeypatch.setattr(f"kis_retry.retry.{module}.time", made)
    monkeypatch.setattr(threading.Thread, "start", no_more)
    return made


def no_more(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# -- one caller


@pytest.mark.parametrize(
    ("after", "slept"), [(-1.0, []), (0.0, []), (0.000_4, []), (0.001, [0.001]), (0.25, [0.1, 0.1, 0.05])]
)
def test_a_slot_is_waited_for_if_it_is_not_due_within_half_a_millisecond(
    clock: FakeClock, after: float, slept: list[float]
) -> None:
    ledger = Scripted(clock, after)
    assert SlotQueue(ledger, RATE).acquire()
    assert clock.slept == pytest.approx(slept, abs=1e-9)
    assert len(ledger.tallies) == 1, "it is the slot that was taken"


@pytest.mark.parametrize(("rate", "late"), [(RATE, 0.25), (0.0, 0.0)])
def test_a_call_that_goes_out_late_is_told_with_the_next_slot_where_there_is_a_pace(
    clock: FakeClock, rate: float, late: float
) -> None:
    ledger = Scripted(clock, -0.25)
    queue = SlotQueue(ledger, rate)
    for _ in range(2):
        queue.report("failed")
        assert queue.acquire()
    assert [tally.late for tally in ledger.tallies] == [0.0, late]


# Who is denied a slot gets into the queue, where the ledger is asked anew: a first denial costs no time here.


def test_the_ledger_is_asked_for_a_slot_within_what_is_left_of_the_time(clock: FakeClock) -> None:
    ledger = Scripted(clock, 0.0, (0.5, None), (0.5, None), (0.5, None), (0.25, None))
    queue = SlotQueue(ledger, RATE)
    assert queue.acquire()
    assert queue.acquire(1.25)
    assert ledger.limits == [None, *(pytest.approx(left, abs=1e-9) for left in (1.25, 1.25, 0.75, 0.25, 0.0))]


def test_who_sleeps_for_longer_than_his_time_has_a_slot_only_where_one_is_free(clock: FakeClock) -> None:
    ledger = Scripted(clock, (0.5, None), (0.5, None))
    clock.at(0.45, lambda: clock.pass_by(3.0))
    assert SlotQueue(ledger, RATE).acquire(1.25)
    assert ledger.limits == [1.25, 1.25, 0.0]


@pytest.mark.parametrize("denials", [1, 2])
@pytest.mark.parametrize(("again", "served"), [(1.0, True), (1.01, False)])
def test_who_cannot_be_served_in_time_is_told_so_at_once(
    clock: FakeClock, denials: int, again: float, served: bool
) -> None:
    ledger = Scripted(clock, (0.5, None), (again, None)) if denials == 2 else Scripted(clock, (again, None))
    assert SlotQueue(ledger, RATE).acquire(1.0) is served
    assert sum(clock.slept) == pytest.approx(1.0 if served and denials == 2 else 0.0)
    assert len(ledger.tallies) == denials + served


def test_in_an_outage_a_call_that_gets_through_has_the_next_look_at_once(clock: FakeClock) -> None:
    queue = SlotQueue(Scripted(clock, (0.5, None), (0.5, None)), RATE)
    clock.at(0.15, lambda: queue.report("answered"))
    assert queue.acquire()
    assert sum(clock.slept) == pytest.approx(0.2), "it looks ten times a second"


@pytest.mark.parametrize(("age", "asked"), [(0.0, 1), (0.49, 1), (0.5, 2), (3.0, 2)])
def test_a_slot_that_is_left_over_is_the_next_callers_for_half_an_interval(
    clock: FakeClock, age: float, asked: int
) -> None:
    ledger = Scripted(clock, 0.0)
    queue = SlotQueue(ledger, RATE)
    queue._unused = ledger.take(Tally(), RATE, None)
    clock.pass_by(age)
    assert queue.acquire()
    assert len(ledger.tallies) == asked
    queue.acquire()
    assert len(ledger.tallies) == asked + 1, "once"
    assert [tally.late for tally in ledger.tallies] == [0.0] * (asked + 1), "it was not the caller who was late"


def test_who_is_interrupted_while_he_waits_by_himself_stops_nobody_after_him(clock: FakeClock) -> None:
    queue = SlotQueue(Scripted(clock, 0.25), RATE)
    clock.at(0.1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        queue.acquire()
    assert not queue._busy, "it would be waited for, for ever"
    assert queue.acquire()


# -- what is counted


@pytest.mark.parametrize("outcome", ["answered", "refused"])
def test_without_a_pace_calls_are_counted_once_one_has_failed(clock: FakeClock, outcome: str) -> None:
    queue = SlotQueue(Scripted(clock), 0.0)
    queue.report(outcome)
    assert not queue.reports.got_through()
    queue.report("failed")
    queue.report(outcome)
    assert queue.reports.got_through()


def test_without_a_pace_and_without_trouble_nobody_is_asked(clock: FakeClock) -> None:
    ledger = Scripted(clock)
    queue = SlotQueue(ledger, 0.0)
    assert queue.acquire()
    assert asyncio.run(queue.acquire_async())
    assert ledger.tallies == []
    queue.report("failed")
    assert queue.acquire()
    assert [tally.failures for tally in ledger.tallies] == [1]


# -- several, and a ledger that takes its time


class Slow(MemoryLedger):
    """Answers when it is told to; its slots are free."""

    blocks = True

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.threads = 0, list[threading.Thread]()
        self.answers = threading.Semaphore(0)

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        self.asked += 1
        self.threads.append(threading.current_thread())
        assert self.answers.acquire(timeout=PATIENCE)
        return super().take(Tally(), 0.0, None)


@pytest.fixture
def ledger() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.answers.release(100)


def begun(queue: SlotQueue, served: list[Any], timeout: float | None = None) -> threading.Thread:
    thread = threading.Thread(target=lambda: served.append(queue.acquire(timeout)), daemon=True)
    thread.start()
    return thread


def test_who_does_not_want_to_wait_takes_no_place_behind_another(ledger: Slow) -> None:
    queue, served = SlotQueue(ledger, RATE), list[Any]()
    first = begun(queue, served)
    until(lambda: ledger.asked)
    assert [queue.acquire(0) for _ in range(3)] == [False] * 3
    assert not queue._waiters
    ledger.answers.release()
    first.join(PATIENCE)
    assert served == [True]
    assert ledger.asked == 1


def test_each_of_those_who_wait_has_a_slot_of_its_own(ledger: Slow) -> None:
    queue, served = SlotQueue(ledger, RATE), list[Any]()
    threads = [begun(queue, served)]
    until(lambda: ledger.asked)
    for waiting, timeout in enumerate((PATIENCE, None), 1):
        threads.append(begun(queue, served, timeout))
        until(lambda waiting=waiting: len(queue._waiters) == waiting)  # type: ignore[misc]  # it has no arguments
    ledger.answers.release(3)
    for thread in threads:
        thread.join(PATIENCE)
    assert (served, ledger.asked) == ([True] * 3, 3)


def test_who_is_interrupted_while_he_waits_takes_no_slot(ledger: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, served = SlotQueue(ledger, RATE), list[Any]()
    threads = [begun(queue, served)]
    until(lambda: ledger.asked)
    with monkeypatch.context() as patch:
        patch.setattr("kis_retry.retry.slots._wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            queue.acquire()
    threads.append(begun(queue, served))
    until(lambda: len(queue._waiters) == 2)
    ledger.answers.release(2)
    for thread in threads:
        thread.join(PATIENCE)
    assert (served, ledger.asked) == ([True] * 2, 2)


def test_the_thread_waits_two_seconds_for_more_work(ledger: Slow) -> None:
    timeouts: list[float] = []

    class Idle(threading.Semaphore):
        def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
            timeouts.append(timeout or 0.0)
            return False

    queue, served = SlotQueue(ledger, RATE), list[Any]()
    queue._work = Idle(0)
    threads = [begun(queue, served)]
    until(lambda: ledger.asked)
    threads.append(begun(queue, served))
    until(lambda: queue._waiters)
    ledger.answers.release(2)
    until(lambda: timeouts and queue._thread is None)
    for thread in threads:
        thread.join(PATIENCE)
    assert (served, timeouts) == ([True] * 2, [2.0])


def test_one_thread_serves_those_who_wait_now_and_those_who_wait_later(
    ledger: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kis_retry.retry.slots._PARKED", 2 * PATIENCE)
    queue, served = SlotQueue(ledger, RATE), list[Any]()
    for asked in (0, 2):
        first = begun(queue, served)
        until(lambda asked=asked: ledger.asked > asked)  # type: ignore[misc]  # it has no arguments
        second = begun(queue, served)
        until(lambda: queue._waiters)
        ledger.answers.release(2)
        first.join(PATIENCE)
        second.join(PATIENCE)
    assert served == [True] * 4
    assert ledger.threads[1] is ledger.threads[3]
    monkeypatch.setattr("kis_retry.retry.slots._PARKED", 0.01)
    queue._work.release()
    until(lambda: queue._thread is None)


async def test_a_ledger_in_memory_is_asked_on_the_loops_own_thread_and_no_other_is(
    ledger: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.answers.release(2)
    assert await SlotQueue(ledger, RATE).acquire_async()
    assert threading.current_thread() not in ledger.threads
    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert await SlotQueue(MemoryLedger(), RATE).acquire_async()


class Woken:
    """A lock that opens when so many time-outs were over; some end early, as they do where somebody sets the clock."""

    def __init__(self, clock: FakeClock, timeouts: int, early: float = 0.0) -> None:
        self.clock, self.left, self.early = clock, timeouts, early
        self.timeouts: list[float] = []

    def acquire(self, *, timeout: float = -1) -> bool:
        self.timeouts.append(timeout)
        self.clock.pass_by(timeout if len(self.timeouts) > 1 else timeout - self.early)
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("wait", "woken_after", "timeouts"),
    [(0.5, 9, [0.5, 0.25]), (0.5, 0, [0.5]), (0.5, 1, [0.5, 0.25]), (0.0, 9, []), (None, 0, [-1]), (-3.0, 9, [])],
)
def test_a_caller_waits_until_it_is_woken_or_its_time_is_up(
    clock: FakeClock, wait: float | None, woken_after: int, timeouts: list[float]
) -> None:
    woken: Any = Woken(clock, woken_after, early=0.25)
    slots._wait(woken, None if wait is None else clock.now + wait)
    assert woken.timeouts == timeouts


def test_a_caller_can_wait_for_longer_than_a_lock_can(clock: FakeClock) -> None:
    woken: Any = Woken(clock, 0)
    slots._wait(woken, clock.now + 1e300)
    assert woken.timeouts == [threading.TIMEOUT_MAX]


async def test_a_task_that_is_cancelled_leaves_its_slot_to_the_next_who_asks_nobody_anew(ledger: Slow) -> None:
    queue, served = SlotQueue(ledger, RATE), list[Any]()
    task = asyncio.create_task(queue.acquire_async())
    await asyncio.sleep(0)
    until(lambda: ledger.asked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    thread = begun(queue, served)
    until(lambda: len(queue._waiters) == 2)
    assert ledger.asked == 1, "one at a time"
    ledger.answers.release()
    thread.join(PATIENCE)
    assert (served, ledger.asked) == ([True], 1)


def test_a_slot_for_a_task_whose_loop_was_closed_is_the_next_callers(ledger: Slow) -> None:
    queue, served = SlotQueue(ledger, RATE), list[Any]()
    loop = asyncio.new_event_loop()
    task = loop.create_task(queue.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    until(lambda: ledger.asked)
    loop.close()
    thread = begun(queue, served)
    until(lambda: len(queue._waiters) == 2)
    ledger.answers.release()
    thread.join(PATIENCE)
    assert (served, ledger.asked) == ([True], 1)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is left behind on purpose


async def test_a_task_for_which_no_thread_can_be_started_stops_nobody_after_it(
    ledger: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = SlotQueue(ledger, RATE)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await queue.acquire_async()
    ledger.answers.release()
    assert queue.acquire(PATIENCE)
    assert ledger.asked == 1


@pytest.mark.parametrize(("timeout", "waited"), [(None, None), (0.0, 0.05), (0.04, 0.05), (3.0, 3.0)])
async def test_a_task_gives_the_thread_a_twentieth_of_a_second_to_tell_it_of_a_free_slot(
    ledger: Slow, monkeypatch: pytest.MonkeyPatch, timeout: float | None, waited: float | None
) -> None:
    wait, told = asyncio.wait, []

    def noting(waiting: Any, *, timeout: float | None) -> Any:
        told.append(timeout)
        return wait(waiting, timeout=PATIENCE)

    monkeypatch.setattr(asyncio, "wait", noting)
    ledger.answers.release()
    assert await SlotQueue(ledger, RATE).acquire_async(timeout)
    assert told == [waited]
