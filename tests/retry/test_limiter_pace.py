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
from kis_retry.retry.outage import LEAST_FAILURES, Outage, Tally
from kis_retry.retry.pace import FORGOTTEN_AFTER, SPARE, Grant, PaceState, interval_of

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


@pytest.mark.parametrize(("limit", "taken"), [(0.0, False), (0.49, False), (0.5, True), (0.51, True), (None, True)])
def test_a_slot_beyond_the_callers_time_is_not_taken(limit: float | None, taken: bool) -> None:
    state = PaceState(0.25, 0.75)  # seconds since the machine began
    grant = state.take(Tally(), 0.25, 1, limit)
    assert (grant.slot, grant.at) == (taken, 0.75), "who is denied it learns when it would have been"
    assert state.next == (pytest.approx(0.75 + 1.024) if taken else 0.75)


@pytest.mark.parametrize(("rate", "interval"), [(0, 0.0), (0.1, 10.24), (1, 1.024), (16, 0.064), (1_000, 0.001_024)])
def test_two_calls_are_as_far_apart_as_the_rate_says_and_24_thousandths_of_a_second_more(
    rate: float, interval: float
) -> None:
    assert interval_of(rate) == Grant(START, slot=True, rate=rate).interval == pytest.approx(interval)


def test_a_call_that_left_late_moves_the_schedule_by_no_more_than_a_slot() -> None:
    for late, moved in ((0.008, 0.0), (0.018, 0.01), (30.0, interval_of(18))):
        state = PaceState()
        state.take(Tally(), START, 18)
        assert state.take(Tally(late=late), START, 18).at == pytest.approx(START + interval_of(18) + moved)


def test_the_lower_of_two_rates_takes_its_own_interval() -> None:
    state = PaceState()
    slow, fast = state.take(Tally(), START, 1), state.take(Tally(), START, 18)
    assert fast.at - slow.at == pytest.approx(interval_of(1))
    assert state.take(Tally(), START, 1).at - fast.at == pytest.approx(interval_of(18))


# -- a pace that adapts


def adapting(adaptation: Adaptation, answered: int, refused: int, *, after: float = 4.0) -> PaceState:
    """As a process reads it, so many seconds after so many calls began to go so."""
    state = PaceState(START, START, Outage(), Window(START, START, answered, refused), adaptation)
    return PaceState.decode(state.encode(), START + after)


@pytest.mark.parametrize(("epoch", "counted"), [(299, 0), (300, 3), (301, 0)])
def test_only_calls_of_the_pace_in_force_are_counted(epoch: int, counted: int) -> None:
    state = adapting(Adaptation(5.0, epoch=300), 0, 0, after=0.5)
    grant = state.take(Tally(answered=2, refused=1, epoch=epoch), START + 0.5, 18)
    assert state.window.calls == counted
    assert grant == Grant(START + 0.5, slot=True, rate=5.0, epoch=300)


def test_a_pace_that_is_lowered_holds_from_the_next_slot_on_and_is_told_once() -> None:
    state, now = adapting(Adaptation(epoch=300), 10, 15), START + 5
    assert state.take(Tally(), now, 18) == Grant(now, slot=True, rate=1.6, changed=18, epoch=301)
    assert state.next == pytest.approx(now + 1.024 / 1.6)
    assert state.window == Window(now + 0.5, now), "half a second is for answers to the calls before"
    assert state.take(Tally(), now + 4, 18) == Grant(now + 4, slot=True, rate=1.6, epoch=301)
    assert state.take(Tally(), now + 6, 0.5).rate == 0.5, "who set less keeps to that"


def test_a_pace_that_is_raised_says_what_it_was() -> None:
    state = adapting(Adaptation(6.0), 20, 0)
    assert state.take(Tally(), START + 4, 18) == Grant(START + 4, slot=True, rate=9.0, changed=6.0, epoch=1)


def test_a_pace_that_is_as_low_as_it_goes_is_no_change_though_another_trial_begins() -> None:
    state, now = adapting(Adaptation(1.0, epoch=300), 0, 20), START + 4
    assert state.take(Tally(), now, 18) == Grant(now, slot=True, rate=1.0, epoch=301)
    assert state.window == Window(now + 0.5, now)


def test_a_pace_that_is_right_goes_on_with_a_new_window() -> None:
    state, now = adapting(Adaptation(epoch=300), 20, 5), START + 4
    assert state.take(Tally(), now, 18) == Grant(now, slot=True, rate=18, epoch=300)
    assert state.window == Window(now, now)


def test_a_window_that_is_too_short_for_a_verdict_goes_on() -> None:
    state = adapting(Adaptation(), 0, 40, after=2.0)
    state.take(Tally(answered=1), START + 2, 18)
    assert state.window == Window(START, START + 2, 1, 40)


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


