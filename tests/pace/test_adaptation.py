"""The pace that fits, simulated: ten minutes of callers who use every slot beside limits and refusals at random."""

from __future__ import annotations

import math
import random
from collections import deque

import pytest

from kis_retry.pace.schedule import Ask, PaceState
from simulated_pace import Kis, Simulation

LONG = 600.0


class Batch:
    """So many callers that every slot is used, for some time; an answer takes 50 ms and a jitter of 10 ms."""

    def __init__(self, kis: Kis, seconds: float = LONG, *, adapting: bool = True, seed: int = 3) -> None:
        self.outcomes: list[tuple[float, str]] = []
        self.paces: list[tuple[float, float]] = [(0.0, 18.0)]  # from when on, and which
        jitter, state, now = random.Random(seed), PaceState(), 0.0
        told: deque[tuple[float, str, int]] = deque()
        while now < seconds:
            passed = refused = 0
            while told and told[0][0] <= now:
                _, outcome, generation = told.popleft()
                if adapting and generation == state.adaptation.generation:
                    passed, refused = passed + (outcome == "answered"), refused + (outcome == "limited")
            generation = state.adaptation.generation
            block = state.reserve(Ask(18, 18, generation=generation, passed=passed, refused=refused), now)
            now = block.at
            arrives = now + jitter.random() * 0.01
            self.outcomes.append((arrives, kis.call(arrives)))
            told.append((arrives + 0.05, self.outcomes[-1][1], block.generation))
            if self.paces[-1][1] != (block.fit or 18):
                self.paces.append((now, block.fit or 18))

    def count(self, outcome: str, since: float = 0, until: float = LONG) -> int:
        return sum(found == outcome for now, found in self.outcomes if since <= now < until)

    def refused(self, since: float, until: float) -> float:
        limited = self.count("limited", since, until)
        return limited / (limited + self.count("answered", since, until))


@pytest.mark.parametrize(
    ("kind", "limit", "share"),
    [
        *(("through", limit, share) for limit in (3, 10, 15, 18, math.inf) for share in (0, 0.22, 0.45, 0.6)),
        *((kind, limit, share) for kind in ("admitted", "fixed") for limit, share in ((3, 0.6), (10, 0.22))),
    ],
)
def test_adapting_costs_at_most_a_tenth_of_what_gets_through(kind: str, limit: float, share: float) -> None:
    adapting, never = (Batch(Kis(limit, share, kind=kind), adapting=adapting) for adapting in (True, False))
    assert adapting.count("answered") >= 0.9 * never.count("answered")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_limit_of_3_is_kept_to(seed: int) -> None:
    batch = Batch(Kis(3, seed=seed), 300, seed=seed)
    assert batch.refused(0, 300) <= 0.15
    assert batch.count("answered") >= 2.7 * 300
    assert batch.paces[-1][1] == pytest.approx(2.85)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_limit_that_begins_and_ends_is_followed(seed: int) -> None:
    batch = Batch(Kis(lambda now: 3 if 100 <= now < 400 else 18, seed=seed), 600, seed=seed)
    assert min(pace for now, pace in batch.paces if now < 110) < 5
    assert batch.refused(130, 400) <= 0.15
    full_again, pace = batch.paces[-1]
    assert pace == 18
    assert 400 < full_again <= 472, "all of it is in force again within 72 seconds"
    assert batch.count("answered", 480, 600) >= 0.95 * 17.5 * 120


class SharedKis(Kis):
    """Another program sends ten calls a second with the same key."""

    def call(self, now: float) -> str:
        while self.other <= now:
            other, self.other = self.other, self.other + 0.1
            super().call(other)
        return super().call(now)

    other = 0.0


def test_another_program_leaves_the_rest() -> None:
    adapting, never = (Batch(SharedKis(18, kind="admitted"), 300, adapting=adapting) for adapting in (True, False))
    assert adapting.count("answered") >= 0.9 * never.count("answered")


def refused(simulation: Simulation, seconds: float) -> float:
    limited = simulation.rate("limited", 0, seconds)
    return limited / (limited + simulation.rate("answered", 0, seconds))


@pytest.mark.parametrize(("processes", "rtt", "most"), [(4, 0, 0.15), (12, 0, 0.2), (2, 0.1, 0.25), (2, 0.3, 0.25)])
def test_processes_that_share_a_pace_adapt_together(processes: int, rtt: float, most: float) -> None:
    simulation = Simulation(Kis(3))
    found = [simulation.process(18, 32 // processes, rtt=rtt) for _ in range(processes)]
    simulation.run(300)
    assert refused(simulation, 300) <= most
    assert simulation.rate("answered", 0, 300) >= 2.7
    assert {process.line.fit for process in found} == {0.95 * 3}


def test_on_paper_refusals_at_random_never_slow_down() -> None:
    simulation = Simulation(Kis(1, 0.22), published=1)
    process = simulation.process(1, 4)
    simulation.run(600)
    assert process.line.fit == 0
    assert simulation.rate("answered", 0, 600) + simulation.rate("limited", 0, 600) >= 0.97 / 1.024
