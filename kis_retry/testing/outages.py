"""When nobody answers at all. Pure; the time is always handed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .faults import Where

__all__ = ["Outage", "OutageOf", "OutagePlan"]

OutageOf = Literal["calls", "tokens", "both"]


@dataclass
class Outage:
    """
    A time in which every request of a kind fails.

    Attributes:
        where: which requests fail.
        seconds: how long; None until it is ended by hand.
        status: the HTTP status of the answers, which carry no verdict; None where connections are dropped.
        void_tokens: every token is void afterwards.
        at_call: the API call with which it begins; None for one that has begun.
        until: when it ends, in seconds of the gateway's clock; None for one that has not begun.
    """

    where: OutageOf
    seconds: float | None
    status: int | None
    void_tokens: bool
    at_call: int | None = None
    until: float | None = None

    def begin(self, now: float) -> None:
        """Start its seconds."""
        self.at_call = None
        self.until = math.inf if self.seconds is None else now + self.seconds


class OutagePlan:
    """The outages to come and those under way. Not thread-safe: the gateway's lock guards it."""

    def __init__(self) -> None:
        self._outages: list[Outage] = []

    def add(self, outage: Outage) -> None:
        """Plan one."""
        self._outages.append(outage)

    def __bool__(self) -> bool:
        return bool(self._outages)

    def begin_at(self, call: int, now: float) -> None:
        """Begin what begins with this API call."""
        for outage in self._outages:
            if outage.at_call == call:
                outage.begin(now)

    def take_ended(self, now: float) -> list[Outage]:
        """Those that are over by `now`, which are forgotten with that."""
        ended = [outage for outage in self._outages if outage.until is not None and now >= outage.until]
        self._outages = [outage for outage in self._outages if outage not in ended]
        return ended

    def under_way(self, where: Where) -> Outage | None:
        """The one that meets such a request now."""
        for outage in self._outages:
            if outage.until is not None and outage.where in {where, "both"}:
                return outage
        return None

    def clear(self) -> list[Outage]:
        """End those under way, forget those to come, and give back the former."""
        begun = [outage for outage in self._outages if outage.until is not None]
        self._outages = []
        return begun
