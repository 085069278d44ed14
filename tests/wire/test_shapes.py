"""
Wherever the token is kept: each shape of code that people write, over one expiry, on 16 threads, with a bare decorator.

Nothing is lost, one token is asked for, and no thread is refused twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from kis_retry import refresh_on_expired_token
from kis_retry.testing import KisGateway
from senders import PRICE, headers_for, query

THREADS = 16
CALLS = 3 * THREADS  # so many after the expiry that more are refused than were under way, if each has to be


class Library:
    """Somebody's class, which keeps its token in many places; each method is decorated as it stands."""

    def __init__(self, gateway: KisGateway) -> None:
        self.url = gateway.url + PRICE
        self.headers = headers_for(gateway)
        self.account = {name: value for name, value in self.headers.items() if name != "authorization"}
        self.access_token = self.headers["authorization"]
        self.token = self.access_token.removeprefix("Bearer ")
        self.session, self.client = requests.Session(), httpx.Client(headers=self.headers)
        self.session.headers.update(self.headers)

    def close(self) -> None:
        self.session.close()
        self.client.close()

    def ask(self, symbol: int, **token: str) -> Any:
        headers = {**self.account, **token}
        return requests.get(self.url, params=query(symbol), headers=headers, timeout=9).json()

    def a_dict(self, symbol: int) -> Any:
        return requests.get(self.url, params=query(symbol), headers=self.headers, timeout=9)

    def access_token_and_another_spelling(self, symbol: int) -> Any:
        return self.ask(symbol, Authorization=self.access_token)

    def token_in_capitals(self, symbol: int) -> Any:
        return self.ask(symbol, AUTHORIZATION=f"bearer {self.token}")

    def without_its_bearer(self, symbol: int) -> Any:
        return self.ask(symbol, authorization=self.token)

    def headers_of_a_session(self, symbol: int) -> Any:
        return self.session.get(self.url, params=query(symbol), timeout=9).json()

    def headers_of_a_client(self, symbol: int) -> Any:
        return self.client.get(self.url, params=query(symbol))

    def auth_of_requests(self, symbol: int) -> Any:
        def auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["authorization"] = self.access_token
            return request

        return requests.get(self.url, params=query(symbol), headers=self.account, auth=auth, timeout=9)

    def auth_of_httpx(self, symbol: int) -> Any:
        def auth(request: httpx.Request) -> httpx.Request:
            request.headers["authorization"] = self.access_token
            return request

        return self.client.get(self.url, params=query(symbol), headers={"authorization": ""}, auth=auth)

    def swallowed(self, symbol: int) -> Any:
        answer = self.ask(symbol, authorization=self.access_token)
        return {"rt_cd": "0"} if answer.get("output") else {}


SHAPES = [name for name in vars(Library) if name not in {"ask", "close"} and not name.startswith("__")]


@pytest.mark.parametrize("name", SHAPES)
def test_no_call_is_lost_wherever_the_token_is_kept(name: str, gateway: KisGateway) -> None:
    gateway.reset_counts()
    with closing(Library(gateway)) as library:
        assert lost(refresh_on_expired_token(getattr(library, name)), gateway) == 0
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused <= THREADS


def lost(fetch: Callable[[int], Any], gateway: KisGateway) -> int:
    """How many of the calls were lost, one expiry in the middle of them."""
    counting = threading.Lock()
    count = 0

    def one(symbol: int) -> bool:
        nonlocal count
        with counting:
            count += 1
            if count == CALLS // 2:
                gateway.expire()
        answer = fetch(symbol)
        return bool((answer if isinstance(answer, dict) else answer.json()).get("rt_cd") == "0")

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(CALLS))).count(False)


# In an event loop.

Ask = Callable[[aiohttp.ClientSession, str, int], Any]


async def _swallowed(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol)) as response:
        return (await response.json()).get("output")


async def _raised(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol), raise_for_status=True) as response:
        return (await response.json()).get("output")


async def _in_tasks(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    return all(await asyncio.gather(*(_swallowed(session, url, symbol + n) for n in range(3))))


@pytest.mark.parametrize("ask", [_swallowed, _raised, _in_tasks])
async def test_aiohttp_loses_no_call(ask: Ask, gateway: KisGateway) -> None:
    fetch = refresh_on_expired_token(ask)
    async with aiohttp.ClientSession(headers=headers_for(gateway)) as session:
        gateway.expire()
        gateway.reset_counts()
        assert all(await asyncio.gather(*(fetch(session, gateway.url + PRICE, n) for n in range(THREADS))))
        refused = gateway.counts.refused
        assert all([await fetch(session, gateway.url + PRICE, n) for n in range(20)])
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == refused, "the session's own headers are as they were, and not what is sent"
