"""
The one module that knows tenacity: three `Retrying` objects, each built for one use and never shared.

Never shared, because since tenacity 9.2 the wrapper made by `@tenacity.retry` keeps one statistics dict for all
threads: a retry in a thread pool can raise `KeyError('idle_for')` while another thread clears it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tenacity
from tenacity import (
    RetryCallState,
    Retrying,
    retry_any,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random,
    wait_random_exponential,
)

from .errors import TokenIssueError, TokenIssueLimited

if TYPE_CHECKING:
    from tenacity import AsyncRetrying

    from .cause import Cause

__all__ = [
    "RATE_WAIT",
    "TRANSIENT_WAIT",
    "async_call_retrying",
    "call_retrying",
    "issue_retrying",
    "matched",
    "outcome_of",
    "stop_after_deadline",
    "stop_after_retries",
]

MINUTE = 60.0
"""Seconds in which KIS issues one token for an app key (observed since 2023-10-27)."""

_LEAST_WAIT = 0.01  # seconds; less is the rounding of a sum of waits

_issue_backoff = wait_exponential(multiplier=0.2, max=2) + wait_random(0, 0.2)

TRANSIENT_WAIT = wait_random_exponential(multiplier=0.2, max=5)
"""Seconds before a call is made again to which nobody answered, or which was told to ask again: with full jitter."""

RATE_WAIT = wait_random(0.05, 0.15) + wait_random_exponential(multiplier=0.1, max=2)
"""Seconds before a call is made again that KIS refused for its rate (its advice is: at once), where nobody paces."""

Stop = Callable[[RetryCallState], bool]
Hook = Callable[[RetryCallState], Any]


def call_retrying(causes: Sequence[Cause], **hooks: Any) -> Retrying:
    """What drives one call that failed: each cause's predicates, stop and wait, composed into one `Retrying`."""
    return Retrying(sleep=tenacity.sleep, **_composed(causes), **hooks)


def async_call_retrying(causes: Sequence[Cause], **hooks: Any) -> AsyncRetrying:
    """The same for a coroutine function."""
    return tenacity.AsyncRetrying(**_composed(causes), **hooks)


def stop_after_retries(retries: int) -> Stop:
    """Stop after the first attempt and `retries` more."""
    return stop_after_attempt(1 + retries)


def stop_after_deadline(seconds: float) -> Stop:
    """Stop once `seconds` have passed since the first failure."""
    return stop_after_delay(seconds)


def matched(causes: Sequence[Cause], state: RetryCallState) -> Cause:
    """The cause for which the last attempt failed."""
    value, error = outcome_of(state)
    for cause in causes:
        if cause.matches_error(error) if isinstance(error, Exception) else cause.matches_value(value):
            return cause
    raise LookupError("no cause matches an attempt that is said to have failed")


def outcome_of(state: RetryCallState) -> tuple[Any, BaseException | None]:
    """What the last attempt returned, or raised."""
    assert state.outcome is not None  # noqa: S101  # tenacity sets it before it asks anybody
    error = state.outcome.exception()
    return (None, error) if error is not None else (state.outcome.result(), None)


def _composed(causes: Sequence[Cause]) -> dict[str, Any]:
    budgets = _Budgets(causes)
    conditions = [retry_if_result(cause.matches_value) | _retry_if_error(cause) for cause in causes]
    return {"retry": retry_any(*conditions), "stop": budgets.stop, "wait": budgets.wait}


def _retry_if_error(cause: Cause) -> retry_if_exception:
    return retry_if_exception(lambda error: isinstance(error, Exception) and cause.matches_error(error))


class _Budgets:
    """Each cause's own failures and its own clock, in the place of tenacity's one count for all."""

    def __init__(self, causes: Sequence[Cause]) -> None:
        self._causes = causes
        self._failures: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._last: tuple[int, str] = (0, "")

    def stop(self, state: RetryCallState) -> bool:
        cause = matched(self._causes, state)
        return cause.stop(self._of(cause, state), *outcome_of(state))

    def wait(self, state: RetryCallState) -> float:
        cause = matched(self._causes, state)
        return cause.wait(self._of(cause, state), *outcome_of(state))

    def _of(self, cause: Cause, state: RetryCallState) -> RetryCallState:
        """`state` as this cause may see it; tenacity asks for the wait and for the stop after each attempt."""
        if self._last[0] != state.attempt_number:
            if self._last[1] != cause.name:
                self._began[cause.name] = state.outcome_timestamp or state.start_time
            self._failures[cause.name] = self._failures.get(cause.name, 0) + 1
            self._last = state.attempt_number, cause.name
        own = copy.copy(state)
        own.attempt_number = self._failures[cause.name]
        own.start_time = self._began[cause.name]
        return own


def issue_retrying(
    *, left: Callable[[], float], minute_left: Callable[[], float], sleep: Callable[[float], None], waiting: Hook
) -> Retrying:
    """
    What drives one refresh: an endpoint that is away is asked again with backoff and jitter, the minute is waited out.

    Args:
        left: seconds that the refresh may still take; 0: what was tried last was the last.
        minute_left: seconds until KIS issues the next token, once it has refused one for the minute's sake.
        sleep: called with the seconds to wait; it may return early.
        waiting: told of every wait before it begins.
    """
    return Retrying(
        sleep=sleep,
        retry=retry_if_exception(lambda error: isinstance(error, TokenIssueError) and error.retryable),
        stop=lambda _: left() < _LEAST_WAIT,
        wait=lambda state: min(minute_left() if _limited(state) else _issue_backoff(state), left()),
        before_sleep=waiting,
        reraise=True,
    )


def _limited(state: RetryCallState) -> bool:
    return state.outcome is not None and isinstance(state.outcome.exception(), TokenIssueLimited)
