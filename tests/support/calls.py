"""A call as it is begun, for tests that say by hand what is seen of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from answers import EXPIRED, PRICE
from kis_retry import Credentials, RetryPolicy
from kis_retry.context import CURRENT, Call, Sighting
from kis_retry.retry.decoration import Decoration, Options
from sources import NumberedTokens

HOST = "kis.example"
KEY = "PSmine"


class KnownTokens(NumberedTokens):
    """A source that says whose tokens it has."""

    credentials = Credentials(KEY, "secret", base_url=f"https://{HOST}")


class Slots:
    """A pace that says yes, and what was asked of it."""

    rate = 18.0

    def __init__(self, *given: bool) -> None:
        self.given = list(given)
        self.asked: list[float | None] = []
        self.reports: list[str] = []

    def acquire(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        return self.given.pop(0) if self.given else True

    async def acquire_async(self, timeout: float | None = None) -> bool:
        return self.acquire(timeout)

    def report(self, outcome: str) -> None:
        self.reports.append(outcome)


def begun(function: Callable[..., Any], *args: Any, around: Call | None = None, **options: Any) -> Any:
    """A call of `function`, decorated with `options`, inside of `around`, before its first attempt."""
    decoration = Decoration(function, Options(**{"policy": RetryPolicy(), **options}))
    before = CURRENT.set(around)
    try:
        call = decoration.begin(args, {})
    finally:
        CURRENT.reset(before)
    assert call is not None
    return call


def refreshing(tokens: Any, *args: Any, function: Callable[..., Any] = lambda *_: None, **options: Any) -> Any:
    """A call of a function that `refresh_on_expired_token` is on."""
    return begun(function, *args, refreshes=True, tokens=tokens, **options)


def repeating(*args: Any, function: Callable[..., Any] = lambda *_: None, **options: Any) -> Any:
    """A call of a function that `retry_on_transient_error` is on."""
    return begun(function, *args, repeats=True, **options)


def seen(
    token: str | None = "t1", *, method: str = "GET", host: str = HOST, key: str | None = KEY, path: str = PRICE
) -> Sighting:
    """A request that is about to leave."""
    return Sighting(method, host, path, key, token)


def refuse(call: Call, sighting: Sighting) -> Sighting:
    """Have KIS refuse a request of `call` for its token."""
    call.observe_sent(sighting)
    sighting.response = EXPIRED
    call.observe_failed(sighting, not_acted_upon=True, for_its_token=True)
    return sighting
