"""What is told of a refresh that no refusal began, and of one that waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..context import current_call
from ..errors import TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit
from ..token import AccessToken

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["emit_renewed", "emit_waiting"]


def emit_waiting(state: RetryCallState, left: float) -> None:
    """Each minute that is waited out; of an endpoint that is away, that it is waited for, and at most how long."""
    error = state.outcome.exception() if state.outcome is not None else None
    limited = isinstance(error, TokenIssueLimited)
    if limited or state.attempt_number == 1:
        emit(
            RefreshEvent(
                name="token_issue_waiting",
                callable=_caller(),
                msg_cd=error.code if isinstance(error, TokenIssueError) else None,
                elapsed=state.upcoming_sleep if limited else left,
                error=type(error).__name__,
            )
        )


def emit_renewed(before: AccessToken, outcome: AccessToken | TokenIssueError | None, began: float) -> None:
    """By the caller and not by the refresh: a hook may take its time, and may ask for a token itself."""
    if outcome is None:
        return
    error = outcome if isinstance(outcome, TokenIssueError) else None
    token = outcome if isinstance(outcome, AccessToken) else None
    event = RefreshEvent(
        name="token_refreshed" if token else "token_refresh_failed",
        callable=_caller(),
        msg_cd=error.code if error else None,
        token=token.fingerprint if token else None,
        previous_token=before.fingerprint,
        expires_at=(token or before).expires_at,
        source="issued" if token else None,
        elapsed=time.monotonic() - began,
        error=type(error).__name__ if error else None,
    )
    emit(event)


def _caller() -> str | None:
    call = current_call()
    return call.name if call is not None else None
