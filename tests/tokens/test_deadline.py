"""How long a refresh may still take: by the clock, or by what was slept where the clock stands still."""

from __future__ import annotations

import pytest

from clocks import FakeClock
from kis_retry.tokens.deadline import Deadline


def never() -> bool:
    return False


def deadline_of(clock: FakeClock, seconds: float = 10.0) -> Deadline:
    return Deadline(seconds, clock.monotonic, clock.sleep)


@pytest.fixture
def clock() -> FakeClock:
    """Of a machine that has just been started."""
    return FakeClock(3.0)


@pytest.mark.parametrize(("passed", "left"), [(0, 10), (4, 6), (10, 0), (11, 0)])
def test_what_has_passed_on_the_clock_counts_and_nothing_is_left_after_it(
    passed: float, left: float, clock: FakeClock
) -> None:
    deadline = deadline_of(clock)
    clock.now += passed
    assert deadline.left() == left


def test_on_a_clock_that_stands_still_all_that_was_slept_counts() -> None:
    slept: list[float] = []
    deadline = Deadline(10.0, lambda: 5.0, slept.append)
    for _ in range(2):
        deadline.sleep(4.0, 1.5, never)
    assert slept == [1.5, 1.5, 1.0] * 2
    assert deadline.left() == 2.0


def test_it_sleeps_in_steps_for_as_long_as_it_was_asked_to(clock: FakeClock) -> None:
    deadline_of(clock).sleep(1.25, 0.5, never)
    assert clock.slept == [0.5, 0.5, 0.25]


def test_it_gets_up_as_soon_as_there_is_a_reason_to(clock: FakeClock) -> None:
    reasons = iter([False, True])
    deadline_of(clock).sleep(5.0, 0.5, lambda: next(reasons))
    assert clock.slept == [0.5, 0.5]


def test_looking_takes_its_time_from_the_sleep(clock: FakeClock) -> None:
    def look() -> bool:
        clock.now += 0.75
        return False

    deadline_of(clock).sleep(2.0, 0.5, look)
    assert clock.slept == [0.5, 0.5], "half a second of sleep and three quarters of looking, twice: more than two"
