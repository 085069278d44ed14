"""What type checkers see: decorated functions keep their own signatures. Checked by mypy and pyright, run by nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typing_extensions import assert_type

import kis_retry
from kis_retry import (
    AccessToken,
    Credentials,
    FileTokenStore,
    KisClient,
    MemoryTokenStore,
    RateLimiter,
    RedisTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    TokenSource,
    TokenStore,
    is_token_expired_response,
    on_event,
    protect,
    refresh_on_expired_token,
    unprotect,
)

Answer = dict[str, Any]

tokens = TokenManager(Credentials("key", "secret"), store=MemoryTokenStore(), policy=RetryPolicy(max_retries=2))
source: TokenSource = tokens
limiter = RateLimiter(Credentials("key", "secret"), rate=18, store=MemoryTokenStore())
stores: list[TokenStore] = [MemoryTokenStore(), FileTokenStore("folder"), RedisTokenStore("redis://127.0.0.1")]


@refresh_on_expired_token
def bare(broker: KisClient, symbol: str, *, market: str = "J") -> Answer:
    return {}


@refresh_on_expired_token()
def parentheses(symbol: str) -> Answer:
    return {}


@refresh_on_expired_token(tokens=tokens, policy=RetryPolicy(), bind=lambda token: token.bearer, watch_transport=True)
def arguments(symbol: str) -> int:
    return 1


@refresh_on_expired_token(tokens=tokens)
async def coroutine(symbol: str) -> Answer:
    return {}


class Api:
    tokens = tokens

    @refresh_on_expired_token
    def method(self, symbol: str) -> Answer:
        return {}

    @refresh_on_expired_token(watch_transport=True)
    async def async_method(self, symbol: str) -> int:
        return 1

    @staticmethod
    @refresh_on_expired_token(tokens=tokens)
    def static(symbol: str) -> Answer:
        return {}

    @classmethod
    @refresh_on_expired_token(tokens=tokens)
    def of_class(cls, symbol: str) -> Answer:
        return {}


assert_type(bare(KisClient(), "005930", market="J"), Answer)
assert_type(parentheses("005930"), Answer)
assert_type(arguments("005930"), int)
assert_type(Api().method("005930"), Answer)
assert_type(Api.static("005930"), Answer)
assert_type(Api.of_class("005930"), Answer)
assert_type(refresh_on_expired_token(parentheses, tokens=tokens)("005930"), Answer)
price: Answer = KisClient().fetch_price("005930", country_code="KR")
assert_type(KisClient().access_token, str)
assert_type(tokens.token(), AccessToken)
assert_type(tokens.headers("FHKST01010100", custtype="P"), dict[str, str])
assert_type(limiter.rate, float)
assert_type(limiter.acquire(), bool)
assert_type(limiter.acquire(timeout=1.5), bool)
assert_type(RateLimiter.from_env(), RateLimiter)
assert_type(protect(Api(), tokens=tokens), Api)
assert_type(unprotect(Api), type[Api])
assert_type(is_token_expired_response({}), bool)
assert_type(kis_retry.TokenIssueError("", code="EGW00103").code, str | None)


def hook(event: RefreshEvent) -> None:
    assert_type(event.token, str | None)


assert_type(on_event(hook), Callable[[], None])


async def awaited() -> None:
    assert_type(await coroutine("005930"), Answer)
    assert_type(await limiter.acquire_async(), bool)
    assert_type(await Api().async_method("005930"), int)


# Each of these lines is an error to a type checker; were it not, the unused ignore would be one.
bare(KisClient())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
parentheses(5930)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Api().method(symbol=5930)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
refresh_on_expired_token(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
TokenManager("key")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
