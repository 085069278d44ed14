"""A call over HTTP, and a batch of them, on a gateway that is a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any

import httpx
import requests
from gateway import Gateway, running
from korea_investment_stock import KoreaInvestment
from korea_investment_stock.token import TokenStorage
from measuring import Line, seconds_each, side_by_side

from kis_retry import KisClient, MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager, protect

__all__ = ["library", "lines"]

MILLISECOND = 1e-3
PATH = "/uapi/domestic-stock/v1/quotations/inquire-price"
SYMBOLS = 2_000
TIMEOUT = (3.05, 10.0)


def lines(*, quick: bool) -> Iterator[Line]:
    with running() as gateway:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
        yield from _calls(gateway, tokens, rounds=6 if quick else 30)
        yield from _batches(gateway, tokens, rounds=4 if quick else 20)


def _calls(gateway: Gateway, tokens: TokenManager, rounds: int) -> Iterator[Line]:
    with (
        KisClient(tokens=tokens, limiter=_no_pace(gateway)) as client,
        requests.Session() as session,
        httpx.Client() as httpx_client,
    ):
        url, headers = gateway.url + PATH, tokens.headers("FHKST01010100")
        query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}
        calls: dict[str, Callable[[], Any]] = {
            "KisClient": lambda: client.fetch_domestic_price("005930"),
            "requests.Session": lambda: session.get(url, headers=headers, params=query, timeout=TIMEOUT).json(),
            "httpx.Client": lambda: httpx_client.get(url, headers=headers, params=query, timeout=10).json(),
        }
        assert all(call()["rt_cd"] == "0" for call in calls.values())
        measured = side_by_side({name: _timed(call, 100) for name, call in calls.items()}, rounds)
    for name in calls:
        yield Line(f"a call of {name}", measured.median(name) / MILLISECOND, "ms")
    yield Line("KisClient: of requests.Session", measured.ratio("KisClient", "requests.Session"), "×", at_most=0.85)
    yield Line("httpx.Client: of requests.Session", measured.ratio("httpx.Client", "requests.Session"), "×")


def _batches(gateway: Gateway, tokens: TokenManager, rounds: int) -> Iterator[Line]:
    each = SYMBOLS // rounds
    plain, protected = library(gateway, tokens), protect(library(gateway, tokens), tokens=tokens)
    with KisClient(tokens=tokens, limiter=_no_pace(gateway)) as client:
        fetchers = {
            "KisClient": client.fetch_domestic_price,
            "korea-investment-stock": plain.fetch_domestic_price,
            "korea-investment-stock, protected": protected.fetch_domestic_price,
        }
        batches = {name: _timed(_next_symbol(fetch), each) for name, fetch in fetchers.items()}
        measured = side_by_side(batches, rounds)
    for name in fetchers:
        yield Line(f"{SYMBOLS:,} symbols through {name}", measured.median(name) * SYMBOLS, "s")
    theirs = "korea-investment-stock"
    yield Line("protected: of plain", measured.ratio(f"{theirs}, protected", theirs), "×")
    yield Line("KisClient: of korea-investment-stock", measured.ratio("KisClient", theirs), "×")


def _timed(call: Callable[[], object], times: int) -> Callable[[], float]:
    return lambda: seconds_each(call, times)


def _next_symbol(fetch: Callable[[str], Any]) -> Callable[[], object]:
    symbols = cycle(f"{number:06d}" for number in range(SYMBOLS))
    return lambda: fetch(next(symbols))


def _no_pace(gateway: Gateway) -> RateLimiter:
    """What a pace costs is measured by `pacing`."""
    return RateLimiter(gateway.credentials, rate=0)


class _Given(TokenStorage):  # type: ignore[misc]  # the library has no types
    """A storage that holds the manager's token, so that the library's constructor asks no host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def load_token(self, api_key: str, api_secret: str) -> dict[str, Any]:
        tomorrow = datetime.now() + timedelta(days=1)  # naive, as the library has it
        return {
            "access_token": self._token,
            "access_token_token_expired": f"{tomorrow:%Y-%m-%d %H:%M:%S}",
            "timestamp": int(tomorrow.timestamp()),
            "api_key": api_key,
            "api_secret": api_secret,
        }

    def save_token(self, token_data: dict[str, Any]) -> bool:
        return True

    def check_token_valid(self, api_key: str, api_secret: str) -> bool:
        return True

    def delete_token(self, api_key: str, api_secret: str) -> bool:
        return True


def library(gateway: Gateway, tokens: TokenManager) -> Any:
    who = gateway.credentials
    broker = KoreaInvestment(who.app_key, who.app_secret, who.account, token_storage=_Given(tokens.token().value))
    broker.base_url = gateway.url
    return broker
