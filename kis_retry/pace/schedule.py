"""
When the next calls may leave, for everybody who shares a pace. Pure; the time is a parameter.

One number says it, the time of the next free slot: whoever reserves slots moves it on. That is GCRA without a burst.
What is known of outages goes with it, and the pace that fits where KIS refuses calls, which it does for two reasons.
There is a limit below the pace (a new customer's, or another program uses the key): then the same number gets through
however many are sent. Or KIS refuses a share at random, at any pace: then sending less only loses calls. One step tells
them apart: go just under what gets through now. If that was a limit, next to nothing is refused any more, and this pace
fits. If it was at random, the share stays, and the full pace is right: sending more was never seen to lower what gets
through. And a limit may go away. So from time to time twice the pace is tried for one window of calls: if they get
through, that fits from now on; if not, the next try comes later.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field

__all__ = ["FORGOTTEN", "LATE", "Adaptation", "Ask", "Block", "PaceState", "interval_of"]

# Seconds that the calls of a full second are kept apart more than they need: what a call may be late at KIS without it
# and the calls of the second after it being one too many. It costs 2.3 % of the rate.
SPARE = 0.024
LATE = 0.008  # seconds of those that a call may be late when it leaves; later ones move the schedule

FORGOTTEN = 600.0  # seconds after which nobody needs what was known: limits change, outages end
TOP_HOLDS = 10.0  # seconds for which the highest rate that was asked for counts
OUTAGE = 5  # failures in a row that make one
PROBE = 0.5  # seconds between two probes, or two looks at whether somebody else's got through

WINDOW, SETTLED = 20, 3.0  # calls that a verdict takes, and seconds that it takes at the full pace
MANY, FEW = 0.3, 3  # share of refusals that asks for a slower pace; refusals in a window that a fitting one may have
BELOW, LOWEST = 0.95, 3  # just under what gets through; the lowest limit that KIS announces
BATCH = 0.25  # calls a second that reports of several processes, which come in batches, may be off
FIRST_WAIT, LONGEST_HOLD, LONGEST_PAUSE = 5.0, 60.0, 300.0  # seconds until the next try
LONGEST_GAP = 1.0  # seconds between two reports that count: without calls no time passes


def interval_of(rate: float) -> float:
    """Return the seconds from one call to the next."""
    return (1 + SPARE) / rate


@dataclass(slots=True)
class Ask:
    """What a process asks for, and what became of its calls since it asked last, by its own clock."""

    rate: float  # calls a second that its settings allow
    published: float  # calls a second that KIS announces for such an account
    count: int = 1  # slots
    now: float = 0.0
    lead: float = 0.0  # seconds that the answer is under way
    late: float = 0.0  # seconds by which a call left after its slot
    generation: int = 0  # of the pace at which the next two left
    passed: int = 0
    refused: int = 0
    failures: int = 0  # calls that nobody answered, in a row, up to now
    failed_at: float = 0.0
    through_at: float = 0.0  # when the last call was answered or refused; 0: none was


@dataclass(frozen=True)
class Block:
    """Slots that are the caller's."""

    at: float  # the first; where there is none, when to ask again
    count: int  # 0 between two probes of an outage
    interval: float
    generation: int
    fit: float  # calls a second; 0: the full pace
    away: bool  # this is an outage


