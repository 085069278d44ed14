"""
Wherever the token is kept: each shape of code that people write, over one expiry, on 16 threads, with a bare decorator.

Nothing is lost, one token is asked for, and no thread is refused twice.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import httpx
import pytest
import requests

from kis_retry import refresh_on_expired_token
from kis_retry.testing import KisGateway
from senders import PRICE, headers_for, issued, query

THREADS = 16
CALLS = 3 * THREADS  # so many after the expiry that more are refused than were under way, if each has to be

Fetch = Callable[[int], Any]
Client = TypeVar("Client", httpx.Client, requests.Session)
Shape = Callable[[KisGateway, Path], Fetch]

OPENED: list[httpx.Client | requests.Session] = []
SHAPES: dict[str, Shape] = {}


def shape(make: Shape) -> Shape:
    SHAPES[make.__name__] = make
    return make


def kept(client: Client) -> Client:
    """A client that lives as long as the function that is written around it, which here is as long as its test."""
    OPENED.append(client)
    return client


@pytest.fixture(autouse=True)
def close_clients() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(params=[500, 200])
def gateway(request: pytest.FixtureRequest) -> Iterator[KisGateway]:
    with KisGateway(expired_status=request.param) as running:
        yield running


@shape
def a_global_string(gateway: KisGateway, folder: Path) -> Fetch:
    fixed = headers_for(gateway)
    token = fixed.pop("authorization")

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        headers = {**fixed, "authorization": token}
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    return fetch


@shape
def a_global_dict(gateway: KisGateway, folder: Path) -> Fetch:
    base = headers_for(gateway)

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=base, timeout=9).json()

    return fetch


class Keeper:
    """Somebody's class; where it keeps its token is up to the shape."""

    def __init__(self, gateway: KisGateway) -> None:
        self.url = gateway.url
        self.headers = headers_for(gateway)
        self.account = {name: value for name, value in self.headers.items() if name != "authorization"}
        self.access_token = self.headers["authorization"]
        self.token = self._token = self.access_token.removeprefix("Bearer ")
        self.session = kept(requests.Session())
        self.session.headers.update(self.headers)

    def ask(self, symbol: int, **token: str) -> Any:
        headers = {**self.account, **token}
        return requests.get(self.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()


def _of_self(token_of: Callable[[Keeper], str], name: str = "authorization") -> Shape:
    def make(gateway: KisGateway, folder: Path) -> Fetch:
        class Library(Keeper):
            @refresh_on_expired_token
            def fetch(self, symbol: int) -> Any:
                return self.ask(symbol, **{name: token_of(self)})

        return Library(gateway).fetch

    return make


SHAPES["self.headers"] = _of_self(lambda self: self.headers["authorization"])
SHAPES["self.access_token"] = _of_self(lambda self: self.access_token, "Authorization")
SHAPES["self.token"] = _of_self(lambda self: f"Bearer {self.token}", "AUTHORIZATION")
SHAPES["self._token"] = _of_self(lambda self: f"bearer {self._token}")


@shape
def session_headers(gateway: KisGateway, folder: Path) -> Fetch:
    library = Keeper(gateway)

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        return library.session.get(gateway.url + PRICE, params=query(symbol), timeout=9).json()

    return fetch


@shape
def an_httpx_client(gateway: KisGateway, folder: Path) -> Fetch:
    client = kept(httpx.Client(headers=headers_for(gateway)))

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        return client.get(gateway.url + PRICE, params=query(symbol))

    return fetch


@shape
def an_auth_of_requests(gateway: KisGateway, folder: Path) -> Fetch:
    fixed = headers_for(gateway)
    token = fixed.pop("authorization")

    class Auth(requests.auth.AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["authorization"] = token
            return request

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=fixed, auth=Auth(), timeout=9)

    return fetch


@shape
def an_auth_of_httpx(gateway: KisGateway, folder: Path) -> Fetch:
    fixed = headers_for(gateway)
    token = fixed.pop("authorization")

    class Auth(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]  # as people write it
            request.headers["authorization"] = token
            yield request

    client = kept(httpx.Client(auth=Auth(), headers=fixed))

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        return client.get(gateway.url + PRICE, params=query(symbol)).json()

    return fetch


@shape
def a_dataclass_field(gateway: KisGateway, folder: Path) -> Fetch:
    @dataclass
    class Settings:
        url: str
        bearer_token: str

    fixed = headers_for(gateway)
    settings = Settings(gateway.url, fixed.pop("authorization"))

    @refresh_on_expired_token
    def fetch(symbol: int, settings: Settings = settings) -> Any:
        headers = {**fixed, "authorization": settings.bearer_token}
        return requests.get(settings.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    return fetch


@shape
def a_json_file(gateway: KisGateway, folder: Path) -> Fetch:
    path = folder / "token.json"
    path.write_text(json.dumps(headers_for(gateway)), "utf-8")

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        headers = json.loads(path.read_text("utf-8"))
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    return fetch


@shape
def a_parameter_named_header(gateway: KisGateway, folder: Path) -> Fetch:
    @refresh_on_expired_token
    def fetch(symbol: int, header: dict[str, str]) -> Any:
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=header, timeout=9).json()

    header = headers_for(gateway)
    return lambda symbol: fetch(symbol, header)


@shape
def a_parameter_named_bearer(gateway: KisGateway, folder: Path) -> Fetch:
    fixed = headers_for(gateway)
    bearer = fixed.pop("authorization")

    @refresh_on_expired_token
    def fetch(symbol: int, bearer: str) -> Any:
        headers = {**fixed, "Authorization": bearer}
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    return lambda symbol: fetch(symbol, bearer)


@shape
def a_token_without_its_bearer(gateway: KisGateway, folder: Path) -> Fetch:
    base = headers_for(gateway)
    base["authorization"] = base["authorization"].removeprefix("Bearer ")

    @refresh_on_expired_token
    def fetch(symbol: int) -> Any:
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=base, timeout=9).json()

    return fetch


