"""How many API calls a second KIS takes. Pure; the time is always handed in."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Literal, NamedTuple

__all__ = ["CallLimit", "LimitPlan", "Window"]

Window = Literal["sliding", "fixed"]


class CallLimit:
    """
    So many calls a second; a call past the limit does not count. Not thread-safe: the gateway's lock guards it.

    Args:
        per_second: how many.
        window: "sliding" for any second, "fixed" for the seconds of the clock.
    """

    def __init__(self, per_second: int, window: Window) -> None:
        self._per_second = per_second
        self._is_fixed = window == "fixed"
        self._taken: deque[float] = deque()

    def has_room(self, now: float) -> bool:
        """Whether a call at `now` is within the limit."""
        taken = self._taken
        begin = math.floor(now) if self._is_fixed else now - 1
        while taken and (taken[0] < begin if self._is_fixed else taken[0] <= begin):
            taken.popleft()
        return len(taken) < self._per_second

    def take(self, now: float) -> None:
        """Count a call."""
        self._taken.append(now)


class _PathLimit(NamedTuple):
    limit: CallLimit
    status: int
    body: dict[str, Any]


class LimitPlan:
    """The limits in force, by the part of the path that they are for."""

    def __init__(self) -> None:
        self._limits: dict[str, _PathLimit] = {}

    def set(self, path: str, limit: CallLimit | None, status: int, body: dict[str, Any]) -> None:
        """Put `limit` in the place of the one for `path`; None takes it away."""
        if limit is None:
            self._limits.pop(path, None)
        else:
            self._limits[path] = _PathLimit(limit, status, body)

    def __bool__(self) -> bool:
        return bool(self._limits)

    def refusal(self, path: str, now: float) -> _PathLimit | None:
        """The limit that a call to `path` is past; without one the call is counted by all that are for it."""
        of_path = [entry for part, entry in self._limits.items() if part in path]
        for entry in of_path:
            if not entry.limit.has_room(now):
                return entry
        for entry in of_path:
            entry.limit.take(now)
        return None
