"""
Which pace is right where KIS refuses calls. Pure; the time is a parameter.

KIS refuses a call with EGW00201 for two reasons. There is a limit below the pace (a new customer's, or another program
uses the key): then the same number gets through however many are sent. Or KIS refuses a share at random, at any pace:
then sending less only loses calls. One step tells them apart: go just under what gets through now. If that was a limit,
next to nothing is refused any more, and this pace fits. If it was at random, the share stays, and the full pace is
right: sending more was never seen to lower what gets through. And a limit may go away. So from time to time twice the
pace is tried for one window of calls: if they get through, that fits from now on; if not, the next try comes later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LONGEST_GAP", "Adaptation"]

WINDOW, SETTLED = 20, 3.0  # calls that a verdict takes, and seconds that it takes at the full pace
MANY, FEW = 0.3, 3  # share of refusals that asks for a slower pace; refusals in a window that a fitting one may have
BELOW, LOWEST = 0.95, 3  # just under what gets through; the lowest limit that KIS announces
BATCH = 0.25  # calls a second that reports of several processes, which come in batches, may be off
FIRST_WAIT, LONGEST_HOLD, LONGEST_PAUSE = 5.0, 60.0, 300.0  # seconds until the next try
LONGEST_GAP = 1.0  # seconds between two reports that count: without calls no time passes


@dataclass(slots=True)
class Adaptation:
    """The pace that fits, and the window of calls that is being counted."""

    fit: float = 0.0  # calls a second; 0: the full pace
    looking: bool = False  # twice that is being tried
    until: float = 0.0  # when the next try may begin
    hold: float = FIRST_WAIT  # seconds from a look to the next
    pause: float = FIRST_WAIT  # seconds from a try that did not help to the next
    generation: int = 0  # counts the changes; a call belongs to the generation of its slot
    windows: int = 0  # counts the windows
    passed: int = 0  # calls of this window that were not refused
    refused: int = 0
    time: float = 0.0  # seconds that this window has lasted
    seen: float = 0.0  # when its last call was reported; 0: none yet

    def pace(self, full: float) -> float:
        """Return the calls a second in force where `full` is the most that may be sent."""
        return min(full, self.fit * (2 if self.looking else 1)) if self.fit else full

    def count(self, passed: int, refused: int, now: float) -> None:
        """Count calls of this generation; the first report only opens the window."""
        if self.seen:
            self.time += min(now - self.seen, LONGEST_GAP)
            self.passed, self.refused = self.passed + passed, self.refused + refused
        self.seen = now

    def judge(self, full: float, now: float) -> bool:
        """Judge the window; return whether it is over, which it may be without a change of pace."""
        calls, many = self.passed + self.refused, self.refused > MANY * (self.passed + self.refused)
        if self.fit and not self.looking and self.refused > FEW:
            self._give_up(now)  # going slower did not help
        elif calls < WINDOW or (not self.fit and self.time < SETTLED):
            return False
        elif not self.fit:
            if many and now >= self.until:
                self._slow_down(full, now)
        elif not self.looking:
            if now >= self.until:
                self.looking, self.generation = True, self.generation + 1
        elif many:
            self._hold(now)
        elif 2 * self.fit >= full:
            self._give_up(now)
        else:
            self.fit, self.generation = 2 * self.fit, self.generation + 1
        self.passed, self.refused, self.time, self.seen = 0, 0, 0.0, 0.0
        self.windows += 1
        return True

    def _slow_down(self, full: float, now: float) -> None:
        below = BELOW * max(math.ceil(self.passed / self.time - BATCH), LOWEST)
        if below < full:
            self.fit, self.hold, self.until, self.generation = below, FIRST_WAIT, now + FIRST_WAIT, self.generation + 1

    def _hold(self, now: float) -> None:
        self.looking, self.pause, self.hold = False, FIRST_WAIT, min(2 * self.hold, LONGEST_HOLD)
        self.until, self.generation = now + self.hold, self.generation + 1

    def _give_up(self, now: float) -> None:
        self.fit, self.looking, self.until = 0.0, False, now + self.pause
        self.pause, self.generation = min(2 * self.pause, LONGEST_PAUSE), self.generation + 1
