"""
The one room that knows tenacity: three `Retrying` objects, each built for one use and never shared.

Never shared, because since tenacity 9.2 the wrapper made by `@tenacity.retry` keeps one statistics dict for all
threads: a retry in a thread pool can die of `KeyError('idle_for')` while another thread clears it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tenacity
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    wait_exponential,
    wait_fixed,
    wait_random,
)

from .errors import TokenIssueError, TokenIssueLimited
from .policy import RetryPolicy

if TYPE_CHECKING:
    from tenacity import AsyncRetrying

__all__ = ["async_call_retrying", "call_retrying", "issue_retrying"]

ISSUE_ATTEMPTS = 4
"""Of one refresh, at a token endpoint that does not answer; about three seconds in all."""

MINUTE = 60.0
"""Seconds in which KIS issues one token for an app key (observed since 2023-10-27)."""

_issue_backoff = wait_exponential(multiplier=0.2, exp_base=3, max=5) + wait_random(0, 0.2)

Predicate = Callable[[Any], bool]
Hook = Callable[[RetryCallState], Any]


def call_retrying(
    policy: RetryPolicy, refused: Predicate, refused_error: Predicate, stop: Predicate, **hooks: Any
) -> Retrying:
    """What drives one refused call: refresh in `before_sleep`, wait, repeat, at most `max_retries` times."""
    exhausted = stop_after_attempt(1 + policy.max_retries)
    return Retrying(
        sleep=tenacity.sleep,
        retry=retry_if_result(refused) | retry_if_exception(refused_error),
        stop=lambda state: exhausted(state) or stop(state),
        wait=wait_fixed(policy.wait),
        **hooks,
    )


def async_call_retrying(
    policy: RetryPolicy, refused: Predicate, refused_error: Predicate, stop: Predicate, **hooks: Any
) -> AsyncRetrying:
    """The same for a coroutine function."""
    exhausted = stop_after_attempt(1 + policy.max_retries)
    return tenacity.AsyncRetrying(
        retry=retry_if_result(refused) | retry_if_exception(refused_error),
        stop=lambda state: exhausted(state) or stop(state),
        wait=wait_fixed(policy.wait),
        **hooks,
    )


def issue_retrying(issue_wait: float, sleep: Callable[[float], None], waiting: Hook) -> Retrying:
    """
    What drives one refresh: transient failures are asked again with backoff and jitter, the minute is waited out.

    Args:
        issue_wait: seconds that the once-a-minute rule may cost in all; 0: none.
        sleep: called with the seconds to wait; it may return early.
        waiting: told of every wait before it begins.
    """
    return Retrying(
        sleep=sleep,
        retry=retry_if_exception(lambda error: isinstance(error, TokenIssueError) and error.retryable),
        stop=lambda state: state.idle_for >= issue_wait if _limited(state) else state.attempt_number >= ISSUE_ATTEMPTS,
        wait=lambda state: min(MINUTE, issue_wait - state.idle_for) if _limited(state) else _issue_backoff(state),
        before_sleep=waiting,
        reraise=True,
    )


def _limited(state: RetryCallState) -> bool:
    return state.outcome is not None and isinstance(state.outcome.exception(), TokenIssueLimited)
