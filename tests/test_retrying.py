"""What drives a call and a refresh: each cause with a budget and a clock of its own, and how long is waited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tenacity import RetryCallState, Retrying

from clocks import FakeClock
from kis_retry.errors import TokenIssueError, TokenIssueLimited
from kis_retry.retrying import (
    MINUTE,
    RATE_WAIT,
    TRANSIENT_WAIT,
    async_call_retrying,
    call_retrying,
    issue_retrying,
    matched,
    outcome_of,
    stop_after_deadline,
    stop_after_retries,
)

# Calls.


class Reason:
    """A cause that is met in the values and errors of its name; notes what it is asked, and waits for nothing."""

    def __init__(self, name: str, failures: int = 99) -> None:
        self.name = name
        self.failures = failures
        self.asked: list[tuple[int, float]] = []
        self.outcomes: list[tuple[object, BaseException | None]] = []

    def matches_value(self, value: object) -> bool:
        return value == self.name

    def matches_error(self, error: Exception) -> bool:
        return str(error) == self.name

    def stop(self, state: RetryCallState, value: object, error: BaseException | None) -> bool:
        self.asked.append((state.attempt_number, state.start_time))
        self.outcomes.append((value, error))
        return state.attempt_number >= self.failures

    def wait(self, state: RetryCallState, value: object, error: BaseException | None) -> float:
        assert state.start_time <= (state.outcome_timestamp or 0.0)
        self.outcomes.append((value, error))
        return 0.5

    def emit_failed(self, msg_cd: str | None) -> None: ...

    def gave_up(self) -> None: ...

    def prepare(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> bool:
        return True

    async def prepare_async(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> bool:
        return True


def outcomes_of(clock: FakeClock, *outcomes: object) -> Callable[[], object]:
    """A function that comes to each of them in turn, a second each."""
    left = list(outcomes)

    def come() -> object:
        clock.pass_by(1)
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return come


def by_threads(clock: FakeClock, causes: list[Reason], *outcomes: object) -> object:
    return call_retrying(causes)(outcomes_of(clock, *outcomes))


def by_tasks(clock: FakeClock, causes: list[Reason], *outcomes: object) -> object:
    come = outcomes_of(clock, *outcomes)

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    async def come_async() -> object:
        return come()

    retrying = async_call_retrying(causes, sleep=sleep)
    return asyncio.run(retrying(come_async))


@pytest.mark.parametrize("drive", [by_threads, by_tasks])
def test_each_cause_counts_its_own_failures_and_its_clock_begins_with_each_row_of_them(
    clock: FakeClock, drive: Any
) -> None:
    clock.now = 0.0
    late, busy = Reason("late"), Reason("busy")
    assert drive(clock, [late, busy], "late", "late", ValueError("busy"), "late", "good") == "good"
    assert late.asked == [(1, 1.0), (2, 1.0), (3, 5.5)]
    assert busy.asked == [(1, 4.0)]
    assert clock.slept == [0.5] * 4
    assert late.outcomes == [("late", None)] * 6
    assert [(value, str(error)) for value, error in busy.outcomes] == [(None, "busy")] * 2


def test_a_cause_whose_budget_is_spent_ends_it_whatever_the_others_have(clock: FakeClock) -> None:
    late, busy = Reason("late", failures=2), Reason("busy")
    ended: list[RetryCallState] = []
    retrying = call_retrying([late, busy], retry_error_callback=ended.append)
    retrying(outcomes_of(clock, "late", "busy", "busy", "late", "good"))
    assert [(state.attempt_number, outcome_of(state)) for state in ended] == [(4, ("late", None))]
    assert [number for number, _ in busy.asked] == [1, 2]


def test_what_no_cause_knows_is_the_outcome(clock: FakeClock) -> None:
    assert by_threads(clock, [Reason("late")], "busy") == "busy"
    for leaving in (ValueError("busy"), KeyboardInterrupt("late")):
        with pytest.raises(type(leaving)):
            call_retrying([Reason("late")])(_raising(leaving))
    assert clock.slept == []


def _raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def state_of(outcome: object = None, *, attempt: int = 1, began: float = 0.0, took: float = 0.0) -> RetryCallState:
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    if isinstance(outcome, BaseException):
        state.set_exception((type(outcome), outcome, outcome.__traceback__))
    else:
        state.set_result(outcome)
    state.start_time, state.outcome_timestamp = began, began + took
    return state


def test_the_cause_is_the_first_that_knows_the_outcome() -> None:
    causes = [Reason("busy"), Reason("late"), Reason("late")]
    assert matched(causes, state_of("late")) is matched(causes, state_of(ValueError("late"))) is causes[1]
    with pytest.raises(LookupError, match="no cause"):
        matched(causes, state_of("good"))


@pytest.mark.parametrize(("retries", "attempt", "stops"), [(0, 1, True), (1, 1, False), (1, 2, True), (3, 3, False)])
def test_retries_are_counted_beside_the_first_attempt(retries: int, attempt: int, stops: bool) -> None:
    assert stop_after_retries(retries)(state_of(attempt=attempt)) is stops


@pytest.mark.parametrize(("took", "stops"), [(4.9, False), (5.0, True), (5.1, True)])
def test_a_deadline_ends_when_its_seconds_are_over(took: float, stops: bool) -> None:
    assert stop_after_deadline(5.0)(state_of(began=9.0, took=took)) is stops


# Waits.


@pytest.fixture(params=["least", "most"])
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Jitter that always comes out as little, or as much, as it may."""
    most = request.param == "most"
    monkeypatch.setattr("random.uniform", lambda low, high: high if most else low)
    monkeypatch.setattr("random.random", lambda: 1.0 if most else 0.0)
    return str(request.param)


