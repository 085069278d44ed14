"""
Wherever the token is kept: each shape of code that people write, over one expiry, on 16 threads, with a bare decorator.

Nothing is lost, one token is asked for, and no more calls are refused than were under way.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import httpx
import pytest
import requests

from kis_retry import AccessToken, MemoryTokenStore, RefreshEvent, TokenManager, refresh_on_expired_token
from kis_retry.testing import KisGateway
from libraries_page import Row, rows

# Clients live as long as the functions that people write around them, which here is until `collected` has run.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
THREADS = 16
CALLS = 3 * THREADS  # so many after the expiry that more are refused than were under way, if each has to be


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """They are collected while their warnings are ignored, and not in a later test of another file."""
    yield
    gc.collect()


Fetch = Callable[[int], Any]
Shape = Callable[[KisGateway, TokenManager, Path], Fetch]

Client = TypeVar("Client", httpx.Client, requests.Session)

OPENED: list[httpx.Client | requests.Session] = []
SHAPES: dict[str, Shape] = {}
SWALLOWED: dict[str, Shape] = {}


def shape(make: Shape) -> Shape:
    SHAPES[make.__name__] = make
    return make


def swallowing(make: Shape) -> Shape:
    SWALLOWED[make.__name__] = make
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


def headers_of(tokens: TokenManager) -> dict[str, str]:
    return tokens.headers("FHKST01010100")


def query(symbol: int) -> dict[str, str]:
    return {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": f"{symbol:06d}"}


@shape
def a_global_string(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    token, fixed = tokens.authorization, {"tr_id": "FHKST01010100"}

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int) -> Any:
        headers = {**fixed, "authorization": token}
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    return fetch


@shape
def a_global_dict(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    base = headers_of(tokens)

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int) -> Any:
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=base, timeout=9).json()

    return fetch


class Keeper:
    """Somebody's class; where it keeps its token is up to the shape."""

    def __init__(self, gateway: KisGateway, tokens: TokenManager) -> None:
        self.url = gateway.url
        self.headers = headers_of(tokens)
        self.token = self._token = tokens.token().value
        self.session = kept(requests.Session())
        self.session.headers.update(self.headers)

    def ask(self, symbol: int, **headers: str) -> Any:
        return requests.get(self.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()


@shape
def self_headers(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    class Library(Keeper):
        @refresh_on_expired_token(tokens=tokens)
        def fetch(self, symbol: int) -> Any:
            return self.ask(symbol, **self.headers)

    return Library(gateway, tokens).fetch


@shape
def self_token(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    class Library(Keeper):
        @refresh_on_expired_token(tokens=tokens)
        def fetch(self, symbol: int) -> Any:
            return self.ask(symbol, Authorization=f"Bearer {self.token}")

    return Library(gateway, tokens).fetch


@shape
def self_private_token(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    class Library(Keeper):
        @refresh_on_expired_token(tokens=tokens)
        def fetch(self, symbol: int) -> Any:
            return self.ask(symbol, AUTHORIZATION=f"Bearer {self._token}")

    return Library(gateway, tokens).fetch


@shape
def session_headers(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    library = Keeper(gateway, tokens)

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int) -> Any:
        return library.session.get(gateway.url + PRICE, params=query(symbol), timeout=9).json()

    return fetch


@shape
def an_httpx_client(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    client = kept(httpx.Client(headers=headers_of(tokens)))

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int) -> Any:
        return client.get(gateway.url + PRICE, params=query(symbol))

    return fetch


@shape
def an_auth_of_requests(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    token = tokens.authorization

    class Auth(requests.auth.AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["authorization"] = token
            return request

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int) -> Any:
        return requests.get(gateway.url + PRICE, params=query(symbol), auth=Auth(), timeout=9)

    return fetch


@shape
def an_auth_of_httpx(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    token = tokens.authorization

    class Auth(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]  # as people write it
            request.headers["authorization"] = token
            yield request

    client = kept(httpx.Client(auth=Auth()))

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int) -> Any:
        return client.get(gateway.url + PRICE, params=query(symbol)).json()

    return fetch


@shape
def a_dataclass_field(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    @dataclass
    class Settings:
        url: str
        bearer_token: str

    settings = Settings(gateway.url, tokens.authorization)

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int, settings: Settings = settings) -> Any:
        headers = {"authorization": settings.bearer_token}
        return requests.get(settings.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    return fetch


@shape
def a_json_file(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    path = folder / "token.json"
    path.write_text(json.dumps({"authorization": tokens.authorization}), "utf-8")

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int) -> Any:
        headers = json.loads(path.read_text("utf-8"))
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    return fetch


@shape
def a_parameter_named_header(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int, header: dict[str, str]) -> Any:
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=header, timeout=9).json()

    header = headers_of(tokens)
    return lambda symbol: fetch(symbol, header)


@shape
def a_parameter_named_bearer(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: int, bearer: str) -> Any:
        headers = {"Authorization": bearer}
        return requests.get(gateway.url + PRICE, params=query(symbol), headers=headers, timeout=9).json()

    bearer = tokens.authorization
    return lambda symbol: fetch(symbol, bearer)


def _swallow(make_of: Callable[[Any], Any]) -> Shape:
    def make(gateway: KisGateway, tokens: TokenManager, folder: Path) -> Fetch:
        base = headers_of(tokens)

        @refresh_on_expired_token(tokens=tokens)
        def fetch(symbol: int) -> Any:
            answer = requests.get(gateway.url + PRICE, params=query(symbol), headers=base, timeout=9).json()
            return make_of(answer)

        return fetch

    return make


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


SWALLOWED["None"] = _swallow(lambda answer: answer["output"] if answer["rt_cd"] == "0" else None)
SWALLOWED["an empty frame"] = _swallow(lambda answer: [answer["output"]] if answer["rt_cd"] == "0" else [])
SWALLOWED["an empty dict"] = _swallow(lambda answer: answer.get("output", {}))
SWALLOWED["a tuple"] = _swallow(lambda answer: (answer["rt_cd"] == "0", answer.get("output")))
SWALLOWED["text"] = _swallow(lambda answer: answer.get("output", {}).get("stck_prpr", ""))
SWALLOWED["a dataclass"] = _swallow(lambda answer: Price(answer.get("output", {}).get("stck_prpr")))
SWALLOWED["an own exception"] = _swallow(_or_raise)


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


LABELS = {
    "self_headers": "`self.headers`",
    "self_token": "`self.token`",
    "self_private_token": "`self._token`",
    "session_headers": "`session.headers` of `requests`",
    "an_httpx_client": "`httpx.Client(headers=…)`",
    "an_auth_of_requests": "an `AuthBase` of `requests`",
    "an_auth_of_httpx": "an `httpx.Auth`",
    "a_dataclass_field": "a field of a dataclass",
    "a_json_file": "a JSON file",
    "a_parameter_named_header": "a parameter named `header`",
    "a_parameter_named_bearer": "a parameter named `bearer`",
}
"""What docs/en/libraries.md calls a shape, where that is not its name here."""


def label_of(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def test_the_page_has_a_row_for_each_shape_and_none_that_is_not_measured() -> None:
    measured = {*map(label_of, SHAPES), "headers of an `aiohttp` session"}
    assert {label for label, row in rows().items() if not row.alone} == measured


BOTH = [(name, status) for name in SWALLOWED for status in (500, 200)]
ALTERNATELY = [(name, (500, 200)[number % 2]) for number, name in enumerate(SHAPES)]


@pytest.mark.parametrize(("name", "gateway"), [*ALTERNATELY, *BOTH], indirect=["gateway"])
def test_no_call_is_lost_wherever_the_token_is_kept_and_whatever_becomes_of_the_answer(
    name: str, gateway: KisGateway, manager: TokenManager, tmp_path: Path
) -> None:
    fetch = {**SHAPES, **SWALLOWED}[name](gateway, manager, tmp_path)
    manager.token()
    gateway.reset_counts()
    row = rows().get(label_of(name), Row(range(0), 0, 1, THREADS))
    assert lost(fetch, gateway) == row.protected == 0
    assert gateway.counts.token_requests == row.token_requests == 1
    assert gateway.counts.refused <= row.refusals == THREADS


# In an event loop.


async def _aiohttp_json(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol)) as response:
        return await response.json()


async def _aiohttp_swallowed(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol)) as response:
        return (await response.json()).get("output") or None


async def _aiohttp_returned(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    return await session.get(url, params=query(symbol))


async def _aiohttp_raised(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    async with session.get(url, params=query(symbol), raise_for_status=True) as response:
        return (await response.json()).get("output")


async def _aiohttp_gathered(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    answers = await asyncio.gather(*(_aiohttp_json(session, url, symbol + n) for n in range(3)))
    return all(answer["rt_cd"] == "0" for answer in answers)


async def _aiohttp_in_tasks(session: aiohttp.ClientSession, url: str, symbol: int) -> Any:
    return await asyncio.create_task(_aiohttp_swallowed(session, url, symbol))


IN_A_LOOP = [
    _aiohttp_json,
    _aiohttp_swallowed,
    _aiohttp_returned,
    _aiohttp_raised,
    _aiohttp_gathered,
    _aiohttp_in_tasks,
]


async def _good(answer: Any) -> bool:
    if isinstance(answer, aiohttp.ClientResponse):
        answer = await answer.json()
    return is_good(answer)


@pytest.mark.parametrize("ask", IN_A_LOOP)
async def test_aiohttp_loses_no_call(ask: Any, gateway: KisGateway, manager: TokenManager) -> None:
    headers = await asyncio.to_thread(headers_of, manager)
    fetch = refresh_on_expired_token(tokens=manager)(ask)
    async with aiohttp.ClientSession(headers=headers) as session:
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


async def test_httpx_in_a_loop_loses_no_call(gateway: KisGateway, manager: TokenManager) -> None:
    headers = await asyncio.to_thread(headers_of, manager)

    @refresh_on_expired_token(tokens=manager)
    async def fetch(client: httpx.AsyncClient, symbol: int) -> Any:
        return (await client.get(gateway.url + PRICE, params=query(symbol))).json().get("output")

    async with httpx.AsyncClient(headers=headers) as client:
        gateway.expire()
        gateway.reset_counts()
        assert all(await asyncio.gather(*(fetch(client, n) for n in range(THREADS))))
        assert gateway.counts.token_requests == 1


# What cannot be helped says so.


def _ask_unseen(url: str, token: str) -> Any:
    """With neither of the libraries that are observed."""
    request = urllib.request.Request(url + PRICE, headers={"authorization": token})
    try:
        with urllib.request.urlopen(request, timeout=9) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


def test_a_function_that_nobody_sees_is_told_of_once_and_asks_for_no_token(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    token = manager.authorization

    @refresh_on_expired_token(tokens=manager)
    def fetch() -> Any:
        return _ask_unseen(gateway.url, token)

    assert fetch()["rt_cd"] == "0"
    gateway.expire()
    gateway.reset_counts()
    assert {fetch()["msg_cd"] for _ in range(20)} == {"EGW00123"}
    assert (gateway.counts.calls, gateway.counts.token_requests) == (20, 0), "no second attempt, and no token for it"
    assert {event.name for event in events} == {"token_expired", "call_given_up"}
    (warning,) = [record.getMessage() for record in caplog.records if "token_not_rebound" in record.getMessage()]
    assert "fetch" in warning
    assert "bind=" in warning


PLACES: dict[str, tuple[Any, str]] = {
    "a bind= that puts it nowhere": (lambda token: None, "bind= does"),
    "a bind= that raises": (lambda token: token.nothing, ""),
    "an argument that is not used": (None, "argument"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_function_that_does_not_use_its_token_asks_for_two_at_most(
    gateway: KisGateway, manager: TokenManager, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before: another one every minute, and each time a minute's stall."""
    bind, advice = PLACES[place]
    token = manager.authorization

    @refresh_on_expired_token(tokens=manager, bind=bind)
    def fetch(headers: dict[str, str]) -> Any:
        return _ask_unseen(gateway.url, token)

    headers = {"authorization": token}
    assert fetch(headers)["rt_cd"] == "0"
    gateway.reset_counts()
    asked = []
    for _ in range(6):
        gateway.expire()  # KIS issues another one at once
        assert fetch(headers)["msg_cd"] == "EGW00123"
        asked.append(gateway.counts.token_requests)
    assert asked[1:] == [asked[1]] * 5
    assert asked[1] <= 2
    warnings = [record.getMessage() for record in caplog.records if "token_not_rebound" in record.getMessage()]
    assert len(warnings) == (1 if advice else 0), "that bind= raises is told by its own event"
    assert all(advice in warning for warning in warnings)


def test_one_call_that_finds_its_token_again_ends_the_doubt(gateway: KisGateway, manager: TokenManager) -> None:
    keeps = {"token": manager.authorization}
    reaches = False

    def bind(token: AccessToken) -> None:
        if reaches:
            keeps["token"] = token.bearer

    @refresh_on_expired_token(tokens=manager, bind=bind)
    def fetch() -> Any:
        return _ask_unseen(gateway.url, keeps["token"])

    for _ in range(3):
        gateway.expire()
        assert fetch()["msg_cd"] == "EGW00123"
    keeps["token"], reaches = manager.refresh(None).bearer, True
    gateway.expire()
    keeps["token"] = manager.refresh(manager.token()).bearer
    assert fetch()["rt_cd"] == "0"
    gateway.expire()
    assert fetch()["rt_cd"] == "0"


@pytest.mark.parametrize("other", ["another app key", "another host"])
def test_what_is_not_of_this_account_keeps_its_own_token(
    gateway: KisGateway, manager: TokenManager, other: str
) -> None:
    dead = manager.token()
    manager.note_refused(dead.value)
    gateway.expire()
    assert manager.refresh(dead).value != dead.value
    with KisGateway() as elsewhere:
        url = elsewhere.url if other == "another host" else gateway.url
        key = "PSsomebodyelse" if other == "another app key" else manager.credentials.app_key
        sent: list[str] = []

        def note(response: requests.Response, **_: Any) -> None:
            sent.append(response.request.headers["authorization"])

        @refresh_on_expired_token(tokens=manager)
        def fetch() -> None:
            headers = {"authorization": dead.bearer, "appkey": key}
            requests.get(url + PRICE, headers=headers, hooks={"response": note}, timeout=9)

        fetch()
    assert set(sent) == {dead.bearer}


def test_two_accounts_in_one_function_each_keep_their_own(events: list[RefreshEvent]) -> None:
    with KisGateway() as real, KisGateway() as paper:
        mine, other = (TokenManager(gateway.credentials, store=MemoryTokenStore()) for gateway in (real, paper))
        base = headers_of(mine)

        @refresh_on_expired_token(tokens=mine)
        def fetch(symbol: int) -> Any:
            answer = requests.get(paper.url + PRICE, params=query(symbol), headers=headers_of(other), timeout=9).json()
            assert answer["rt_cd"] == "0"
            return requests.get(real.url + PRICE, params=query(symbol), headers=base, timeout=9).json()

        assert fetch(1)["rt_cd"] == "0"
        real.expire()
        real.reset_counts()
        assert [fetch(n)["rt_cd"] for n in range(100)] == ["0"] * 100
        assert (real.counts.refused, real.counts.token_requests) == (1, 1)
        assert paper.counts.refused == 0
