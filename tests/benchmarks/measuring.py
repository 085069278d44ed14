"""How to measure side by side: every contender once a round, in turn, and ratios within a round before any median."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Line", "Rounds", "seconds_each", "side_by_side"]


class Line(NamedTuple):
    """One line of a table; without a bound it is for information."""

    what: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        over = self.at_most is not None and self.value > self.at_most
        return not over and not (self.at_least is not None and self.value < self.at_least)

    @property
    def bound(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""


class Rounds:
    """What each contender took, a figure a round."""

    def __init__(self, figures: Mapping[str, list[float]]) -> None:
        self._figures = figures

    def median(self, name: str) -> float:
        return statistics.median(self._figures[name])

    def over(self, name: str, base: str) -> float:
        """What `name` takes more than `base`."""
        mine, others = self._figures[name], self._figures[base]
        return statistics.median(one - other for one, other in zip(mine, others, strict=True))

    def sum(self, *names: str) -> Rounds:
        """The same with "sum": those of `names`, round by round."""
        rounds = zip(*(self._figures[name] for name in names), strict=True)
        return Rounds({**self._figures, "sum": [sum(figures) for figures in rounds]})

    def ratio(self, name: str, other: str, *, over: str | None = None) -> float:
        """`name` to `other`; with `over`, what the one takes more than it to what the other does."""
        mine, others = self._figures[name], self._figures[other]
        base = self._figures[over] if over else [0.0] * len(mine)
        return statistics.median((a - c) / (b - c) for a, b, c in zip(mine, others, base, strict=True))


def side_by_side(contenders: Mapping[str, Callable[[], float]], rounds: int, *, turning: bool = True) -> Rounds:
    """
    Have each measure itself once a round.

    The order is `turning` from round to round, since what else runs on the machine may come and go in step with it.
    The first round warms up and does not count.
    """
    names = list(contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        gc.collect()
        turn = number % len(names) if turning else 0
        for name in names[turn:] + names[:turn]:
            figure = contenders[name]()
            if number:
                figures[name].append(figure)
    return Rounds(figures)


def seconds_each(call: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """What one of `times` calls takes; by `time.thread_time` where it waits for nothing and others use the machine."""
    began = clock()
    for _ in range(times):
        call()
    return (clock() - began) / times
