"""What follows from the calls of one window: the next pace, and what is remembered of why."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from kis_retry.retry.adaptive import Adaptation, Window

START, RATE = 2.5, 18.0  # of a machine that has just begun
NEAR = Adaptation(lowered=3.0, limit=3.0)  # a limit is known near this pace
FAR = Adaptation(lowered=8.0)  # none is


def verdict(
    before: Adaptation, answered: int, refused: int, *, after: float = 10.0, rate: float = RATE
) -> Adaptation | None:
    """What is said when so many calls of so many seconds went so; None: go on counting."""
    return before.judge(Window(START, START, answered, refused), START + after, rate)


def judged(before: Adaptation, answered: int, refused: int, *, after: float = 10.0, rate: float = RATE) -> Adaptation:
    """The pace from then on; itself where it goes on as it was."""
    return verdict(before, answered, refused, after=after, rate=rate) or before


def about(adaptation: Adaptation) -> Any:
    """All that is known, but for the last bits of its numbers."""
    return pytest.approx(asdict(adaptation))


# -- at the pace that was set


@pytest.mark.parametrize(("after", "answered", "refused"), [(2.99, 0, 40), (10.0, 0, 19)])
def test_a_first_verdict_takes_twenty_calls_of_three_seconds(after: float, answered: int, refused: int) -> None:
    assert verdict(Adaptation(), answered, refused, after=after) is None


@pytest.mark.parametrize("refused", [0, 9, 10])
def test_half_of_the_calls_refused_is_not_most_and_counting_begins_anew(refused: int) -> None:
    before = Adaptation(epoch=4)
    assert verdict(before, 20 - refused, refused, after=3.0) is before


def test_most_calls_refused_lower_the_pace_to_eight_tenths_of_what_got_through() -> None:
    found = judged(Adaptation(epoch=4), 9, 11, after=3.0)
    assert asdict(found) == about(Adaptation(lowered=2.4, limit=3.0, tried=18.0, tried_share=0.55, epoch=5))


def test_where_no_pace_is_set_none_comes_of_refusals() -> None:
    assert verdict(Adaptation(), 0, 100, rate=0.0) is None


@pytest.mark.parametrize(("rate", "lowered"), [(18.0, 1.0), (1.5, 1.0), (1.0, 0.0), (0.5, 0.0)])
def test_the_pace_falls_to_one_call_a_second_and_never_where_less_was_set(rate: float, lowered: float) -> None:
    assert judged(Adaptation(), 0, 25, rate=rate).lowered == lowered


def test_fewer_than_four_answers_say_nothing_about_a_limit() -> None:
    for answered, limit in ((3, 0.0), (4, 4 / 10)):
        assert judged(Adaptation(), answered, 25).limit == pytest.approx(limit)


# -- how long a lowered pace is tried


@pytest.mark.parametrize(
    ("before", "answered", "after"),
    [(FAR, 7, 3.0), (FAR, 8, 2.99), (FAR, 3, 60.0), (NEAR, 24, 9.99), (NEAR, 25, 2.99), (NEAR, 3, 60.0)],
)
def test_a_lowered_pace_is_tried_for_three_seconds_and_eight_calls_or_25_near_a_limit(
    before: Adaptation, answered: int, after: float
) -> None:
    assert verdict(before, answered, 0, after=after) is None


@pytest.mark.parametrize(
    ("before", "answered", "after"), [(FAR, 8, 3.0), (FAR, 4, 10.0), (FAR, 4, 60.0), (NEAR, 25, 3.0), (NEAR, 4, 10.0)]
)
def test_after_ten_seconds_four_calls_are_enough(before: Adaptation, answered: int, after: float) -> None:
    assert judged(before, answered, 0, after=after).lowered > before.lowered


def test_a_lowered_pace_that_is_refused_too_often_need_not_be_tried_for_longer_than_a_second() -> None:
    assert verdict(FAR, 3, 5, after=0.99) is None
    assert judged(FAR, 3, 5, after=1.0).lowered < 8.0
    assert verdict(FAR, 0, 7, after=1.0) is None, "seven calls are too few"


# -- too many refused


def test_far_from_a_known_limit_most_of_eight_calls_refused_lower_the_pace_again() -> None:
    assert judged(FAR, 4, 4, after=1.0) == FAR, "half of them are not most"
    assert judged(FAR, 3, 5, after=1.0).lowered == pytest.approx(0.8 * 8.0 * 3 / 8), "to less than got through"


@pytest.mark.parametrize(
    ("calls", "usual", "tolerated"),
    [
        (8, 0.0, 1),  # as of 25: half of one more than usual is
        (25, 0.0, 1),
        (100, 0.0, 3),  # two hundredths, and one
        (8, 0.2, 8),  # as of 25: 5 and a half, 4 by chance, and one
        (25, 0.2, 10),
        (100, 0.2, 31),  # 20 and 2, 8 by chance, and one
        (400, 0.2, 105),  # 80 and 8, 16 by chance, and one
    ],
)
def test_near_a_limit_no_more_may_be_refused_than_is_usual_and_chance_allows(
    calls: int, usual: float, tolerated: int
) -> None:
    before = replace(NEAR, usual=usual)
    assert judged(before, calls - tolerated, tolerated, after=2.0) == before
    if tolerated < calls:
        assert judged(before, calls - tolerated - 1, tolerated + 1, after=2.0).lowered < 3.0


def test_where_half_is_refused_near_a_limit_the_pace_goes_a_fifth_down() -> None:
    before = Adaptation(8.0, 7.0, usual=0.1, hold_until=START + 300, hold=40.0, epoch=2)
    expected = replace(before, lowered=6.4, tried=8.0, tried_share=0.5, epoch=3)
    assert asdict(judged(before, 15, 15)) == about(expected)


def test_where_most_are_refused_near_a_limit_that_was_found_wrong() -> None:
    before = Adaptation(8.0, 7.0, usual=0.1, hold_until=START + 300, hold=40.0, epoch=2)
    expected = replace(before, lowered=3.072, limit=3.84, tried=8.0, tried_share=0.52, epoch=3)
    assert asdict(judged(before, 12, 13)) == about(expected)


@pytest.mark.parametrize(("refused", "lowered"), [(28, 4.0), (30, 4.0), (32, 10.0)])
def test_a_step_down_that_did_not_help_is_taken_back(refused: int, lowered: float) -> None:
    """At 10 a second half was refused; up to six tenths of that at 5 is a limit, more is KIS's own unevenness."""
    tried = Adaptation(5.0, 5.0, tried=10.0, tried_share=0.5, hold_until=START + 300, hold=40.0)
    found = judged(tried, 100 - refused, refused)
    kept = Adaptation(10.0, 0.0, 0.41, 0.0, 0.5, START + 300, 40.0, epoch=1)
    stepped = Adaptation(4.0, 5.0, 0.0, 5.0, refused / 100, START + 300, 40.0, epoch=1)
    assert asdict(found) == about(kept if lowered == 10.0 else stepped)


