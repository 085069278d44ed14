"""
THE CARD: when a call is made again, in tenacity's words. The one module that wires tenacity for calls.

`refreshing` is the card of an expired token, `passing` the one of failures that pass by themselves, and `repeat` drives
either for a request and for a function alike, in a thread and in a task. Each `Retrying` is built for one use: since
tenacity 9.2 the wrapper of `@tenacity.retry` shares one statistics dict between threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    wait_fixed,
    wait_random,
    wait_random_exponential,
)

from .answers import Meaning, is_token_expired_error, is_token_expired_response
from .clock import LEAST_WAIT, Monotonic
from .engine import Flow, Wait
from .policy import RetryPolicy
from .token import fingerprint
from .tokens.source import LiveSource, Replacement

__all__ = ["passing", "refreshing", "renewed", "repeat"]

_DROPPED_WAIT = wait_random_exponential(multiplier=0.2, max=5)
"""Seconds before a call is made again that nobody answered, or that was told to ask again: with full jitter."""

_LIMITED_WAIT = wait_random(0.05, 0.15) + wait_random_exponential(multiplier=0.1, max=2)
"""Seconds before a call is made again that KIS refused for its rate (its advice is: at once), where nobody paces."""

O = TypeVar("O")  # noqa: E741  # an outcome, with its `verdict`: read and judged once, and taken by the predicates

BeforeSleep = Callable[[RetryCallState], None]


def refreshing(policy: RetryPolicy, before_sleep: BeforeSleep) -> Retrying:
    """Return what drives a call whose token expired: reissue the token, rebind the header, and call once more."""
    return Retrying(
        retry=retry_if_result(is_token_expired_response) | retry_if_exception(is_token_expired_error),
        stop=stop_after_attempt(1 + policy.max_retries),
        wait=wait_fixed(policy.wait),
        before_sleep=before_sleep,  # reissue the token, rebind the header, tell it
        retry_error_callback=_last_outcome,  # never RetryError
        sleep=lambda _: None,  # the engine does, which knows whether it runs in a thread or a task
    )


def passing(may_repeat: Callable[[Any], bool], deadline: float, paced: bool, before_sleep: BeforeSleep) -> Retrying:
    """
    Return what drives a call that KIS or the network turned away for a moment.

    `may_repeat` is the table of failures, for a read or for an order. No repeat begins after `deadline`, an instant of
    `Monotonic.now`. Where the call is paced, its next slot is the wait after EGW00201.
    """

    def wait(state: RetryCallState) -> float:
        limited = _last_outcome(state).verdict.meaning is Meaning.LIMITED
        if limited and paced:
            return 0.0
        seconds = (_LIMITED_WAIT if limited else _DROPPED_WAIT)(state)
        return float(min(seconds, max(deadline - Monotonic.now(), 0.0)))

    return Retrying(
        retry=retry_if_result(may_repeat),
        stop=lambda _: deadline - Monotonic.now() < LEAST_WAIT,
        wait=wait,
        before_sleep=before_sleep,
        retry_error_callback=_last_outcome,  # never RetryError
        sleep=lambda _: None,  # the engine does, which knows whether it runs in a thread or a task
    )


def repeat(
    retrying: Callable[[BeforeSleep], Retrying],
    first: O,
    again: Callable[[], Flow[O]],
    prepare: Callable[[O, float], Flow[bool]],
) -> Flow[O]:
    """
    Drive a call by one of the two above, from its first outcome on, until its outcome is final.

    `prepare` does what the next attempt needs, given the last outcome and the seconds to wait, and `again` makes it.
    Where it cannot be prepared, the last outcome stands.
    """
    outcome, waits = first, list[float]()
    for attempt in retrying(lambda state: waits.append(state.upcoming_sleep)):
        if waits:
            if not (yield from prepare(outcome, waits.pop())):
                break
            outcome = yield from again()
        attempt.retry_state.set_result(outcome)
    return outcome


def renewed(
    source: LiveSource, rejected: str | None, code: str | None, seconds: float | None, tell: Callable[..., None]
) -> Flow[Replacement | None]:
    """
    Get a token in place of the bare one that KIS refused with `code`, and tell it; None where none can be had.

    Wait for `seconds` at most, or for as long as the source takes. Of the one refresh all but the first tell quietly.
    """
    joined = rejected is not None and source.is_dead(rejected)
    refused = fingerprint(rejected) if rejected is not None else None
    if rejected is not None:
        source.note_refused(rejected)  # before it is told, which takes its time: whoever comes meanwhile has joined
    tell("token_expired", quiet=joined, msg_cd=code, token=refused)
    began = time.monotonic()
    future = source.replace_future(rejected)
    failure: Any = future.exception() if (yield Wait(future, seconds)) else TimeoutError()
    took = time.monotonic() - began
    if failure is not None:
        error, why = type(failure).__name__, getattr(failure, "code", None)
        tell("token_refresh_failed", previous_token=refused, msg_cd=why, error=error, elapsed=took)
        return None
    replacement: Replacement = future.result()
    tell(quiet=replacement.origin == "memory", msg_cd=code, previous_token=refused, elapsed=took, **replacement.told())
    return replacement


def _last_outcome(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None