def away(*, since: float, until: float) -> PaceState:
    """An outage, and when its next probe goes out."""
    return PaceState(START, until, Outage(LEAST_FAILURES, since, since))


@pytest.mark.parametrize(("until", "again"), [(0.3, 0.3), (0.5, 0.5), (0.9, 0.5)])
def test_who_asks_before_a_probe_is_due_takes_none_and_looks_again_in_half_a_second(until: float, again: float) -> None:
    state = away(since=START - 20, until=START + until)
    assert state.take(Tally(), START, 18) == Grant(START + again, slot=False, rate=18, failures=LEAST_FAILURES)
    assert state.next == START + until


@pytest.mark.parametrize("overdue", [0.0, 0.2])
@pytest.mark.parametrize(("since", "rate", "apart"), [(1, 18, 0.5), (20, 18, 1.0), (1, 1, 1.024), (1, 0, 0.5)])
def test_a_probe_that_is_due_goes_out_at_once_and_the_next_as_much_later_as_the_pace_allows(
    since: float, rate: float, apart: float, overdue: float
) -> None:
    state = away(since=START - since, until=START - overdue)
    assert state.take(Tally(), START, rate) == Grant(START, slot=True, rate=rate, failures=LEAST_FAILURES)
    assert state.next == pytest.approx(START + apart)


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


@pytest.mark.parametrize(("until", "first"), [(0.9, 0.064), (0.03, 0.03), (-0.2, 0.0)])
def test_after_an_outage_the_full_pace_is_there_at_once(until: float, first: float) -> None:
    state = away(since=START - 20, until=START + until)
    grant = state.take(Tally(answered=1, through_ago=0.0), START, 16)
    assert grant == Grant(grant.at, slot=True, rate=16)
    assert grant.at == pytest.approx(START + first)
    assert state.take(Tally(), START, 16).at == pytest.approx(START + first + 0.064)


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


def test_a_new_state_knows_nothing() -> None:
    nothing = {
        "version": 1,
        "written": 0,
        "next": 0,
        "outage": {"failures": 0, "failed_at": 0, "since": 0},
        "window": {"since": 0, "seen_at": 0, "answered": 0, "refused": 0},
        "adaptation": {
            "lowered": 0,
            "limit": 0,
            "usual": 0,
            "tried": 0,
            "tried_share": 0,
            "hold_until": 0,
            "hold": 10,
            "epoch": 0,
        },
    }
    assert json.loads(PaceState().encode()) == nothing


@pytest.mark.parametrize(("now", "believed"), [(-0.01, False), (0, True), (600, True), (600.01, False)])
def test_what_is_ten_minutes_old_or_of_a_clock_that_jumped_is_a_new_state(now: float, believed: bool) -> None:
    state = used_state()
    state.next = state.written + 300
    assert state.usable(state.written + now) is believed
    assert PaceState.decode(state.encode(), state.written + now) == (state if believed else PaceState())


@pytest.mark.parametrize("version", [0, 2])
def test_what_another_version_wrote_is_a_new_state(version: int) -> None:
    data = used_state().encode().replace(b'"version": 1', b'"version": %d' % version)
    assert PaceState.decode(data, START + 5) == PaceState()


@pytest.mark.parametrize(
    ("part", "name", "highest", "step"),
    [
        ("", "next", START + 1_200, 1),  # nobody waits for a slot that lies more than twenty minutes ahead
        ("adaptation", "hold_until", START + 1_200, 1),
        ("adaptation", "usual", 1, 0.01),
        ("adaptation", "lowered", 0.1, -0.01),  # the slowest pace
        ("outage", "failed_at", START, 0.01),
        ("outage", "since", START, 0.01),
        ("window", "seen_at", START, 0.01),
        ("window", "since", START + 0.5, 0.01),  # it may begin when the answers to an earlier pace are in
    ],
)
def test_what_time_does_not_bring_about_is_a_new_state(part: str, name: str, highest: float, step: float) -> None:
    state = PaceState(START, START)
    for value, believed in ((highest - step, True), (highest, True), (highest + step, False)):
        entry = json.loads(state.encode())
        (entry[part] if part else entry)[name] = value
        found = PaceState.decode(json.dumps(entry).encode(), START)
        assert (found != PaceState()) is believed, value
        assert getattr(getattr(found, part) if part else found, name) == (value if believed else 0)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "-0.5", "true", "null", '"1"', "[]", "1" * 400])
def test_a_number_that_is_none_makes_a_new_state(number: str) -> None:
    for part, kind in (("", PaceState), ("outage", Outage), ("window", Window), ("adaptation", Adaptation)):
        for spec in dataclasses.fields(kind):
            entry = json.loads(PaceState(START, START).encode())
            (entry[part] if part else entry)[spec.name] = 0.062_5
            data = json.dumps(entry).encode()
            assert PaceState.decode(data.replace(b"0.0625", number.encode()), START) == PaceState(), spec.name


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
