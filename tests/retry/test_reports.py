"""What became of calls, until the next slot is asked for."""

from __future__ import annotations

import pytest

from clocks import FakeClock, interrupt
from kis_retry.retry.outage import LEAST_FAILURES
from kis_retry.retry.pace import Grant
from kis_retry.retry.reports import Reports


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Of a machine that has just begun."""
    made = FakeClock(0.0)
    monkeypatch.setattr("kis_retry.retry.reports.time", made)
    return made


@pytest.fixture
def reports(clock: FakeClock) -> Reports:
    return Reports()


def granted(epoch: int = 0, failures: int = 0) -> Grant:
    return Grant(0.0, slot=True, rate=18.0, failures=failures, epoch=epoch)


def test_each_outcome_is_told_once(reports: Reports) -> None:
    for outcome in ("answered", "answered", "refused"):
        reports.add(outcome)
    told = reports.take()
    assert (told.answered, told.refused, told.failures) == (2, 1, 0)
    assert told.through_ago is not None
    told = reports.take()
    assert (told.answered, told.refused, told.through_ago) == (0, 0, None)


def test_failures_count_since_the_last_call_that_got_through(reports: Reports) -> None:
    for outcome in ("failed", "failed", "answered", "failed"):
        reports.add(outcome)
    assert reports.take().failures == 1


@pytest.mark.parametrize("epoch", [1, -1])
def test_calls_of_an_earlier_pace_say_nothing_about_another(reports: Reports, clock: FakeClock, epoch: int) -> None:
    clock.now = 2.5
    reports.add("answered")
    reports.add("refused")
    reports.learn(granted(epoch))
    clock.now += 0.49
    reports.add("refused")  # sent before, and answered just now
    told = reports.take()
    assert (told.answered, told.refused, told.through_ago, told.epoch) == (0, 0, 0.0, epoch), "it got through, though"
    clock.now = 3.0
    for outcome in ("answered", "answered", "refused"):
        reports.add(outcome)
    told = reports.take()
    assert (told.answered, told.refused, told.epoch) == (2, 1, epoch)


@pytest.mark.parametrize("epoch", ["0", "300"])
def test_the_same_pace_changes_nothing(reports: Reports, clock: FakeClock, epoch: str) -> None:
    reports.learn(granted(int(epoch)))
    clock.pass_by(0.5)
    reports.add("answered")
    reports.learn(granted(int(epoch)))
    assert reports.take().answered == 1


def test_what_is_told_says_how_long_ago_it_was(reports: Reports, clock: FakeClock) -> None:
    clock.now = 10.0
    reports.add("answered")
    clock.now = 17.5
    reports.add("failed")
    clock.now = 30.5
    told = reports.take()
    assert (told.through_ago, told.failed_ago) == (20.5, 13.0)


def test_the_latest_of_calls_is_told_once(reports: Reports) -> None:
    for late in (0.02, 0.5, 0.1):
        reports.add_late(late)
    assert [reports.take().late, reports.take().late] == [0.5, 0.0]


def test_time_that_callers_wait_is_counted_however_it_ends(reports: Reports, clock: FakeClock) -> None:
    clock.now = 0.75
    assert reports.seconds_waited == 0.0
    with reports.waiting():
        clock.pass_by(2.5)
    assert reports.seconds_waited == 2.5
    clock.at(1.5, interrupt)
    with pytest.raises(KeyboardInterrupt), reports.waiting():
        clock.pass_by(1.5)
    assert reports.seconds_waited == 4.0


def test_there_is_trouble_while_a_failure_is_known(reports: Reports) -> None:
    told = [reports.trouble]
    for failures in (0, 1, 0):
        reports.learn(granted(failures=failures))
        told.append(reports.trouble)
    assert told == [False, False, True, False]


def test_one_failure_is_trouble_until_a_call_gets_through_and_the_ledger_knows_of_none(reports: Reports) -> None:
    reports.add("failed")
    told = [reports.trouble]
    for outcome in ("", "answered"):
        reports.add(outcome)
        told.append(reports.trouble)
        reports.learn(granted())
        told.append(reports.trouble)
    assert told == [True, True, True, True, False]


def test_it_is_an_outage_from_five_failures_on(reports: Reports) -> None:
    told = [reports.away]
    for failures in (LEAST_FAILURES - 1, LEAST_FAILURES, LEAST_FAILURES + 1, 0):
        reports.learn(granted(failures=failures))
        told.append(reports.away)
    assert told == [False, False, True, True, False]


def test_a_call_got_through_until_the_ledger_is_told_of_it(reports: Reports) -> None:
    told = []
    for outcome in ("failed", "refused", "failed"):
        reports.add(outcome)
        told.append(reports.got_through())
    reports.take()
    assert [*told, reports.got_through()] == [False, True, True, False]
