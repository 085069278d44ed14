"""How an outage is looked into, and how long a store that failed is left alone."""

from __future__ import annotations

import pytest

from clocks import FakeClock
from kis_retry import FileTokenStore
from kis_retry.retry.ledger import MemoryLedger
from kis_retry.retry.outage import LEAST_FAILURES, Outage, Tally
from kis_retry.retry.pace import Grant
from kis_retry.retry.shared_ledger import SharedLedger


@pytest.mark.parametrize("since", [5.0, 1_000_000.0])
def test_probes_are_two_a_second_for_ten_seconds_and_one_afterwards(since: float) -> None:
    outage = Outage()
    outage.observe(Tally(failures=LEAST_FAILURES), since)
    assert outage.since == since
    asked = [outage.probe_interval(since + later) for later in (0, 9.999, 10, 10_000)]
    assert asked == [0.5, 0.5, 1.0, 1.0]


START = 1_000.0


@pytest.mark.parametrize(("failures", "known"), [([4], False), ([4, 1], True), ([3, 4], True), ([9], True)])
def test_five_failures_in_a_row_are_an_outage_from_then_on(failures: list[int], known: bool) -> None:
    outage = Outage()
    for later, count in enumerate(failures):
        assert not outage.observe(Tally(failures=count, failed_ago=0.25), START + later)
    now = START + len(failures) - 1
    assert outage == Outage(sum(failures), now - 0.25, now if known else 0.0)
    outage.observe(Tally(failures=1, failed_ago=5.0), now + 1)
    assert outage.failed_at == now - 0.25, "one of before is told late"
    assert outage.since == (now if known else now + 1)


@pytest.mark.parametrize(("later", "failures"), [(60.0, 5), (60.01, 1)])
def test_failures_of_more_than_a_minute_ago_do_not_count(later: float, failures: int) -> None:
    outage = Outage(LEAST_FAILURES - 1, START)
    outage.observe(Tally(failures=1, failed_ago=100.0), START + 100 + later)
    assert outage.failures == failures


def test_an_outage_is_not_forgotten_however_seldom_anybody_calls() -> None:
    outage = Outage(LEAST_FAILURES, START, START)
    outage.observe(Tally(failures=1), START + 600)
    assert outage == Outage(LEAST_FAILURES + 1, START + 600, START)


@pytest.mark.parametrize(("through_ago", "ended"), [(0.0, True), (5.0, True), (5.01, False)])
def test_a_call_that_gets_through_ends_an_outage_unless_one_has_failed_since(through_ago: float, ended: bool) -> None:
    outage = Outage(LEAST_FAILURES, START, START - 10)
    assert outage.observe(Tally(answered=1, through_ago=through_ago), START + 5) is ended
    assert outage == (Outage(0, START) if ended else Outage(LEAST_FAILURES, START, START - 10))


def test_failures_after_a_call_that_got_through_are_counted_from_one() -> None:
    outage = Outage(LEAST_FAILURES - 1, START)
    assert not outage.observe(Tally(failures=2, failed_ago=1.0, through_ago=3.0), START + 5), "it was none"
    assert outage == Outage(2, START + 4)


class Failing(MemoryLedger):
    """A ledger in a store that is gone."""

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        raise OSError


def test_a_store_is_asked_however_short_a_time_ago_the_machine_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kis_retry.retry.shared_ledger.time", FakeClock(0.0))
    assert SharedLedger(Given(0.5), FileTokenStore("/x")).take(Tally(), 16, None).at == 0.5


def test_a_store_that_failed_is_left_alone_twice_as_long_each_time_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    monkeypatch.setattr("kis_retry.retry.shared_ledger.time", clock)
    ledger = SharedLedger(Failing(), FileTokenStore("/x"))
    pauses = []
    for _ in range(8):
        ledger.take(Tally(), 18, None)
        pauses.append(ledger._again_at - clock.now)
        clock.now = ledger._again_at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


class Given(MemoryLedger):
    """A ledger that gives these slots; None is none."""

    def __init__(self, *slots: float | None) -> None:
        super().__init__()
        self.slots = list(slots)

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        at = self.slots.pop(0)
        return Grant(100.0 if at is None else at, slot=at is not None, rate=rate)


def test_a_process_keeps_nine_tenths_of_an_interval_between_its_slots_whatever_its_store_says() -> None:
    """An interval is 64 thousandths of a second."""
    ledger = SharedLedger(Given(2.0, None, 2.01, 2.01, 2.2, 2.264), FileTokenStore("/x"))
    slots = [ledger.take(Tally(), 16, None).at for _ in range(6)]
    assert slots == pytest.approx([2.0, 100.0, 2.0576, 2.1152, 2.2, 2.264]), "no slot is none of its own"