@dataclass(slots=True)
class Adaptation:
    """The pace that fits, and the window of calls that is being counted."""

    fit: float = 0.0  # calls a second; 0: the full pace
    looking: bool = False  # twice that is being tried
    until: float = 0.0  # when the next try may begin
    hold: float = FIRST_WAIT  # seconds from a look to the next
    pause: float = FIRST_WAIT  # seconds from a try that did not help to the next
    generation: int = 0  # counts the changes; a call belongs to the generation of its slot
    passed: int = 0  # calls of this window that were not refused
    refused: int = 0
    time: float = 0.0  # seconds that this window has lasted
    seen: float = 0.0  # when its last call was reported; 0: none yet

    def count(self, passed: int, refused: int, full: float, now: float) -> None:
        """Count calls of this generation, and judge a window that is full; the first report only opens one."""
        if self.seen:
            self.time += min(now - self.seen, LONGEST_GAP)
            self.passed, self.refused = self.passed + passed, self.refused + refused
        self.seen = now
        calls = self.passed + self.refused
        if self.fit and not self.looking and self.refused > FEW:
            self._give_up(now)  # going slower did not help
        elif calls < WINDOW or (not self.fit and self.time < SETTLED):
            return
        elif not self.fit or self.looking:
            self._judge(self.refused > MANY * calls, full, now)
        elif now >= self.until:
            self.looking, self.generation = True, self.generation + 1
        self.passed, self.refused, self.time, self.seen = 0, 0, 0.0, 0.0

    def _judge(self, many: bool, full: float, now: float) -> None:
        if not self.fit:
            below = BELOW * max(math.ceil(self.passed / self.time - BATCH), LOWEST)
            if many and now >= self.until and below < full:
                self.fit, self.hold, self.until = below, FIRST_WAIT, now + FIRST_WAIT
                self.generation += 1
        elif many:
            self.looking, self.pause, self.hold = False, FIRST_WAIT, min(2 * self.hold, LONGEST_HOLD)
            self.until, self.generation = now + self.hold, self.generation + 1
        elif 2 * self.fit >= full:
            self._give_up(now)
        else:
            self.fit, self.generation = 2 * self.fit, self.generation + 1

    def _give_up(self, now: float) -> None:
        self.fit, self.looking, self.until = 0.0, False, now + self.pause
        self.pause, self.generation = min(2 * self.pause, LONGEST_PAUSE), self.generation + 1


@dataclass(slots=True)
class PaceState:
    """All that is shared. Its times are of one clock, that of the place where it is kept."""

    next: float = 0.0  # free slot
    top: float = 0.0  # the highest rate that was asked for lately
    top_at: float = 0.0
    failures: int = 0  # in a row
    failed_at: float = 0.0
    away: bool = False  # this is an outage
    adaptation: Adaptation = field(default_factory=Adaptation)

    def reserve(self, ask: Ask, now: float) -> Block:
        """Take in what became of calls, then reserve slots."""
        self._learn_of_outage(ask, now)
        found = self.adaptation
        if ask.rate >= self.top or now - self.top_at > TOP_HOLDS:
            self.top, self.top_at = ask.rate, now
        full = max(ask.rate, min(self.top, ask.published))  # set to less it slows nobody, set to more only itself
        if ask.passed + ask.refused and ask.generation == found.generation:
            found.count(ask.passed, ask.refused, full, now)
        interval = interval_of(min(full, found.fit * (2 if found.looking else 1) or full))
        self.next += min(max(ask.late - LATE, 0.0), interval)
        at, count = max(self.next, now + ask.lead), ask.count
        if not self.away:
            self.next = at + count * interval
        elif now < self.next:  # nobody reserves a probe's slot ahead: all go on as soon as one is answered
            at, count = min(self.next, now + PROBE), 0
        else:
            at, count = now, 1
            self.next = now + max(interval, PROBE)
        return Block(at, count, interval, found.generation, found.fit, self.away)

    def _learn_of_outage(self, ask: Ask, now: float) -> None:
        ahead = now - ask.now
        if ask.through_at and ask.through_at + ahead >= self.failed_at:
            self.failures, self.away = 0, False
        if ask.failures:
            self.failures, self.failed_at = self.failures + ask.failures, max(self.failed_at, ask.failed_at + ahead)
            self.away |= self.failures >= OUTAGE

    def to_json(self) -> str:
        """Return what is to be kept."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes | str | None, now: float) -> PaceState:
        """Read what `to_json` wrote; what is not ours, or not of this time (after a reboot), is a new state."""
        try:
            entry = json.loads(data or b"{}")
            found = entry.pop("adaptation")
            state = cls(**entry, adaptation=Adaptation(**found))
            sound = all(0 <= value < math.inf for value in (*entry.values(), *found.values()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls()
        recent = state.top_at - 1 < now < state.top_at + FORGOTTEN  # a server's clock may be set back a little
        return state if sound and recent and state.next < now + FORGOTTEN else cls()
