"""
What gets through, and the pace that follows from it. Pure; the time is a parameter.

Two things refuse a call with EGW00201. A limit lower than the pace (a new customer's 3 a second, another program with
the same key) lets the same number through however many are sent, so going slower costs nothing. KIS's own uneven
distribution refuses a share at any pace (up to 22 %, observed), so going slower only loses calls. They are told apart
by trying: if most calls are refused, the pace falls to what got through; where fewer are then refused, it was a limit;
where the share stays, it is not, and the pace goes back. From there it feels its way up, quickly while nothing is
known of a limit, in small steps and with growing pauses near where one was found.

The models are botocore's: its adaptive mode falls to a share of the measured rate and climbs back towards the last
known limit before it goes beyond. But any single throttle makes that fall, so 22 % refused would start a spiral.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["IDLE", "SETTLING", "Adaptation", "Window"]

_WINDOW = 3.0  # seconds: "over several seconds"

IDLE = 10.0
"""Seconds without a call after which a window says nothing."""

SETTLING = 0.5
"""Seconds after a change in which calls of the pace before it are still answered."""

_ENOUGH = 20  # calls that a first verdict takes: by chance, more than half of 20 are refused once in 1,000 times
_ENOUGH_FAR, _ENOUGH_NEAR = 8, 25  # and a later one: far from a known limit, and near it
_LONG, _FEW = 10.0, 4  # seconds after which so few calls are enough
_MOST = 0.5  # the share that is "most calls"
_FALL = 0.8  # of what got through: a window touches one second more than it is long
_STEP_DOWN, _STEP_UP, _LEAP = 0.8, 1.15, 1.5
_NEAR = 1.3  # times the limit that was found: beyond, it is no longer there
_FIRST_HOLD, _LONGEST_HOLD = 10.0, 160.0  # seconds at a pace that is right before the next try to go faster
_SLOWEST = 1.0  # calls a second


@dataclass(slots=True)
class Window:
    """
    Calls since `since`; those that were sent at an earlier pace do not count.

    Attributes:
        since: where it begins; in the future while an earlier pace's calls are answered.
        seen_at: the last call.
        answered: how many got through.
        refused: how many did not, EGW00201.
    """

    since: float = 0.0
    seen_at: float = 0.0
    answered: int = 0
    refused: int = 0

    def count(self, answered: int, refused: int, now: float) -> None:
        """Add calls, and begin anew after a time without any."""
        if not answered and not refused:
            return
        if now - self.seen_at > IDLE:
            self.since, self.answered, self.refused = now, 0, 0
        self.seen_at = now
        if now >= self.since:
            self.answered += answered
            self.refused += refused

    @property
    def calls(self) -> int:
        return self.answered + self.refused


@dataclass(frozen=True)
class Adaptation:
    """
    The pace that is in force instead of the one that was set, and what is known about why.

    Attributes:
        lowered: calls a second; 0: the pace that was set.
        limit: what got through, in calls a second, when more was sent; 0: no limit is known.
        usual: the share of calls that is refused at any pace.
        tried: the pace before the last step down, 0 where that has been judged; a slower one is on trial.
        tried_share: the share that was refused at that pace.
        hold_until: when the next try to go faster may be.
        hold: seconds that the next pause takes.
        epoch: counts the changes; calls that were sent before the last one say nothing about the pace after it.
    """

    lowered: float = 0.0
    limit: float = 0.0
    usual: float = 0.0
    tried: float = 0.0
    tried_share: float = 0.0
    hold_until: float = 0.0
    hold: float = _FIRST_HOLD
    epoch: int = 0

    def judge(self, window: Window, now: float, rate: float) -> Adaptation | None:
        """
        Judge `window` where it is long enough: the adaptation from now on, with a new window; None: go on counting.

        Args:
            window: calls at the pace in force.
            now: seconds, of the clock of everything here.
            rate: calls a second that were set.
        """
        elapsed = now - window.since
        if not rate or elapsed < 1.0:
            return None
        if not self.lowered:
            return self._judge_full(window, elapsed, rate)
        enough = _ENOUGH_FAR if self._far else _ENOUGH_NEAR
        too_many = window.calls >= _ENOUGH_FAR and window.refused > self._tolerated(max(window.calls, enough))
        if too_many:
            return self._slower(window, rate)
        complete = window.calls >= (_FEW if elapsed >= _LONG else enough)
        return self._faster(now, rate) if complete and elapsed >= _WINDOW else None

    def _judge_full(self, window: Window, elapsed: float, rate: float) -> Adaptation | None:
        if elapsed < _WINDOW or window.calls < _ENOUGH:
            return None
        if window.refused <= window.calls * _MOST:
            return self
        through = window.answered / elapsed
        return self._fall(_FALL * through, through, rate, window)

    def _slower(self, window: Window, rate: float) -> Adaptation:
        share = window.refused / window.calls
        if share > _MOST:
            through = self.lowered * (1 - share)
            return self._fall(_FALL * through, through, rate, window)
        if self.tried and share > 0.6 * self.tried_share:  # going slower did not help
            usual = (share + min(self.tried_share, _MOST)) / 2
            return self._at(self.tried, rate, limit=0.0, usual=usual, tried=0.0)
        return self._fall(_STEP_DOWN * self.lowered, self.limit, rate, window)

    def _fall(self, lowered: float, through: float, rate: float, window: Window) -> Adaptation:
        limit = through if window.answered >= _FEW else 0.0  # fewer say nothing about a limit
        share = window.refused / window.calls
        slowest = min(rate, _SLOWEST)
        return self._at(max(lowered, slowest), rate, limit=limit, tried=self.lowered or rate, tried_share=share)

    def _faster(self, now: float, rate: float) -> Adaptation:
        if self.tried and self.limit:  # fewer are refused than at the pace before: that was the limit
            hold = min(2 * self.hold, _LONGEST_HOLD)
            return replace(self, tried=0.0, hold_until=now + self.hold, hold=hold)
        if now < self.hold_until:
            return self
        if self._far:
            return self._at(_LEAP * self.lowered, rate, tried=0.0, hold=_FIRST_HOLD)
        return self._at(_STEP_UP * self.lowered, rate, tried=0.0)

    def _at(self, lowered: float, rate: float, **changes: float) -> Adaptation:
        """Go on at another pace; at the one that was set, nothing of what was found out is kept."""
        epoch = self.epoch + 1
        return replace(self, lowered=lowered, epoch=epoch, **changes) if lowered < rate else Adaptation(epoch=epoch)

    @property
    def _far(self) -> bool:
        """No limit is known near the pace in force."""
        return not self.limit or self.lowered > _NEAR * self.limit

    def _tolerated(self, calls: int) -> float:
        """How many of `calls` may be refused without there being a limit."""
        if self._far:
            return calls * _MOST
        spread = math.sqrt(calls * self.usual * (1 - self.usual))
        return calls * (self.usual + 0.02) + 2 * spread + 1
