"""What follows from the calls of one window: the next pace, and what is remembered of why."""

from __future__ import annotations

from typing import Any

import pytest

from kis_retry.retry.adaptive import Adaptation, Window

START, RATE = 1_000.0, 18.0


def judged(before: Adaptation, answered: int, refused: int, *, after: float = 10.0) -> Adaptation:
    """What becomes of `before` when so many calls of so many seconds went so; itself where it goes on as it was."""
    window = Window(START, START, answered, refused)
    return before.judge(window, START + after, RATE) or before


def test_far_from_a_known_limit_most_of_eight_calls_refused_lower_the_pace_again() -> None:
    lowered = Adaptation(lowered=8.0)
    assert judged(lowered, 4, 4, after=1.0) == lowered, "half of them are not most"
    assert judged(lowered, 3, 5, after=1.0).lowered == pytest.approx(0.8 * 8.0 * 3 / 8), "to less than got through"


def test_near_a_limit_the_pace_feels_its_way_up_and_far_from_one_it_leaps() -> None:
    near, far = Adaptation(lowered=3.9, limit=3.0), Adaptation(lowered=4.0, limit=3.0)
    assert judged(near, 25, 0).lowered == pytest.approx(1.15 * 3.9)
    assert judged(far, 25, 0).lowered == pytest.approx(1.5 * 4.0)


def test_fewer_than_four_answers_say_nothing_about_a_limit() -> None:
    for answered, limit in ((3, 0.0), (4, 4 / 10)):
        assert judged(Adaptation(), answered, 25).limit == pytest.approx(limit)


@pytest.mark.parametrize(("refused", "lowered"), [(7, 4.0), (8, 10.0)])
def test_a_step_down_that_did_not_help_is_taken_back(refused: int, lowered: float) -> None:
    """At 10 a second half was refused; less than six tenths of that at 5 is a limit, more is KIS's own unevenness."""
    tried = Adaptation(lowered=5.0, limit=5.0, tried=10.0, tried_share=0.5)
    found = judged(tried, 25 - refused, refused)
    assert found.lowered == pytest.approx(lowered)
    assert found.usual == (0.0 if refused == 7 else pytest.approx((8 / 25 + 0.5) / 2))


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