class OwnError(Exception):
    """What a library raises of its own."""


@dataclass
class Price:
    """What a library makes of an answer."""

    price: str | None


def _or_raise(answer: Any) -> Any:
    if answer["rt_cd"] != "0":
        raise OwnError(answer["msg1"])
    return answer["output"]


def _swallowing(make_of: Callable[[Any], Any]) -> Shape:
    def make(gateway: KisGateway, folder: Path) -> Fetch:
        base = headers_for(gateway)

        @refresh_on_expired_token
        def fetch(symbol: int) -> Any:
            answer = requests.get(gateway.url + PRICE, params=query(symbol), headers=base, timeout=9).json()
            return make_of(answer)

        return fetch

    return make


SHAPES["swallowed, None"] = _swallowing(lambda answer: answer["output"] if answer["rt_cd"] == "0" else None)
SHAPES["swallowed, an empty frame"] = _swallowing(lambda answer: [answer["output"]] if answer["rt_cd"] == "0" else [])
SHAPES["swallowed, an empty dict"] = _swallowing(lambda answer: answer.get("output", {}))
SHAPES["swallowed, a tuple"] = _swallowing(lambda answer: (answer["rt_cd"] == "0", answer.get("output")))
SHAPES["swallowed, text"] = _swallowing(lambda answer: answer.get("output", {}).get("stck_prpr", ""))
SHAPES["swallowed, a dataclass"] = _swallowing(lambda answer: Price(answer.get("output", {}).get("stck_prpr")))
SHAPES["an own exception"] = _swallowing(_or_raise)


def is_good(answer: Any) -> bool:
    if isinstance(answer, (requests.Response, httpx.Response)):
        answer = answer.json()
    if isinstance(answer, dict) and "rt_cd" in answer:
        return bool(answer["rt_cd"] == "0")
    if isinstance(answer, tuple):
        return bool(answer[0])
    return bool(answer.price if isinstance(answer, Price) else answer)


def lost(fetch: Fetch, gateway: KisGateway) -> int:
    """How many of the calls were lost, one expiry in the middle of them."""
    done = threading.Lock()
    count = 0

    def one(symbol: int) -> bool:
        nonlocal count
        with done:
            count += 1
            if count == CALLS // 2:
                gateway.expire()
        try:
            return is_good(fetch(symbol))
        except OwnError:
            return False

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(CALLS))).count(False)


@pytest.mark.parametrize("name", SHAPES)
def test_no_call_is_lost_wherever_the_token_is_kept(name: str, gateway: KisGateway, tmp_path: Path) -> None:
    issued(gateway)
    fetch = SHAPES[name](gateway, tmp_path)
    gateway.reset_counts()
    assert lost(fetch, gateway) == 0
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused <= THREADS


# In an event loop.

Ask = Callable[[aiohttp.ClientSession, str, int], Any]


async def _json(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol)) as response:
        return await response.json()


async def _swallowed(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol)) as response:
        return (await response.json()).get("output") or None


async def _returned(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    return await session.get(url, params=query(symbol))


async def _raised(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol), raise_for_status=True) as response:
        return (await response.json()).get("output")


async def _gathered(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    answers = await asyncio.gather(*(_json(session, url, symbol + n) for n in range(3)))
    return all(answer["rt_cd"] == "0" for answer in answers)


async def _in_tasks(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    return await asyncio.create_task(_swallowed(session, url, symbol))


async def _good(answer: Any) -> bool:
    return is_good(await answer.json() if isinstance(answer, aiohttp.ClientResponse) else answer)


@pytest.mark.parametrize("ask", [_json, _swallowed, _returned, _raised, _gathered, _in_tasks])
async def test_aiohttp_loses_no_call(ask: Ask, gateway: KisGateway) -> None:
    await asyncio.to_thread(issued, gateway)
    fetch = refresh_on_expired_token(ask)
    async with aiohttp.ClientSession(headers=headers_for(gateway)) as session:
        assert await _good(await fetch(session, gateway.url + PRICE, 1))
        gateway.expire()
        gateway.reset_counts()
        answers = await asyncio.gather(*(fetch(session, gateway.url + PRICE, n) for n in range(THREADS)))
        assert [await _good(answer) for answer in answers] == [True] * THREADS
        refused = gateway.counts.refused
        answers = [await fetch(session, gateway.url + PRICE, n) for n in range(20)]
        assert [await _good(answer) for answer in answers] == [True] * 20
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == refused, "the session's own headers are as they were, and not what is sent"


async def test_httpx_in_a_loop_loses_no_call(gateway: KisGateway) -> None:
    await asyncio.to_thread(issued, gateway)

    @refresh_on_expired_token
    async def fetch(client: httpx.AsyncClient, symbol: int) -> Any:
        return (await client.get(gateway.url + PRICE, params=query(symbol))).json().get("output")

    async with httpx.AsyncClient(headers=headers_for(gateway)) as client:
        gateway.expire()
        gateway.reset_counts()
        assert all(await asyncio.gather(*(fetch(client, n) for n in range(THREADS))))
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused <= THREADS
