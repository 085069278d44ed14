"""
Which pace is right where KIS refuses calls: `Adaptation`. Pure; the time is a parameter.

A call is refused with EGW00201 for two reasons. Either there is a limit below the pace (a new customer has 3 a second,
another program uses the same key): then the same number gets through however many are sent. Or KIS refuses a random
share at any pace, and sending less only loses calls. One step tells them apart: go a little slower than what gets
through now. Under a limit nearly nothing is refused from then on, and this pace is right: it fits. Refusals at random
keep their share, and the full pace is right, for more calls were never seen to lower what gets through.

A limit may go away. So after a while the pace is doubled for one window of calls: if they get through, that fits from
now on, up to the full pace; if not, the next try comes after twice the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Adaptation"]

WINDOW = 20  # calls that a verdict takes
SETTLED = 3.0  # seconds that it takes at the full pace
MANY = 0.3  # the share of refusals that asks for a slower pace
FEW = 3  # refusals in a window that a pace which fits may have
BELOW = 0.95  # of what gets through: a pace just under it
LOWEST = 3  # calls a second, the lowest limit that KIS announces
FIRST_WAIT, LONGEST_HOLD, LONGEST_PAUSE = 5.0, 60.0, 300.0  # seconds until the next try
LONGEST_GAP = 1.0  # seconds between two reports that count; without calls no time passes


@dataclass(slots=True)
class Adaptation:
    """
    The pace that fits, and the window of calls that is being counted.

    Attributes:
        fit: calls a second that fit; 0: the full pace.
        looking: whether twice that is being tried.
        until: when the next try may begin.
        hold: seconds that a pace which fits is held for before the next look.
        pause: seconds that the full pace is kept for before the next slower one.
        generation: counts the changes of pace; a call belongs to that of its slot.
        windows: counts the windows.
        passed: calls in this window that were not refused.
        refused: calls in this window that were refused with EGW00201.
        time: seconds that this window has lasted.
        seen: when the last of its calls was reported; 0: none yet.
    """

    fit: float = 0.0
    looking: float = False
    until: float = 0.0
    hold: float = FIRST_WAIT
    pause: float = FIRST_WAIT
    generation: int = 0
    windows: int = 0
    passed: int = 0
    refused: int = 0
    time: float = 0.0
    seen: float = 0.0

    def pace(self, full: float) -> float:
        """Return the calls a second in force where `full` is the most that may be sent."""
        return min(full, self.fit * (2 if self.looking else 1)) if self.fit else full

    def count(self, passed: int, refused: int, now: float) -> None:
        """Count calls of this generation; the first report only opens the window."""
        if self.seen:
            self.time += min(now - self.seen, LONGEST_GAP)
            self.passed += passed
            self.refused += refused
        self.seen = now

    def judge(self, full: float, now: float) -> bool:
        """Judge the window where it is long enough; return whether it is over, be the pace another or not."""
        calls = self.passed + self.refused
        if self.fit and not self.looking and self.refused > FEW:
            return self._give_up(now)  # going slower did not help
        if calls < WINDOW or (not self.fit and self.time < SETTLED):
            return False
        many = self.refused > MANY * calls
        if not self.fit:
            return self._slow_down(full, now) if many and now >= self.until else self._next_window()
        if not self.looking:
            return self._look() if now >= self.until else self._next_window()
        return self._hold(now) if many else self._climb(full, now)

    def _slow_down(self, full: float, now: float) -> bool:
        below = BELOW * max(math.ceil(self.passed / self.time), LOWEST)
        if below >= full:
            return self._next_window()
        self.fit, self.hold, self.until = below, FIRST_WAIT, now + FIRST_WAIT
        return self._change()

    def _look(self) -> bool:
        self.looking = True
        return self._change()

    def _climb(self, full: float, now: float) -> bool:
        if 2 * self.fit >= full:
            return self._give_up(now)
        self.fit *= 2
        return self._change()

    def _hold(self, now: float) -> bool:
        self.looking, self.pause, self.hold = False, FIRST_WAIT, min(2 * self.hold, LONGEST_HOLD)
        self.until = now + self.hold
        return self._change()

    def _give_up(self, now: float) -> bool:
        self.fit, self.looking, self.until = 0.0, False, now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return self._change()

    def _change(self) -> bool:
        self.generation += 1
        return self._next_window()

    def _next_window(self) -> bool:
        self.windows += 1
        self.passed, self.refused, self.time, self.seen = 0, 0, 0.0, 0.0
        return True
