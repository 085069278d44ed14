"""A call that goes well is nearly free: what only a failure needs is made when one is met."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

from answers import GOOD
from kis_retry import (
    Credentials,
    MemoryTokenStore,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.stores.base import key_of
from kis_retry.token import AccessToken
from sources import FAR

Decorator = Callable[[Any], Any]


def fetch(symbol: str, headers: dict[str, str]) -> dict[str, str]:
    return GOOD


async def fetch_async(symbol: str, headers: dict[str, str]) -> dict[str, str]:
    return GOOD


class Caller:
    """Keeps no token, and asks its source at every call."""

    def __init__(self, tokens: TokenManager) -> None:
        self.tokens = tokens

    def fetch(self, symbol: str) -> dict[str, str]:
        self.tokens.token()
        return GOOD


@pytest.fixture
def tokens() -> TokenManager:
    credentials, store = Credentials("key", "secret"), MemoryTokenStore()
    store.save(key_of(credentials), AccessToken("held", FAR))
    manager = TokenManager(credentials, store=store, policy=RetryPolicy())
    manager.token()
    return manager


def frames(function: Any, *args: Any) -> int:
    """How many functions of Python one call enters, which no load of the machine changes."""
    entered = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal entered
        entered += event == "call"

    async def watched() -> Any:
        sys.setprofile(note)
        try:
            return await function(*args)
        finally:
            sys.setprofile(None)

    fewest = sys.maxsize
    for _ in range(5):  # the first may learn what the next one knows, and any may meet a collection of garbage
        entered = 0
        if inspect.iscoroutinefunction(function):
            assert asyncio.run(watched()) == GOOD
        else:
            sys.setprofile(note)
            try:
                assert function(*args) == GOOD
            finally:
                sys.setprofile(None)
        fewest = min(fewest, entered)
    return fewest


def by_tenacity(function: Any) -> Any:
    refused = tenacity.retry_if_result(lambda answer: answer["msg_cd"] == "EGW00123")
    return tenacity.retry(retry=refused, stop=tenacity.stop_after_attempt(2))(function)


def of_tenacity(function: Any, decorator: Decorator, *args: Any) -> float:
    bare = frames(function, *args)
    return (frames(decorator(function), *args) - bare) / (frames(by_tenacity(function), *args) - bare)


@pytest.mark.parametrize("function", [fetch, fetch_async])
def test_a_function_costs_a_quarter_of_what_tenacity_does(tokens: TokenManager, function: Any) -> None:
    refreshing = refresh_on_expired_token(tokens=tokens)
    assert of_tenacity(function, refreshing, "005930", tokens.headers("FHKST01010100")) <= 0.25


def test_a_method_costs_a_quarter_of_what_tenacity_does(tokens: TokenManager) -> None:
    assert of_tenacity(Caller.fetch, refresh_on_expired_token, Caller(tokens), "005930") <= 0.25


def test_both_decorators_cost_a_quarter_of_what_tenacity_does(tokens: TokenManager) -> None:
    refreshing = refresh_on_expired_token(tokens=tokens)

    def both(function: Any) -> Any:
        return refreshing(retry_on_transient_error(function))

    assert of_tenacity(fetch, both, "005930", tokens.headers("FHKST01010100")) <= 0.25


def test_a_library_s_broker_is_asked_for_its_token_and_not_looked_into() -> None:
    class Broker:
        access_token = "Bearer held"

        def issue_access_token(self) -> None:
            raise AssertionError("its token is good")

        def fetch(self, symbol: str) -> dict[str, str]:
            return GOOD

    assert of_tenacity(Broker.fetch, refresh_on_expired_token, Broker(), "005930") <= 0.3
