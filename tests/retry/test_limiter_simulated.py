"""Minutes of several processes on a simulated clock: what the pace does about limits, refusals and outages."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import pytest

from kis_retry.retry.adaptive import SETTLING
from kis_retry.retry.outage import Tally
from kis_retry.retry.pace import PaceState

LATENCY = 0.05  # seconds an answer takes
START = 1_000.0


class Gateway:
    """KIS: a limit over fixed or sliding seconds, shares that are refused or dropped at random, and an outage."""

    def __init__(
        self,
        limit: Callable[[float], int],
        *,
        sliding: bool,
        refused: float = 0.0,
        dropped: float = 0.0,
        away: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.limit, self.sliding, self.refused, self.dropped, self.away = limit, sliding, refused, dropped, away
        self.random = random.Random(2_026)
        self.counted: deque[float] = deque()
        self.calls: list[tuple[float, str]] = []

    def call(self, now: float) -> str:
        outcome = self._outcome(now)
        self.calls.append((now, outcome))
        return outcome

    def _outcome(self, now: float) -> str:
        if self.away[0] <= now < self.away[1] or self.random.random() < self.dropped:
            return "failed"
        while self.counted and (self.counted[0] <= now - 1 if self.sliding else int(self.counted[0]) != int(now)):
            self.counted.popleft()
        if len(self.counted) >= self.limit(now):
            return "refused"
        self.counted.append(now)
        return "refused" if self.random.random() < self.refused else "answered"

    def share(self, outcome: str, since: float, until: float) -> float:
        calls = [found for now, found in self.calls if since <= now < until]
        return calls.count(outcome) / len(calls)

    def rate(self, outcome: str, since: float, until: float) -> float:
        return sum(found == outcome and since <= now < until for now, found in self.calls) / (until - since)


class Process:
    """Threads that call and call again, and what they tell with the next slot."""

    def __init__(self, threads: int) -> None:
        self.waiting, self.asking = threads, False
        self.answered = self.refused = self.failures = self.epoch = 0
        self.failed_at = self.settled_at = 0.0
        self.through_at: float | None = None

    def tally(self, now: float) -> Tally:
        through_ago = None if self.through_at is None else now - self.through_at
        tally = Tally(
            answered=self.answered,
            refused=self.refused,
            failures=self.failures,
            failed_ago=now - self.failed_at,
            through_ago=through_ago,
            epoch=self.epoch,
        )
        self.answered = self.refused = self.failures = 0
        self.through_at = None
        return tally

    def learn(self, epoch: int, now: float) -> None:
        if epoch != self.epoch:
            self.epoch, self.settled_at, self.answered, self.refused = epoch, now + SETTLING, 0, 0

    def note(self, outcome: str, now: float) -> None:
        if outcome == "failed":
            self.failures, self.failed_at = self.failures + 1, now
            return
        self.failures, self.through_at = 0, now
        if now >= self.settled_at:
            self.answered += outcome == "answered"
            self.refused += outcome == "refused"


class Simulation:
    """Processes that share a state, and what happens next."""

    def __init__(self, gateway: Gateway, rate: float) -> None:
        self.gateway, self.rate, self.rates = gateway, rate, [rate]
        self.state, self.jitter = PaceState(), random.Random(18)
        self.order = itertools.count()
        self.agenda: list[tuple[float, int, Callable[[Process, float], None], Process]] = []

    def at(self, now: float, what: Callable[[Process, float], None], process: Process) -> None:
        heapq.heappush(self.agenda, (now, next(self.order), what, process))

    def run(self, seconds: float) -> None:
        while self.agenda[0][0] < seconds:
            now, _, what, process = heapq.heappop(self.agenda)
            what(process, now)

    def ask(self, process: Process, now: float) -> None:
        process.asking = process.waiting > 0
        if not process.asking:
            return
        grant = self.state.take(process.tally(now), START + now, self.rate)
        process.learn(grant.epoch, now)
        if grant.changed is not None:
            self.rates.append(grant.rate)
        self.at(max(grant.at - START, now) + 0.001, self.go if grant.slot else self.ask, process)

    def go(self, process: Process, now: float) -> None:
        process.waiting -= 1
        arrives = now + 0.002 + self.jitter.random() * 0.004
        outcome = self.gateway.call(arrives)
        self.at(arrives + LATENCY, lambda process, now: self.answer(process, now, outcome), process)
        self.ask(process, now)

    def answer(self, process: Process, now: float, outcome: str) -> None:
        process.note(outcome, now)
        back_off = 0.3 * (1 + self.jitter.random()) if outcome == "failed" else 0
        self.at(now + back_off, self.wait, process)

    def wait(self, process: Process, now: float) -> None:
        process.waiting += 1
        if not process.asking:
            self.ask(process, now)


def run(gateway: Gateway, seconds: float, *, processes: int = 4, threads: int = 8, rate: float = 18) -> list[float]:
    """Let them call for so many seconds; the rates that were in force, in order."""
    simulation = Simulation(gateway, rate)
    for process in [Process(threads) for _ in range(processes)]:
        simulation.at(simulation.jitter.random() / 100, simulation.ask, process)
    simulation.run(seconds)
    return simulation.rates


both_seconds = pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])


@both_seconds
def test_nothing_is_refused_at_the_right_limit_and_97_hundredths_of_it_are_used(sliding: bool) -> None:
    gateway = Gateway(lambda _: 18, sliding=sliding)
    assert run(gateway, 120) == [18]
    assert gateway.rate("refused", 0, 120) == 0
    assert gateway.rate("answered", 1, 119) >= 0.97 * 18


@both_seconds
@pytest.mark.parametrize("limit", [3, 5, 8])
def test_a_limit_that_nobody_knew_of_is_found_within_ten_seconds(limit: int, sliding: bool) -> None:
    gateway = Gateway(lambda _: limit, sliding=sliding)
    run(gateway, 300)
    assert gateway.share("refused", 10, 30) <= 0.05
    assert gateway.share("refused", 10, 300) <= 0.05
    assert gateway.rate("answered", 10, 300) >= 0.75 * limit


@both_seconds
def test_a_limit_that_is_lifted_is_noticed(sliding: bool) -> None:
    gateway = Gateway(lambda now: 3 if now < 100 else 18, sliding=sliding)
    assert run(gateway, 400)[-1] == 18
    assert gateway.rate("answered", 380, 400) >= 0.97 * 18


@both_seconds
def test_refusals_at_random_do_not_slow_it_down(sliding: bool) -> None:
    gateway = Gateway(lambda _: 18, sliding=sliding, refused=0.22)
    assert run(gateway, 1_200) == [18]
    assert gateway.rate("answered", 1, 1_199) >= 0.95 * 18 * 0.78


def test_refusals_at_random_do_not_slow_down_paper_trading() -> None:
    gateway = Gateway(lambda _: 1, sliding=True, refused=0.22)
    run(gateway, 3_600, processes=1, threads=2, rate=1)
    assert gateway.rate("answered", 1, 3_599) >= 0.95 * 0.78


@both_seconds
def test_a_minute_after_everything_was_refused_the_pace_is_back_though_some_are_refused_at_random(
    sliding: bool,
) -> None:
    gateway = Gateway(lambda now: 0 if 50 <= now < 58 else 18, sliding=sliding, refused=0.22)
    rates = run(gateway, 180)
    assert min(rates) == 1
    assert rates[-1] == 18
    assert gateway.rate("answered", 120, 180) >= 0.9 * 18 * 0.78


def test_calls_that_fail_now_and_then_are_no_outage() -> None:
    gateway = Gateway(lambda _: 18, sliding=True, refused=0.22, dropped=0.02)
    run(gateway, 900)
    assert gateway.rate("answered", 1, 899) >= 0.95 * 18 * 0.78 * 0.98


@pytest.mark.parametrize(("processes", "threads"), [(1, 16), (4, 4), (4, 8)])
def test_an_outage_of_eight_seconds_costs_forty_requests_at_most(processes: int, threads: int) -> None:
    gateway = Gateway(lambda _: 18, sliding=True, away=(20, 28))
    run(gateway, 40, processes=processes, threads=threads)
    assert gateway.rate("failed", 20, 28) * 8 <= 40
    assert gateway.rate("answered", 29, 34) >= 0.9 * 18


def test_ten_minutes_of_outage_cost_a_probe_a_second_and_all_go_on_within_two() -> None:
    gateway = Gateway(lambda _: 18, sliding=True, away=(20, 620))
    run(gateway, 640)
    assert gateway.rate("failed", 20, 620) <= 1.1
    assert gateway.rate("answered", 620, 625) > 0
    assert gateway.rate("answered", 622, 632) >= 0.97 * 18
    assert gateway.rate("refused", 620, 640) == 0
