"""
When the next calls may leave, for everybody who shares a pace. Pure; the time is a parameter.

One number says it, the time of the next free slot: whoever reserves slots moves it on. That is GCRA without a burst.
What is known of outages, and how the pace adapts, goes with it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field

from .adaptation import Adaptation

__all__ = ["LATE", "Ask", "Block", "PaceState", "interval_of"]

# Seconds that the calls of a full second are kept apart more than they need: what a call may be late at KIS without it
# and the calls of the second after it being one too many. It costs 2.3 % of the rate.
SPARE = 0.024
LATE = 0.008  # seconds of those that a call may be late when it leaves; later ones move the schedule

FORGOTTEN = 600.0  # seconds after which nobody needs what was known: limits change, outages end
TOP_HOLDS = 10.0  # seconds for which the highest rate that was asked for counts
OUTAGE, APART = 5, 60.0  # failures in a row that make an outage; seconds after which a failure belongs to no row
PROBE, LATER_PROBE, SHORT = 0.5, 1.0, 10.0  # seconds between probes: at first, and after so many seconds
LOOK_AGAIN = 0.5  # seconds between two looks at whether somebody else's probe got through


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
class PaceState:
    """All that is shared. Its times are of one clock, that of the place where it is kept."""

    written: float = 0.0
    next: float = 0.0  # free slot
    top: float = 0.0  # the highest rate that was asked for lately
    top_at: float = 0.0
    failures: int = 0  # in a row
    failed_at: float = 0.0
    away_since: float = 0.0  # 0: there is no outage
    adaptation: Adaptation = field(default_factory=Adaptation)

    def reserve(self, ask: Ask, now: float) -> Block:
        """Take in what became of calls, then reserve slots."""
        self.written = now
        ended = self._learn_of_outage(ask, now)
        if ask.rate >= self.top or now - self.top_at > TOP_HOLDS:
            self.top, self.top_at = ask.rate, now
        full = self.full(ask)
        if ask.passed + ask.refused and ask.generation == self.adaptation.generation:
            self.adaptation.count(ask.passed, ask.refused, now)
            self.adaptation.judge(full, now)
        interval = interval_of(self.adaptation.pace(full))
        self.next += min(max(ask.late - LATE, 0.0), interval)
        if ended:
            self.next = min(self.next, now + interval)
        at, count = max(self.next, now + ask.lead), ask.count
        if not self.away_since:
            self.next = at + count * interval
        elif now < self.next:  # nobody reserves a probe's slot ahead: all go on as soon as one is answered
            at, count = min(self.next, now + LOOK_AGAIN), 0
        else:
            at, count = now, 1
            self.next = now + max(interval, PROBE if now - self.away_since < SHORT else LATER_PROBE)
        return self.block(at, count, interval)

    def full(self, ask: Ask) -> float:
        """Return the pace without adapting: who is set to less slows nobody, who is set to more only himself."""
        return max(ask.rate, min(self.top, ask.published))

    def block(self, at: float, count: int, interval: float) -> Block:
        """Return slots of the pace that is in force."""
        return Block(at, count, interval, self.adaptation.generation, self.adaptation.fit, self.away_since > 0)

    def _learn_of_outage(self, ask: Ask, now: float) -> bool:
        ended, ahead = False, now - ask.now
        if ask.through_at and ask.through_at + ahead >= self.failed_at:
            ended, self.failures, self.away_since = self.away_since > 0, 0, 0.0
        if ask.failures:
            if not self.away_since and ask.failed_at + ahead - self.failed_at > APART:
                self.failures = 0
            self.failures, self.failed_at = self.failures + ask.failures, max(self.failed_at, ask.failed_at + ahead)
            if self.failures >= OUTAGE and not self.away_since:
                self.away_since = now
        return ended

    def encode(self) -> bytes:
        """Return the state as JSON."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, data: bytes | str | None, now: float) -> PaceState:
        """Read what `encode` wrote; what is not ours, or not of this time (after a reboot), is a new state."""
        try:
            entry = json.loads(data or b"{}")
            found = entry.pop("adaptation")
            state = cls(**entry, adaptation=Adaptation(**found))
            sound = all(0 <= value < math.inf for value in (*entry.values(), *found.values()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls()
        # A server rounds what it keeps.
        recent = 0 < state.written < now + 1 < state.written + FORGOTTEN + 1 and state.next < now + 2 * FORGOTTEN
        return state if sound and recent else cls()
