"""What became of calls, until the next slot is asked for."""

from __future__ import annotations

import pytest

from kis_retry.retry.pace import Grant
from kis_retry.retry.reports import Reports


@pytest.fixture
def reports() -> Reports:
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
def test_calls_of_an_earlier_pace_say_nothing_about_another(
    reports: Reports, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kis_retry.retry.adaptive.SETTLING", 60)
    reports.add("answered")
    reports.add("refused")
    reports.learn(granted(epoch))
    reports.add("refused")  # sent before, and answered just now
    told = reports.take()
    assert (told.answered, told.refused, told.epoch) == (0, 0, epoch)


def test_the_same_pace_changes_nothing(reports: Reports) -> None:
    reports.add("answered")
    reports.learn(granted())
    assert reports.take().answered == 1


def test_there_is_trouble_while_a_failure_is_known(reports: Reports) -> None:
    told = []
    for failures in (0, 1, 0):
        reports.learn(granted(failures=failures))
        told.append(reports.trouble)
    assert told == [False, True, False]
