"""
When the next calls may leave, for everybody who shares a pace: `PaceState`. Pure; the time is a parameter.

One number says it, the time of the next free slot: whoever reserves slots moves it on. That is GCRA without a burst.
What is known of outages, and how the pace adapts, goes with it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .adaptation import Adaptation

__all__ = ["LATE", "Ask", "Block", "PaceState", "interval_of"]

SPARE = 0.024
"""
Seconds that the calls of a full second are kept apart more than they need: what a call may be late at KIS without that
and the calls of the second after it being one too many. It costs 2.3 % of the rate.
"""

LATE = 0.008
"""Seconds of those that a call may be late when it leaves; later ones move the schedule. The rest is the network's."""

FORGOTTEN = 600.0  # seconds after which nobody needs what was known: limits change, outages end
TOP_HOLDS = 10.0  # seconds for which the highest rate that was asked for counts
OUTAGE = 5  # failures in a row; of calls that fail at 2 %, three in a thousand million begin such a row
APART = 60.0  # seconds after which a failure belongs to no row
PROBE, LATER_PROBE, SHORT = 0.5, 1.0, 10.0  # seconds between probes: the first, those after SHORT
LOOK_AGAIN = 0.5  # seconds between two looks at whether somebody else's probe got through


def interval_of(rate: float) -> float:
    """Return the seconds from one call to the next."""
    return (1 + SPARE) / rate


@dataclass(frozen=True)
class Ask:
    """
    What a process asks for, and what became of its calls since it asked last. Ages, since clocks differ.

    Attributes:
        rate: calls a second that its settings allow.
        published: calls a second that KIS announces for such an account.
        count: how many slots it wants.
        lead: seconds that the answer is on its way.
        late: seconds by which a call left after its slot.
        generation: the pace that the counted calls were sent at.
        passed: calls that KIS answered, EGW00201 apart.
        refused: calls that were refused with EGW00201.
        failures: calls that nobody answered, in a row, up to now.
        failed_ago: age of the last of them, seconds.
        through_ago: age of the last call that was answered or refused, seconds; -1: there was none.
    """

    rate: float
    published: float
    count: int = 1
    lead: float = 0.0
    late: float = 0.0
    generation: int = 0
    passed: int = 0
    refused: int = 0
    failures: int = 0
    failed_ago: float = 0.0
    through_ago: float = -1.0


@dataclass(frozen=True)
class Block:
    """
    Slots that are the caller's.

    Attributes:
        at: time of the first, of the clock of who asked; where `count` is 0, when to ask again.
        count: how many; 0 in an outage, between two probes.
        interval: seconds from one to the next.
        generation: the pace that they belong to.
        fit: calls a second that fit; 0: the full pace.
        away: whether this is an outage.
    """

    at: float
    count: int
    interval: float
    generation: int = 0
    fit: float = 0.0
    away: bool = False


@dataclass(slots=True)
class PaceState:
    """
    All that is shared. Every time in it is of one clock, that of the place where it is kept.

    Attributes:
        written: when it was used last.
        next: time of the next free slot.
        top: the highest rate that somebody asked for in the last seconds.
        top_at: when that was.
        failures: calls that nobody answered, in a row.
        failed_at: when the last of them failed.
        away_since: when the outage began; 0: there is none.
        adaptation: which pace fits.
    """

    written: float = 0.0
    next: float = 0.0
    top: float = 0.0
    top_at: float = 0.0
    failures: int = 0
    failed_at: float = 0.0
    away_since: float = 0.0
    adaptation: Adaptation = field(default_factory=Adaptation)

    def reserve(self, ask: Ask, now: float) -> Block:
        """Take in what became of calls, then reserve slots."""
        if self.written and not self.written <= now <= self.written + FORGOTTEN:
            self.__init__()  # type: ignore[misc]  # a reboot, or so long ago that it is no longer true
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
        return self._probe(now, interval) if self.away_since else self._block(ask, now, interval)

    def full(self, ask: Ask) -> float:
        """Return the pace without adapting: a process that is set to less slows nobody, one set to more only itself."""
        return max(ask.rate, min(self.top, ask.published))

    def _learn_of_outage(self, ask: Ask, now: float) -> bool:
        """Take in failures; return whether an outage is over."""
        ended = False
        if ask.through_ago >= 0 and now - ask.through_ago >= self.failed_at:
            ended, self.failures, self.away_since = bool(self.away_since), 0, 0.0
        if ask.failures:
            failed_at = now - ask.failed_ago
            if not self.away_since and failed_at - self.failed_at > APART:
                self.failures = 0
            self.failures += ask.failures
            self.failed_at = max(self.failed_at, failed_at)
            if self.failures >= OUTAGE and not self.away_since:
                self.away_since = now
        return ended

    def _block(self, ask: Ask, now: float, interval: float) -> Block:
        at = max(self.next, now + ask.lead)
        self.next = at + ask.count * interval
        return self._answer(at, ask.count, interval)

    def _probe(self, now: float, interval: float) -> Block:
        """Nobody reserves a probe's slot ahead of time, so that all can go on as soon as one is answered."""
        if now < self.next:
            return self._answer(min(self.next, now + LOOK_AGAIN), 0, interval)
        self.next = now + max(interval, PROBE if now - self.away_since < SHORT else LATER_PROBE)
        return self._answer(now, 1, interval)

    def _answer(self, at: float, count: int, interval: float) -> Block:
        found = self.adaptation
        return Block(at, count, interval, found.generation, found.fit, bool(self.away_since))

    def encode(self) -> bytes:
        """Return the state as JSON."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, data: bytes | str | None) -> PaceState:
        """Read what `encode` wrote; anything else is a new state. Never raises."""
        try:
            entry = json.loads(data or b"{}")
            adaptation = _restored(Adaptation, entry.pop("adaptation", {}))
            state = replace(_restored(cls, entry), adaptation=adaptation)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls()
        return state if state._is_plausible() else cls()

    def _is_plausible(self) -> bool:
        """Whether it is what time brings about: nobody's slots lie in a distant future, and no pace stands still."""
        found = self.adaptation
        latest = max(self.top_at, self.failed_at, self.away_since, found.seen)
        ahead = max(self.next, found.until)
        moves = (not found.fit or found.fit >= 1) and self.top <= 1_000
        return latest <= self.written and ahead <= self.written + 2 * FORGOTTEN and moves


def _restored(kind: Any, entry: dict[str, Any]) -> Any:
    """Make a `kind` of `entry`; `ValueError` or `TypeError` where one is no field or no number from 0."""
    known = {each.name for each in fields(kind)}
    if not entry.keys() <= known or not all(_is_number(value) for value in entry.values()):
        raise ValueError(entry)
    return kind(**entry)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
