"""One renewal, as a request or a function sees it: ask the source for another token, and tell what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .engine import Flow, Wait
from .token import fingerprint
from .tokens.source import LiveSource, Replacement

__all__ = ["Tell", "renewed"]

Tell = Callable[..., None]
"""Emits an event by its name and fields; `quiet` for one that is nobody's news."""


def renewed(
    source: LiveSource, rejected: str | None, code: str | None, seconds: float | None, tell: Tell
) -> Flow[Replacement | None]:
    """
    Get a token in place of the one that KIS refused; None where none can be had.

    Args:
        source: of the account.
        rejected: the bare token that was refused; None where there was none.
        code: KIS's code of the refusal.
        seconds: how long to wait at most; None: for as long as the source takes.
        tell: of the one refresh all but the first tell quietly.
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
    tell(
        "token_refreshed" if replacement.origin == "issued" else "token_adopted",
        quiet=replacement.origin == "memory",
        msg_cd=code,
        token=replacement.token.fingerprint,
        previous_token=refused,
        expires_at=replacement.token.expires_at,
        source=replacement.origin,
        elapsed=took,
    )
    return replacement
