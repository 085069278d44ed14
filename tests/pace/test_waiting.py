"""Who waits and when slots are reserved, simulated: distant stores, unequal rates, orders and repeats, outages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest

from kis_retry.pace.schedule import Ask, PaceState, interval_of
from kis_retry.pace.waiting import Reservation, WaitingLine
from simulated_pace import Call, Kis, Process, Simulation, worst_second

FULL = 1 / interval_of(18)


def share(process: Process, since: float, until: float) -> float:
    return sum(since <= now < until for now in process.left) / (until - since)


def total(simulation: Simulation, since: float, until: float) -> float:
    return sum(share(process, since, until) for process in simulation.processes)


# -- a store that is far away


@pytest.mark.parametrize("processes", [1, 4, 12])
@pytest.mark.parametrize("rtt", [0.0005, 0.01, 0.1, 0.3, 1.0])
def test_a_distant_store_costs_next_to_nothing_of_the_rate(rtt: float, processes: int) -> None:
    simulation = Simulation(Kis(18, kind="admitted"), jitter=0)
    for _ in range(processes):
        simulation.process(18, 16, rtt=rtt)
    simulation.run(60)
    assert total(simulation, 10, 60) >= 0.97 * FULL
    assert worst_second([now for now in simulation.left() if now > 5]) <= 19
    assert worst_second(simulation.left()) <= (19 if processes < 12 else 22)
    shares = [share(process, 10, 60) for process in simulation.processes]
    assert min(shares) >= 0.4 * FULL / processes, "nobody starves"


@pytest.mark.parametrize(("rtt", "lost"), [(0.1, 8), (0.3, 17), (1.0, 50)])
def test_a_process_that_is_killed_costs_the_slots_of_a_trip_and_a_half(rtt: float, lost: int) -> None:
    simulation = Simulation(Kis())
    killed, other = simulation.process(18, 16, rtt=rtt), simulation.process(18, 0, rtt=rtt)
    simulation.run(30)
    killed.alive = False
    other.callers(16)
    simulation.run(40)
    began = other.left[0] - 30
    assert began <= (lost + 3) * interval_of(18) + 1.5 * rtt
    assert share(other, 35, 40) >= 0.9 * FULL


def test_a_newcomer_does_not_wait_behind_all_that_twelve_processes_want() -> None:
    simulation = Simulation(Kis())
    for _ in range(12):
        simulation.process(18, 16, rtt=0.3)
    simulation.run(30)
    newcomer = simulation.process(18, 1, rtt=0.3)
    simulation.run(40)
    assert newcomer.left[0] - 30 < 2.5


# -- unequal rates


@pytest.mark.parametrize("rtt", [0.0005, 0.1])
@pytest.mark.parametrize(
    ("rates", "least"), [((18, 18, 3), (7, 7, 2.4)), ((18, 18, 0.5), (8, 8, 0.4)), ((3, 1), (1.9, 0.9))]
)
def test_a_process_that_is_set_to_less_slows_nobody(rates: Sequence[float], least: Sequence[float], rtt: float) -> None:
    simulation = Simulation(Kis())
    found = [share(process, 10, 120) for process in run_at(simulation, rates, rtt)]
    assert all(had >= wanted for had, wanted in zip(found, least, strict=True)), found
    assert sum(found) >= 0.98 * min(FULL, 3 / 1.024 if rates == (3, 1) else FULL)
    assert worst_second([now for now in simulation.left() if now > 3]) <= (19 if 18 in rates else 4)
    for process, rate in zip(simulation.processes, rates, strict=True):
        assert share(process, 10, 120) <= rate / 1.024 + 0.05


def test_one_that_is_set_to_far_too_much_burdens_itself_alone() -> None:
    simulation = Simulation(Kis())
    found = [share(process, 10, 120) for process in run_at(simulation, (18, 18, 1_000), 0.0005)]
    assert min(found[:2]) >= 8
    assert sum(found) <= 28


def test_the_highest_rate_counts_for_ten_seconds() -> None:
    state = PaceState()
    ask = {rate: Ask(rate, 18) for rate in (18, 3)}
    state.reserve(ask[18], 100)
    assert state.reserve(ask[3], 109.9).interval == interval_of(18)
    assert state.reserve(ask[3], 110.1).interval == interval_of(3)
    assert state.reserve(Ask(40, 18), 111).interval == interval_of(40)
    assert state.reserve(ask[3], 112).interval == interval_of(18), "no faster than KIS announces"


def run_at(simulation: Simulation, rates: Sequence[float], rtt: float) -> list[Process]:
    for rate in rates:
        simulation.process(rate, 16, rtt=rtt)
    simulation.run(120)
    return simulation.processes


# -- the queue


def waits(calls: list[Call], *, order: bool) -> list[float]:
    return sorted(call.ended - call.began for call in calls if call.order == order and call.began > 20)


@pytest.mark.parametrize(("threads", "longest"), [(64, 15), (128, 30)])
def test_repeats_keep_their_place_and_orders_go_first(threads: int, longest: float) -> None:
    simulation = Simulation(Kis(18, 0.6))
    process = simulation.process(18, threads)
    for number in range(150):
        simulation.at(number + 0.5, partial(process.begin, order=True, again=False))
    simulation.run(150)
    reads, orders = waits(process.calls, order=False), waits(process.calls, order=True)
    assert reads[int(0.99 * len(reads))] < longest
    assert reads[-1] < 60, "none is lost"
    assert orders[int(0.99 * len(orders))] < 1.2
    assert simulation.rate("answered", 20, 150) >= 0.96 * 0.4 * FULL


def serve(line: WaitingLine, state: PaceState, now: float) -> None:
    """Do what is due with a store that answers at once."""
    line.hand_out(now)
    while (ask := line.ask(now)) is not None:
        line.learn(state.reserve(ask, now), now)
        line.hand_out(now)


@pytest.mark.parametrize(("slots", "same"), [(0, True), (11, True), (12, False)])
def test_a_place_is_kept_for_twelve_slots(slots: int, same: bool) -> None:
    last = first = Reservation(math.inf)
    for _ in range(slots):
        line = WaitingLine(18, 18)
        line.add(last)
        serve(line, PaceState(), 100.0)
        last = Reservation(math.inf, earlier=last)
    assert (Reservation(math.inf, earlier=last).number == first.number) == same


def test_an_old_slot_that_nobody_wanted_is_not_used_beside_the_next() -> None:
    line, state = WaitingLine(18, 18), PaceState()
    first, second, *late = (Reservation(math.inf) for _ in range(4))
    line.add(first)
    line.add(second)
    serve(line, state, 100.0)
    second.cancel()
    for one in late:
        line.add(one)
    for now in (130.0, 130.02):
        serve(line, state, now)
    assert [one.granted for one in late] == [True, False]


# -- outages


@pytest.mark.parametrize(
    ("processes", "threads", "rtt", "seconds", "most"),
    [(1, 16, 0.001, 8, 40), (4, 4, 0.001, 8, 40), (4, 8, 0.001, 8, 40), (4, 8, 0.001, 200, 430), (4, 8, 0.3, 30, 110)],
)
def test_an_outage_costs_few_requests_and_all_go_on_within_two_seconds(
    processes: int, threads: int, rtt: float, seconds: float, most: float
) -> None:
    simulation, ends = Simulation(Kis(18, away=(20, 20 + seconds))), 20 + seconds
    for _ in range(processes):
        simulation.process(18, threads, rtt=rtt)
    simulation.run(ends + 10)
    assert seconds * simulation.rate("failed", 20, ends) <= most
    assert simulation.rate("answered", ends + 2, ends + 10) >= 0.9 * FULL
    assert simulation.rate("limited", ends, ends + 10) == 0


def outage(state: PaceState, now: float, *, failures: int = 5) -> None:
    for number in range(failures):
        state.reserve(Ask(18, 18, failures=1, now=9, failed_at=9), now + number / 10)


def test_five_failures_in_a_row_are_an_outage_and_four_are_none() -> None:
    state = PaceState()
    outage(state, 100, failures=4)
    assert not state.reserve(Ask(18, 18), 101).away
    assert not state.reserve(Ask(18, 18, now=1, through_at=1), 101).away
    outage(state, 102, failures=4)
    assert not state.reserve(Ask(18, 18), 103).away
    assert state.reserve(Ask(18, 18, failures=1, now=9, failed_at=9), 103).away


def test_between_two_probes_nobody_has_a_slot_and_an_answer_ends_it_for_all() -> None:
    state = PaceState()
    outage(state, 100)
    probe = state.reserve(Ask(18, 18, count=5), 103)
    assert (probe.count, probe.at) == (1, 103)
    between = state.reserve(Ask(18, 18), 103.2)
    assert between.count == 0
    assert between.at == pytest.approx(103.5)
    old_news = state.reserve(Ask(18, 18, now=100, through_at=50), 103.3)
    assert old_news.away, "that was before it failed"
    ended = state.reserve(Ask(18, 18, now=100, through_at=99.9), 103.4)
    assert (ended.away, ended.count) == (False, 1)
    assert ended.at == pytest.approx(103.5)


# -- what is kept


def test_a_state_is_read_as_it_was_written_until_a_reboot_or_for_ten_minutes() -> None:
    state = PaceState()
    outage(state, 100)
    for now in (101, 101.5):
        state.reserve(Ask(18, 18, passed=3, refused=2), now)
    assert PaceState.from_json(state.to_json(), 102) == state
    assert PaceState.from_json(state.to_json(), 50) == PaceState.from_json(state.to_json(), 900) == PaceState()


@pytest.mark.parametrize("value", ["1e300", "NaN", "-1", '"5"', "[]", "null", "Infinity"])
def test_a_state_with_an_impossible_value_is_a_new_one(value: str) -> None:
    state = PaceState()
    state.reserve(Ask(18, 18), 100)
    damaged = state.to_json().replace(f'"next": {state.next}', f'"next": {value}')
    assert PaceState.from_json(damaged, 100) == PaceState()
