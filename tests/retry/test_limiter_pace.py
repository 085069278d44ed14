"""When the next call may go out: the schedule, what is known of an outage, and how both are written down."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kis_retry.retry.adaptive import Adaptation, Window
from kis_retry.retry.outage import LEAST_FAILURES, LOOK_AGAIN, Outage, Tally
from kis_retry.retry.pace import FORGOTTEN_AFTER, LATE, SPARE, PaceState, interval_of

START = 1_000.0
RATES = st.sampled_from([0.5, 1.0, 3.0, 7.5, 18.0, 100.0])


def slots_of(rate: float, asked_after: list[float]) -> list[float]:
    """The slots of calls that are asked for so many seconds after one another, or when the last slot is due."""
    state, now, found = PaceState(), START, []
    for pause in asked_after:
        now += pause
        found.append(state.take(Tally(), now, rate).at)
    return found


# -- the schedule


@given(rate=RATES, asked_after=st.lists(st.floats(0, 3), min_size=2, max_size=80))
def test_two_slots_are_never_nearer_than_an_interval(rate: float, asked_after: list[float]) -> None:
    slots = slots_of(rate, asked_after)
    assert all(later - earlier >= interval_of(rate) - 1e-9 for earlier, later in itertools.pairwise(slots))


@given(st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, SPARE - 1e-6)), min_size=19, max_size=120), st.data())
def test_no_second_holds_more_calls_than_the_limit_though_they_arrive_unevenly_late(
    calls: list[tuple[float, float]], data: st.DataObject
) -> None:
    rate = data.draw(st.sampled_from([1, 3, 18]))
    slots = slots_of(rate, [pause for pause, _ in calls])
    arrived = sorted(slot + late for slot, (_, late) in zip(slots, calls, strict=True))
    for first, over in zip(arrived, arrived[rate:], strict=False):
        assert over - first >= 1


def test_calls_that_wait_get_at_least_97_hundredths_of_the_rate() -> None:
    slots = slots_of(18, [0.0] * 181)
    assert 180 / (slots[-1] - slots[0]) >= 0.97 * 18


def test_a_pause_is_not_made_up_for_by_a_burst() -> None:
    slots = slots_of(18, [0.0, 60.0, 0.0, 0.0])
    assert [slot - START - 60 for slot in slots[1:]] == pytest.approx([0, interval_of(18), 2 * interval_of(18)])


def test_a_slot_is_free_at_once_where_there_is_no_pace() -> None:
    assert slots_of(0, [0.0] * 5) == [START] * 5


def test_a_slot_beyond_the_callers_time_is_not_taken() -> None:
    state = PaceState()
    state.take(Tally(), START, 1)
    denied = state.take(Tally(), START, 1, limit=1.0)
    assert (denied.slot, denied.at) == (False, START + interval_of(1))
    assert state.take(Tally(), START, 1, limit=1.1).at == START + interval_of(1)


def test_a_call_that_left_late_moves_the_schedule_by_no_more_than_a_slot() -> None:
    for late, moved in ((LATE, 0.0), (LATE + 0.01, 0.01), (30.0, interval_of(18))):
        state = PaceState()
        state.take(Tally(), START, 18)
        assert state.take(Tally(late=late), START, 18).at == pytest.approx(START + interval_of(18) + moved)


def test_the_lower_of_two_rates_takes_its_own_interval() -> None:
    state = PaceState()
    slow, fast = state.take(Tally(), START, 1), state.take(Tally(), START, 18)
    assert fast.at - slow.at == pytest.approx(interval_of(1))
    assert state.take(Tally(), START, 1).at - fast.at == pytest.approx(interval_of(18))


# -- outages


def failing(state: PaceState, times: int, now: float = START) -> float:
    for _ in range(times):
        now = max(state.take(Tally(failures=1), now, 18).at, now)
    return now


def test_failures_in_a_row_make_an_outage_and_one_less_does_not() -> None:
    state = PaceState()
    now = failing(state, LEAST_FAILURES - 1)
    assert state.take(Tally(), now, 18).slot
    assert not state.outage.since
    state.take(Tally(failures=1), now, 18)
    assert state.outage.since
    assert not state.take(Tally(), now, 18).slot


def test_failures_among_calls_that_get_through_make_none() -> None:
    state, now = PaceState(), START
    for _ in range(100):
        now = state.take(Tally(failures=LEAST_FAILURES - 1), now, 18).at
        now = state.take(Tally(answered=1, through_ago=0.0), now, 18).at
    assert not state.outage.since


def test_an_answer_from_before_the_failures_does_not_end_an_outage() -> None:
    state = PaceState()
    now = failing(state, LEAST_FAILURES)
    state.take(Tally(answered=1, through_ago=now - START + 1), now + 0.1, 18)
    assert state.outage.since


def test_a_refusal_ends_an_outage_as_an_answer_does() -> None:
    state = PaceState()
    now = failing(state, LEAST_FAILURES)
    assert state.take(Tally(refused=1, through_ago=0.0), now + 1, 18).slot
    assert not state.outage.since


def test_nobody_takes_a_probe_ahead_of_time() -> None:
    state = PaceState()
    now = failing(state, LEAST_FAILURES) + 1
    assert state.take(Tally(), now, 18).slot
    for _ in range(10):
        denied = state.take(Tally(), now, 18)
        assert not denied.slot
        assert denied.at - now <= LOOK_AGAIN


@pytest.mark.parametrize(("seconds", "most"), [(8, 17), (600, 625)])
def test_probes_are_two_a_second_at_first_and_one_later(seconds: int, most: int) -> None:
    state = PaceState()
    now = began = failing(state, LEAST_FAILURES)
    probes = 0
    while now < began + seconds:
        grant = state.take(Tally(failures=1), now, 18)
        probes += grant.slot
        now = max(grant.at, now + 0.01)
    assert seconds * 0.9 <= probes <= most


def test_after_an_outage_the_full_pace_is_there_at_once() -> None:
    state = PaceState()
    now = failing(state, LEAST_FAILURES) + 20
    state.take(Tally(failures=1), now, 18)
    first = state.take(Tally(answered=1, through_ago=0.0), now + 0.1, 18)
    second = state.take(Tally(), now + 0.1, 18)
    assert first.at - now <= 0.1 + interval_of(18) + 1e-6
    assert second.at - first.at == pytest.approx(interval_of(18))


def test_failures_of_long_ago_do_not_count() -> None:
    outage = Outage()
    outage.observe(Tally(failures=LEAST_FAILURES - 1), START)
    outage.observe(Tally(failures=1), START + 61)
    assert not outage.since


# -- written down


def used_state() -> PaceState:
    state = PaceState()
    failing(state, LEAST_FAILURES)
    return state


def test_what_was_written_is_read() -> None:
    state = used_state()
    state.window = Window(START, state.written, 20, 5)
    state.adaptation = Adaptation(5.0, 4.0, 0.22, 6.0, 0.5, state.written + 10, 20.0, epoch=3)
    assert PaceState.decode(state.encode(), state.written) == state


def test_every_state_is_written_with_the_same_length() -> None:
    now = 1e8 / 3
    large = Adaptation(now, now, now, now, now, now, now, epoch=10**9)
    crowded = PaceState(now, now, Outage(10**6, now, now), Window(now, now, 10**6, 10**6), large)
    assert len(crowded.encode()) == len(PaceState().encode()) == 1_024


@pytest.mark.parametrize("now", [-1.0, FORGOTTEN_AFTER + 1])
def test_a_clock_that_jumps_makes_a_new_state(now: float) -> None:
    state = used_state()
    state.next = state.written + 300
    assert PaceState.decode(state.encode(), state.written + now) == PaceState()


@pytest.mark.parametrize(("ahead", "believed"), [(1_200, True), (1_201, False)])
def test_nobody_waits_for_a_slot_that_lies_more_than_twenty_minutes_ahead(ahead: float, believed: bool) -> None:
    state = used_state()
    state.next = state.written + ahead
    assert (PaceState.decode(state.encode(), state.written) == state) is believed


@given(st.binary(max_size=200) | st.none())
@example(b"[]")
@example(b'{"version":1}')
@example(b"1" * 5_000)
def test_what_nobody_wrote_is_a_new_state(data: bytes | None) -> None:
    assert PaceState.decode(data, START) == PaceState()


NUMBERS = st.sampled_from(["1e400", "-1", "NaN", "null", '"1"', "true", "1e12", "[]", "1e-9"])


@given(
    st.sampled_from(
        [spec.name for kind in (PaceState, Outage, Window, Adaptation) for spec in dataclasses.fields(kind)]
    ),
    NUMBERS,
)
def test_no_entry_stops_the_pace(name: str, number: str) -> None:
    entry = json.loads(used_state().encode())
    for part in (entry, *(value for value in entry.values() if isinstance(value, dict))):
        if name in part:
            part[name] = json.loads(number)
    now = START + 5
    state = PaceState.decode(json.dumps(entry).encode(), now)
    grant: Any = None
    for _ in range(20):
        grant = state.take(Tally(answered=1, through_ago=0.0), now, 18)
        now = max(now, grant.at)
    assert grant.slot
    assert math.isfinite(now)
    assert now <= START + 5 + 2 * FORGOTTEN_AFTER + 210
