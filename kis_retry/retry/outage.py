"""
Whether KIS is away: nothing gets through, however many calls fail. Pure; the time is a parameter.

The calls of everybody who shares the pace count together. A call that fails among others that get through is no
outage, so it takes several in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from .tally import LEAST_FAILURES, Tally

__all__ = ["LEAST_FAILURES", "LOOK_AGAIN", "PROBES", "Outage", "Tally"]

FORGOTTEN_AFTER = 60.0
"""Seconds after which failures that made no outage yet say nothing about the next one."""

LOOK_AGAIN = 0.5
"""Seconds between two looks at whether somebody else's probe got through."""

PROBES = ((10.0, 0.5), (float("inf"), 1.0))
"""Until how many seconds into an outage, and the seconds between two probes until then."""


@dataclass(slots=True)
class Outage:
    """
    What is known of it: failures in a row, when the last one was, and since when it is an outage (0: it is none).

    All times are of one clock.
    """

    failures: int = 0
    failed_at: float = 0.0
    since: float = 0.0

    def observe(self, tally: Tally, now: float) -> bool:
        """Take in what became of calls; say whether that ended an outage."""
        ended = False
        if tally.through_ago is not None and now - tally.through_ago >= self.failed_at:
            ended = bool(self.since)
            self.failures, self.since = 0, 0.0
        if tally.failures:
            failed_at = now - tally.failed_ago
            if not self.since and failed_at - self.failed_at > FORGOTTEN_AFTER:
                self.failures = 0
            self.failures += tally.failures
            self.failed_at = max(self.failed_at, failed_at)
            if self.failures >= LEAST_FAILURES and not self.since:
                self.since = now
        return ended

    def probe_interval(self, now: float) -> float:
        """Seconds between two probes, everybody's together; 0 where there is no outage."""
        if not self.since:
            return 0.0
        return next(interval for until, interval in PROBES if now - self.since < until)