def test_a_share_that_is_usual_at_any_pace_is_half_at_most() -> None:
    tried = Adaptation(5.0, 5.0, tried=10.0, tried_share=0.8)
    assert judged(tried, 51, 49).usual == pytest.approx((0.49 + 0.5) / 2)


def test_a_step_down_from_the_pace_that_was_set_is_taken_back_to_that() -> None:
    tried = Adaptation(5.0, 5.0, usual=0.1, tried=RATE, tried_share=0.5, hold_until=START + 300, hold=40.0, epoch=6)
    assert judged(tried, 60, 40) == Adaptation(epoch=7)


# -- few refused


def test_near_a_limit_the_pace_feels_its_way_up_and_far_from_one_it_leaps() -> None:
    known = Adaptation(limit=10.0, usual=0.1, tried_share=0.3, hold_until=START, hold=40.0, epoch=2)
    near, far = replace(known, lowered=13.0), replace(known, lowered=13.1, limit=10.0)
    stepped, leapt = judged(near, 25, 0, rate=100.0), judged(far, 25, 0, rate=100.0)
    assert asdict(stepped) == about(replace(near, lowered=14.95, epoch=3))
    assert asdict(leapt) == about(replace(far, lowered=19.65, hold=10.0, epoch=3)), "the next pause is a first one"


