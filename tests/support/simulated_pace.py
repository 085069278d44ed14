"""A simulated clock, KIS, store and processes, on which the pure parts of the pace run minutes in a second."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from kis_retry.pace.schedule import Ask, Block, PaceState
from kis_retry.pace.stores import localised
from kis_retry.pace.waiting import Reservation, WaitingLine

__all__ = ["Call", "Kis", "Process", "Simulation", "worst_second"]

BEGIN = 1_000.0


class Kis:
    """
    Refuse calls over a limit, and a share at random.

    Args:
        limit: calls a second; a function of the time where it changes.
        share: of calls that are refused at random.
        kind: "through": a sliding second counts what gets through; "admitted": it counts what the limit lets pass;
            "fixed": a second of the clock does.
        away: from when until when nobody answers.
    """

    def __init__(
        self,
        limit: float | Callable[[float], float] = math.inf,
        share: float = 0.0,
        *,
        kind: str = "through",
        away: tuple[float, float] = (0.0, 0.0),
        seed: int = 1,
    ) -> None:
        self.limit = limit if callable(limit) else lambda _: limit
        self.share, self.kind, self.away = share, kind, away
        self._random = random.Random(seed)
        self._counted: deque[float] = deque()

    def call(self, now: float) -> str:
        if self.away[0] <= now < self.away[1]:
            return "failed"
        counted = self._counted
        while counted and (int(counted[0]) != int(now) if self.kind == "fixed" else counted[0] <= now - 1):
            counted.popleft()
        if len(counted) >= self.limit(now):
            return "limited"
        refused = self._random.random() < self.share
        if not (refused and self.kind == "through"):
            counted.append(now)
        return "limited" if refused else "answered"


class Call:
    """One call: when it was first wanted, and each attempt's time and outcome."""

    def __init__(self, now: float, *, order: bool = False) -> None:
        self.began, self.order = now, order
        self.ended = 0.0
        self.last: Reservation | None = None


class Process:
    """Callers that call again and again, and repeat what was refused with the same ticket."""

    def __init__(self, simulation: Simulation, rate: float, *, rtt: float = 0.0) -> None:
        self.simulation, self.rtt = simulation, rtt
        self.line = WaitingLine(rate, simulation.published)
        self.left: list[float] = []
        self.outcomes: list[tuple[float, str]] = []
        self.begun: list[Call] = []
        self.calls: list[Call] = []
        self.alive = True
        self._polls = math.inf
        self._trips: deque[tuple[float, float]] = deque(maxlen=8)
        self._random = random.Random(id(rate) % 7)

    def callers(self, count: int) -> Process:
        for _ in range(count):
            self.simulation.after(self.simulation.random.random() * 0.05, self.begin)
        return self

    def begin(self, *, order: bool = False, again: bool = True) -> None:
        call = Call(self.simulation.now, order=order)
        self.begun.append(call)
        self._try(call, again)

    def _try(self, call: Call, again: bool) -> None:
        reservation = call.last = Reservation(math.inf, order=call.order, earlier=call.last)
        reservation.add_done_callback(lambda _: self._leave(reservation, call, again))
        self.line.add(reservation)
        self.poll()

    def _leave(self, reservation: Reservation, call: Call, again: bool) -> None:
        simulation = self.simulation
        self.left.append(simulation.now)
        jitter = simulation.random.random() * simulation.jitter
        simulation.after(jitter, partial(self._arrive, reservation, call, again))

    def _arrive(self, reservation: Reservation, call: Call, again: bool) -> None:
        outcome = self.simulation.kis.call(self.simulation.now)
        self.outcomes.append((self.simulation.now, outcome))
        self.simulation.after(self.simulation.latency, partial(self._answered, reservation, call, outcome, again))

    def _answered(self, reservation: Reservation, call: Call, outcome: str, again: bool) -> None:
        simulation = self.simulation
        self.line.report(reservation.generation, outcome, simulation.now)
        if outcome == "answered":
            call.ended = simulation.now
            self.calls.append(call)
            if again:
                self.begin(order=call.order)
        else:
            back_off = 0.3 * (1 + simulation.random.random()) if outcome == "failed" else 0.0
            simulation.after(back_off, partial(self._try, call, again))

    def poll(self) -> None:
        if not self.alive:
            return
        now = self.simulation.now
        self.line.hand_out(now)
        ask = self.line.ask(now)
        if ask is not None:
            way = self.rtt / 2
            self.simulation.after(way * self._stretch(), partial(self._ask, ask, now))
        wake = max(self.line.wake_at(now), now)
        if wake < self._polls - 1e-9:
            self._polls = wake
            self.simulation.at(wake, partial(self._poll_at, wake))

    def _poll_at(self, at: float) -> None:
        if self._polls == at:
            self._polls = math.inf
        self.poll()

    def _ask(self, ask: Ask, sent: float) -> None:
        now = self.simulation.now
        block = self.simulation.state.reserve(ask, BEGIN + now)
        self.simulation.after(self.rtt / 2 * self._stretch(), partial(self._learn, block, sent, BEGIN + now))

    def _learn(self, block: Block, sent: float, server: float) -> None:
        now = self.simulation.now
        if not self.alive:
            return
        block = localised(block, server, sent, now, self._trips) if self.rtt else replace(block, at=block.at - BEGIN)
        self.line.learn(block, now)
        self.poll()

    def _stretch(self) -> float:
        return 1 + 0.1 * self._random.random()


class Simulation:
    def __init__(self, kis: Kis, *, published: float = 18.0, jitter: float = 0.01) -> None:
        self.kis, self.published, self.jitter, self.latency = kis, published, jitter, 0.05
        self.now = 0.0
        self.state = PaceState()
        self.random = random.Random(7)
        self.processes: list[Process] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def process(self, rate: float, callers: int = 0, **given: float) -> Process:
        self.processes.append(Process(self, rate, **given).callers(callers))
        return self.processes[-1]

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def run(self, until: float) -> Simulation:
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, what = heapq.heappop(self._agenda)
            what()
        self.now = until
        return self

    def rate(self, outcome: str, since: float, until: float) -> float:
        found = [o for process in self.processes for at, o in process.outcomes if since <= at < until]
        return found.count(outcome) / (until - since)

    def left(self) -> list[float]:
        return sorted(at for process in self.processes for at in process.left)


def worst_second(times: list[float]) -> int:
    """Return how many of `times`, which are sorted, the fullest sliding second holds."""
    worst, first = 0, 0
    for number, at in enumerate(times):
        while times[first] <= at - 1:
            first += 1
        worst = max(worst, number - first + 1)
    return worst