def waits(wait: Callable[[RetryCallState], float]) -> list[float]:
    return [wait(state_of(attempt=attempt)) for attempt in range(1, 8)]


def test_backing_off_doubles_from_a_fifth_of_a_second_to_five_with_full_jitter(drawn: str) -> None:
    expected = [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] if drawn == "most" else [0.0] * 7
    assert waits(TRANSIENT_WAIT) == pytest.approx(expected)


def test_a_refusal_for_the_rate_is_waited_out_shortly_at_first(drawn: str) -> None:
    expected = [0.25, 0.35, 0.55, 0.95, 1.75, 2.15, 2.15] if drawn == "most" else [0.05] * 7
    assert waits(RATE_WAIT) == pytest.approx(expected)


# Refreshes.


class Refreshing:
    """A refresh that may take `left` seconds, and fails as it is told."""

    def __init__(self, left: float, *outcomes: object, minute: float = 0.0) -> None:
        self.left = left
        self.minute = minute
        self.slept: list[float] = []
        self.told: list[float] = []
        self._outcomes = list(outcomes)

    def run(self) -> object:
        retrying = issue_retrying(
            left=lambda: self.left, minute_left=lambda: self.minute, sleep=self._sleep, waiting=self._waiting
        )
        return retrying(self._ask)

    def _ask(self) -> object:
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.left -= seconds

    def _waiting(self, state: RetryCallState) -> None:
        self.told.append(state.upcoming_sleep)


def away() -> TokenIssueError:
    return TokenIssueError("nobody answers", retryable=True)


def limited() -> TokenIssueLimited:
    return TokenIssueLimited("once a minute", code="EGW00133", retryable=True)


def test_an_endpoint_that_is_away_is_asked_again_in_doubling_waits_up_to_two_seconds(drawn: str) -> None:
    refreshing = Refreshing(60.0, *[away()] * 6, "token")
    assert refreshing.run() == "token"
    jitter = 0.2 if drawn == "most" else 0.0
    assert refreshing.slept == refreshing.told == pytest.approx([w + jitter for w in (0.2, 0.4, 0.8, 1.6, 2.0, 2.0)])


def test_the_minute_is_waited_out_as_far_as_there_is_time() -> None:
    refreshing = Refreshing(70.0, limited(), "token", minute=MINUTE)
    assert (refreshing.run(), refreshing.slept) == ("token", [60.0])
    refreshing = Refreshing(9.0, limited(), minute=MINUTE)
    with pytest.raises(TokenIssueLimited):
        refreshing.run()
    assert refreshing.slept == [9.0]


@pytest.mark.parametrize(("left", "tries"), [(0.0, 0), (0.009, 0), (0.01, 1)])
def test_with_less_than_a_hundredth_of_a_second_left_what_was_tried_was_the_last(left: float, tries: int) -> None:
    refreshing = Refreshing(left, error := away())
    with pytest.raises(TokenIssueError) as raised:
        refreshing.run()
    assert raised.value is error
    assert len(refreshing.slept) == tries


@pytest.mark.parametrize("error", [TokenIssueError("wrong secret", retryable=False), ValueError("no JSON")])
def test_what_asking_again_does_not_help_is_raised_at_once(error: Exception) -> None:
    refreshing = Refreshing(60.0, error)
    with pytest.raises(type(error)) as raised:
        refreshing.run()
    assert raised.value is error
    assert (refreshing.slept, refreshing.told) == ([], [])
