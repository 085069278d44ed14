"""
When the next call may go out, for everybody who shares a pace. Pure; the time is a parameter.

One number says it all, the time of the next free slot: who takes it moves it on by one interval. That is GCRA without
a burst. What is known of outages, and how the pace adapts, goes with it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

from .adaptive import SETTLING, Adaptation, Window
from .outage import LOOK_AGAIN, Outage, Tally

__all__ = ["FORGOTTEN_AFTER", "LATE", "Grant", "PaceState", "interval_of", "restored"]

SPARE = 0.024
"""
Seconds that the calls of a full second are kept apart more than they need: what a call may be late at KIS without that
and the calls of the second after it being one too many. It costs 2.3 % of the rate.
"""

LATE = 0.008
"""Seconds of those that a call may be late when it leaves; later ones move the schedule. The rest is the network's."""

FORGOTTEN_AFTER = 600.0
"""Seconds after which nobody needs what was known: limits change, outages end."""

LEAST_RATE = 0.1
"""Calls a second; a slower pace was never set, and adapting does not go so low."""

_VERSION = 1


@dataclass(frozen=True)
class Grant:
    """
    An answer to "when may the next call go out".

    Attributes:
        at: when, of the clock of who asked; where `slot` is false, when to ask again.
        slot: whether the slot is the caller's.
        rate: calls a second that are in force.
        changed: calls a second that were in force until this answer changed them; None: it did not.
        failures: calls that failed in a row, as far as is known.
        epoch: which pace this is (`Adaptation.epoch`).
    """

    at: float
    slot: bool
    rate: float
    changed: float | None = None
    failures: int = 0
    epoch: int = 0

    @property
    def interval(self) -> float:
        """Seconds from one call to the next at the rate in force."""
        return interval_of(self.rate)


def interval_of(rate: float) -> float:
    """Seconds from one call to the next; 0 where there is no pace."""
    return (1 + SPARE) / rate if rate else 0.0


@dataclass(slots=True)
class PaceState:
    """All that is shared. Every time in it is of one clock, that of the place where it is kept."""

    written: float = 0.0
    next: float = 0.0
    outage: Outage = field(default_factory=Outage)
    window: Window = field(default_factory=Window)
    adaptation: Adaptation = field(default_factory=Adaptation)

    def usable(self, now: float) -> bool:
        """Not so after a jump of the clock or a reboot, which must not stop everybody, and not for ever."""
        return self.written <= now <= self.written + FORGOTTEN_AFTER

    def take(self, tally: Tally, now: float, rate: float, limit: float | None = None) -> Grant:
        """
        Take in what became of calls, then take the next slot.

        Args:
            tally: of the caller, since it asked last.
            now: seconds.
            rate: calls a second that the caller's settings allow; 0: no pace.
            limit: seconds that the caller would wait; no slot is taken that is further ahead. None: any time.
        """
        self.written = now
        ended = self.outage.observe(tally, now)
        if tally.epoch == self.adaptation.epoch:
            self.window.count(tally.answered, tally.refused, now)
        changed = self._adapt(now, rate)
        in_force = self.rate(rate)
        interval = interval_of(in_force)
        if tally.late > LATE:
            self.next += min(tally.late - LATE, interval)
        if ended:
            self.next = min(self.next, now + interval)
        probe = self.outage.probe_interval(now)
        at, slot = self._probe(now, max(probe, interval)) if probe else self._next(now, interval, limit)
        return Grant(at, slot, in_force, changed, self.outage.failures, self.adaptation.epoch)

    def rate(self, rate: float) -> float:
        """Calls a second in force where `rate` was set."""
        lowered = self.adaptation.lowered
        return min(rate, lowered) if lowered else rate

    def _next(self, now: float, interval: float, limit: float | None) -> tuple[float, bool]:
        at = max(self.next, now)
        if limit is not None and at - now > limit:
            return at, False
        self.next = at + interval
        return at, True

    def _probe(self, now: float, interval: float) -> tuple[float, bool]:
        """Nobody takes a probe's slot ahead of time, so that all can go on as soon as one is answered."""
        if now < self.next:
            return min(self.next, now + LOOK_AGAIN), False
        self.next = now + interval
        return now, True

    def _adapt(self, now: float, rate: float) -> float | None:
        """The rate in force before, where it changes now."""
        judged = self.adaptation.judge(self.window, now, rate)
        if judged is None:
            return None
        before = self.rate(rate)
        same = judged.epoch == self.adaptation.epoch
        self.adaptation = judged
        self.window = Window(now if same else now + SETTLING, now)
        return None if self.rate(rate) == before else before

    def encode(self) -> bytes:
        """As JSON, of one length, so that it can be written over an earlier one."""
        entry = {name: getattr(self, name) for name in self.__slots__}  # `asdict` would cost a slot a tenth of its time
        entry.update((name, {key: getattr(entry[name], key) for key in _NAMES[name]}) for name in _PARTS)
        text = json.dumps({"version": _VERSION, **entry})
        return text.ljust(1_023).encode("ascii") + b"\n"

    @classmethod
    def decode(cls, data: bytes | None, now: float) -> PaceState:
        """Read what `encode` wrote; anything else, and what is not `usable`, is a new state. Never raises."""
        try:
            entry = json.loads(data or b"{}")
            if entry.pop("version") != _VERSION:
                return cls()
            parts = [restored(kind, entry.pop(name)) for name, kind in _PARTS.items()]
            state = restored(cls, entry)
            state.outage, state.window, state.adaptation = parts
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return cls()
        return state if state.usable(now) and _plausible(state) else cls()


def _plausible(state: PaceState) -> bool:
    """Whether it is what time brings about: nobody's slots lie in a distant future, and no pace stands still."""
    window, outage, adaptation = state.window, state.outage, state.adaptation
    latest = max(outage.failed_at, outage.since, window.seen_at, window.since - SETTLING)
    ahead = max(state.next, adaptation.hold_until)
    moves = not adaptation.lowered or adaptation.lowered >= LEAST_RATE
    return latest <= state.written and ahead <= state.written + 2 * FORGOTTEN_AFTER and moves and adaptation.usual <= 1


_PARTS: dict[str, Any] = {"outage": Outage, "window": Window, "adaptation": Adaptation}
_NAMES = {name: tuple(each.name for each in fields(kind)) for name, kind in _PARTS.items()}


def restored(kind: Any, entry: dict[str, Any]) -> Any:
    """A `kind` with the fields of `entry`; `ValueError` or `TypeError` where one is no field or no number from 0."""
    if not all(type(value) in (int, float) and math.isfinite(value) and value >= 0 for value in entry.values()):
        raise ValueError(entry)
    return kind(**entry)
