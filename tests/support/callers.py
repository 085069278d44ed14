"""Every way in which people call KIS: how it asks for a price, and how it orders."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import requests

from answers import PRICE
from kis_retry import (
    KisClient,
    MemoryTokenStore,
    RetryPolicy,
    TokenManager,
    protect,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
SYMBOL = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}

Ask = Callable[[], Any]
Send = Callable[[dict[str, str]], Any]


class Caller:
    """One program: how it asks, orders, and does both in one call. What it could not have is KIS's answer, or None."""

    def __init__(self, name: str, ask: Ask, send: Send, trade: Send | None = None) -> None:
        self.name, self._ask, self._send, self._trade = name, ask, send, trade or send

    def ask(self) -> Any:
        return _outcome(self._ask)

    def send(self, order: dict[str, str]) -> Any:
        return _outcome(lambda: self._send(order))

    def trade(self, order: dict[str, str]) -> Any:
        return _outcome(lambda: self._trade(order))


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        answer = getattr(error, "response", None)
        try:
            return answer.json() if answer is not None else None
        except ValueError:
            return None


def callers(gateway: KisGateway, timeout: float, *, max_retries: int = 1) -> Iterator[Caller]:
    """
    One of each, with a token of its own.

    Args:
        timeout: seconds that they wait for an answer.
        max_retries: how many expiries one call may meet.
    """
    policy = RetryPolicy(transient_deadline=600, max_retries=max_retries)

    def manager() -> TokenManager:
        return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy)

    client = KisClient(tokens=manager(), timeout=timeout)
    yield Caller(
        "KisClient", lambda: client.fetch_domestic_price("005930"), lambda body: client.post(ORDER, "TTTC0012U", body)
    )
    for outside in (True, False):
        yield _functions(gateway, manager(), policy, timeout, refresh_outside=outside)
    yield _coroutines(gateway, manager(), policy, timeout)
    yield _library(gateway, manager(), policy, timeout)
    yield _unseen(gateway, manager(), policy, timeout)


def _both(tokens: TokenManager, policy: RetryPolicy, function: Any, **options: Any) -> Any:
    return refresh_on_expired_token(tokens=tokens)(retry_on_transient_error(policy=policy, **options)(function))


def _functions(
    gateway: KisGateway, tokens: TokenManager, policy: RetryPolicy, timeout: float, *, refresh_outside: bool
) -> Caller:
    """With the token in the caller's dict, through requests or httpx."""
    headers = tokens.headers("X")

    def get(headers: dict[str, str]) -> Any:
        return requests.get(gateway.url + PRICE, params=SYMBOL, headers=headers, timeout=timeout).json()

    def post(body: dict[str, str], headers: dict[str, str]) -> Any:
        return (
            httpx.post(gateway.url + ORDER, json=body, headers=headers, timeout=timeout, verify=False)
            .raise_for_status()
            .json()
        )

    def both(function: Any) -> Any:
        refreshing, retrying = refresh_on_expired_token(tokens=tokens), retry_on_transient_error(policy=policy)
        return refreshing(retrying(function)) if refresh_outside else retrying(refreshing(function))

    def trade(body: dict[str, str], headers: dict[str, str]) -> Any:
        get(headers)
        placed = post(body, headers)
        get(headers)
        return placed

    ask, send, trading = both(get), both(post), both(trade)
    order = "refresh outside" if refresh_outside else "retry outside"
    return Caller(
        f"functions, {order}",
        lambda: ask(headers),
        lambda body: send(body, headers),
        lambda body: trading(body, headers),
    )


def _coroutines(gateway: KisGateway, tokens: TokenManager, policy: RetryPolicy, timeout: float) -> Caller:
    headers = tokens.headers("X")

    async def get(headers: dict[str, str]) -> Any:
        async with httpx.AsyncClient(timeout=timeout, verify=False) as session:
            return (await session.get(gateway.url + PRICE, params=SYMBOL, headers=headers)).json()

    async def post(body: dict[str, str], headers: dict[str, str]) -> Any:
        limit = aiohttp.ClientTimeout(timeout)
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.post(gateway.url + ORDER, json=body, headers=headers) as response,
        ):
            return await response.json()

    ask, send = _both(tokens, policy, get), _both(tokens, policy, post)
    return Caller("coroutines", lambda: asyncio.run(ask(headers)), lambda body: asyncio.run(send(body, headers)))


def _library(gateway: KisGateway, tokens: TokenManager, policy: RetryPolicy, timeout: float) -> Caller:
    """Somebody else's, which swallows what it is told."""

    class Library:
        def __init__(self) -> None:
            self.headers = tokens.headers("X")

        def fetch_price(self) -> Any:
            try:
                return requests.get(gateway.url + PRICE, params=SYMBOL, headers=self.headers, timeout=timeout).json()
            except (requests.RequestException, ValueError):
                return None

        def fetch_order(self, body: dict[str, str]) -> Any:
            try:
                return requests.post(gateway.url + ORDER, json=body, headers=self.headers, timeout=timeout).json()
            except (requests.RequestException, ValueError):
                return None

    library = protect(Library(), tokens=tokens, policy=policy)
    return Caller("a library under protect", library.fetch_price, library.fetch_order)


def _unseen(gateway: KisGateway, tokens: TokenManager, policy: RetryPolicy, timeout: float) -> Caller:
    """Through what nobody watches: a read is one because its author says so."""
    query = "&".join(f"{name}={value}" for name, value in SYMBOL.items())

    def by_urllib(path: str, headers: dict[str, str], data: bytes | None = None) -> Any:
        sent = {**headers, "content-type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(gateway.url + path, data, sent), timeout=timeout) as got:
                return httpx.Response(got.status, content=got.read()).json()
        except urllib.error.HTTPError as error:
            with error:
                return httpx.Response(error.code, content=error.read())  # as a library hands over what it got

    def get(headers: dict[str, str]) -> Any:
        return by_urllib(f"{PRICE}?{query}", headers)

    def post(body: dict[str, str], headers: dict[str, str]) -> Any:
        return by_urllib(ORDER, headers, httpx.Request("POST", "http://x", json=body).content)

    headers = tokens.headers("X")
    ask, send = _both(tokens, policy, get, idempotent=True), _both(tokens, policy, post)
    return Caller("unseen", lambda: _document(ask(headers)), lambda body: _document(send(body, headers)))


def _document(found: Any) -> Any:
    return found if isinstance(found, dict) else found.json()
