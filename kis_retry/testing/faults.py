"""What can go wrong between a batch and KIS, and which request meets it. Pure, but for the dice."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

__all__ = ["Drop", "Effect", "Fault", "FaultPlan", "Garble", "Hang", "Refuse", "Share", "Where"]

Where = Literal["calls", "tokens"]

Share = float
"""A part of all: above 0, up to 1."""


class Refuse(NamedTuple):
    """KIS answers, and says no."""

    status: int
    body: Mapping[str, Any]
    reached: bool = False


class Drop(NamedTuple):
    """The connection breaks."""

    reached: bool


class Hang(NamedTuple):
    """The answer does not come."""

    seconds: float
    reached: bool


class Garble(NamedTuple):
    """Somebody else answers."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    reached: bool


Effect = Refuse | Drop | Hang | Garble


@dataclass
class Fault:
    """
    One kind of trouble, for some requests.

    Attributes:
        name: under what it is counted in `faults_met`.
        effect: what it does; None hands the same token out again.
        where: which kind of request it meets.
        path: a part of the path of the requests that it meets; "" for all.
        left: how many it has still to meet; None for no end.
        share: the share of them that it meets; None for each.
    """

    name: str
    effect: Effect | None
    where: Where
    path: str = ""
    left: int | None = None
    share: Share | None = None

    def __post_init__(self) -> None:
        times, share = self.left, self.share
        if self.where not in {"calls", "tokens"}:
            raise ValueError(f'where={self.where!r} is not usable: it takes "calls" or "tokens"')
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
            raise ValueError(f"times={times!r} is not usable: it takes a whole number from 1, or None for ever")
        if share is not None and (isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1):
            raise ValueError(f"share={share!r} is not usable: it takes a number above 0, up to 1, or None for each")

    def meets(self, where: Where, path: str) -> bool:
        """Whether it is for such a request."""
        return self.where == where and self.path in path


class FaultPlan:
    """
    The faults in the order they were asked for. Not thread-safe: the gateway's lock guards it.

    Args:
        seed: what the dice start from, so that the same requests in the same order meet the same faults.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._dice = random.Random(seed)  # noqa: S311  # dice, not keys
        self._queue: list[Fault] = []
        self._shares: list[Fault] = []
        self.released = threading.Event()

    def add(self, fault: Fault) -> None:
        """Plan a fault."""
        if fault.share is None:
            self._queue.append(fault)
            return
        beside = [other for other in self._shares if other.where == fault.where and other.path in {fault.path, ""}]
        total = fault.share + sum(other.share or 0 for other in beside)
        if total > 1 + 1e-9:
            raise ValueError(f"share={fault.share!r} is not usable: with those before it, it comes to {total:g} of 1")
        self._shares.append(fault)

    def __bool__(self) -> bool:
        return bool(self._queue or self._shares)

    def next_in_queue(self, where: Where, path: str) -> Fault | None:
        """What befalls the request that just came in: the oldest fault for it with something left."""
        for fault in self._queue:
            if fault.effect is not None and fault.meets(where, path):
                return self._use(fault, self._queue)
        return None

    def drawn(self, where: Where, path: str) -> Fault | None:
        """What the dice say: one throw for each request, so that shares add up."""
        thrown = self._dice.random()
        for fault in self._shares:
            if fault.meets(where, path):
                thrown -= fault.share or 0
                if thrown < 0:
                    return self._use(fault, self._shares)
        return None

    def take_same_token(self) -> bool:
        """Whether this issue hands the old token out again."""
        for fault in self._queue:
            if fault.effect is None:
                self._use(fault, self._queue)
                return True
        return False

    def clear(self) -> None:
        """Forget every fault, and let go what hangs."""
        self._queue.clear()
        self._shares.clear()
        self.released.set()
        self.released = threading.Event()

    def _use(self, fault: Fault, faults: list[Fault]) -> Fault:
        if fault.left is not None:
            fault.left -= 1
            if fault.left == 0:
                faults.remove(fault)
        return fault
