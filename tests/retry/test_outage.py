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


class Failing(MemoryLedger):
    """A ledger in a store that is gone."""

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        raise OSError


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
