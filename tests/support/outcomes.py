"""What calls come to, and what is told: functions that come to what a test says, a call of the client, an event."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

from kis_retry import KisClient, RefreshEvent

__all__ = ["FULL_EVENT", "call", "scripted", "scripted_async"]

FULL_EVENT = RefreshEvent(
    name="token_refreshed",
    callable="Batch.fetch_price",
    request="GET /uapi/domestic-stock/v1/quotations/inquire-price",
    attempt=2,
    msg_cd="EGW00123",
    token="0a1b2c3d",
    previous_token="4e5f6a7b",
    expires_at=datetime(2026, 11, 24, tzinfo=timezone.utc),
    source="issued",
    elapsed=0.00272803199993632,
    wait=60.0,
    error="TokenIssueError",
    rate=18.0,
)
"""An event with a value in every field."""


def scripted(*outcomes: object) -> Any:
    """A function that returns or raises each of them in turn, and the last for ever; `calls` counts."""
    left = list(outcomes)

    def fetch(*args: Any, **kwargs: Any) -> Any:
        fetch.calls += 1  # type: ignore[attr-defined]  # a function's attribute
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, BaseException):
            raise outcome.with_traceback(None)
        return outcome

    fetch.calls = 0  # type: ignore[attr-defined]  # as above
    return fetch


def scripted_async(*outcomes: object) -> Any:
    """`scripted` as a coroutine function, which lets other tasks go on before it comes to anything."""
    outcome = scripted(*outcomes)

    async def fetch(*args: Any, **kwargs: Any) -> Any:
        fetch.calls += 1  # type: ignore[attr-defined]  # as above
        await asyncio.sleep(0)
        return outcome()

    fetch.calls = 0  # type: ignore[attr-defined]  # as above
    return fetch


def call(client: KisClient) -> str:
    """What a call of the client comes to: KIS's code."""
    return str(client.fetch_domestic_price("005930")["msg_cd"])