@pytest.mark.parametrize("before", [12.0, 13.0])
def test_at_the_pace_that_was_set_nothing_that_was_found_out_is_kept(before: float) -> None:
    found = Adaptation(before, usual=0.1, tried_share=0.3, hold_until=START, hold=40.0, epoch=2)
    assert judged(found, 25, 0) == Adaptation(epoch=3)


@pytest.mark.parametrize("until", [START + 10.01, START + 10.0])
@pytest.mark.parametrize("before", [NEAR, FAR])
def test_nobody_tries_to_go_faster_before_the_pause_is_over(before: Adaptation, until: float) -> None:
    before = replace(before, hold_until=until)
    assert (verdict(before, 25, 0) is before) is (until > START + 10)


def test_a_pace_on_trial_at_which_fewer_are_refused_is_the_right_one() -> None:
    tried = Adaptation(3.0, 3.0, usual=0.1, tried=3.5, tried_share=0.1, hold=40.0, epoch=2)
    assert judged(tried, 25, 0) == replace(tried, tried=0.0, hold_until=START + 10 + 40, hold=80.0)


def test_where_no_limit_is_known_the_pace_on_trial_is_left_at_once() -> None:
    tried = Adaptation(4.0, usual=0.1, tried=8.0, tried_share=0.9, hold=40.0, epoch=2)
    assert judged(tried, 25, 0) == replace(tried, lowered=6.0, tried=0.0, hold=10.0, epoch=3)


def test_each_time_a_limit_is_confirmed_the_pause_before_the_next_try_doubles_up_to_160_seconds() -> None:
    pauses: list[float] = []
    adaptation = Adaptation(lowered=3.0, limit=3.0)
    for _ in range(6):
        adaptation = judged(Adaptation(3.0, 3.0, tried=3.5, tried_share=0.1, hold=adaptation.hold), 25, 0)
        pauses.append(adaptation.hold_until - START - 10.0)
    assert pauses == [10, 20, 40, 80, 160, 160]


def test_no_two_paces_have_the_same_number() -> None:
    """Calls that were sent at an earlier pace are told apart by it."""
    epochs: list[Any] = []
    adaptation = Adaptation()
    for _ in range(4):
        adaptation = judged(adaptation, 4, 25)
        epochs.append(adaptation.epoch)
    assert epochs == [1, 2, 3, 4]


# -- what is counted


def test_a_window_counts_from_where_it_begins() -> None:
    window = Window(START, START - 1)
    window.count(3, 2, START - 0.01)
    assert window == Window(START, START - 0.01), "calls of the pace before are seen, and not counted"
    window.count(3, 2, START)
    window.count(1, 0, START + 1)
    window.count(0, 1, START + 2)
    assert window == Window(START, START + 2, 4, 3)
    assert window.calls == 7


@pytest.mark.parametrize("nothing", [False, True])
def test_after_more_than_ten_seconds_without_a_call_a_window_begins_anew(nothing: bool) -> None:
    window = Window(START, START, 4, 3)
    if nothing:
        window.count(0, 0, START + 9)
    window.count(1, 1, START + 10.0)
    assert window == Window(START, START + 10, 5, 4)
    window.count(1, 2, START + 20.01)
    assert window == Window(START + 20.01, START + 20.01, 1, 2)
    window.count(0, 1, START + 50)
    assert window == Window(START + 50, START + 50, 0, 1)
