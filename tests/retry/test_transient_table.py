"""The table of what passes by itself, row by row: whether a read is repeated, and an order, through every library."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from answers import PRICE
from kis_retry import RefreshEvent, RetryPolicy, TokenManager, retry_on_transient_error
from kis_retry.testing import KisGateway
from patience import until

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
BODY = {"PDNO": "005930", "ORD_QTY": "1"}

PASSING = [
    *("EGW00201", "EGW00215", "EGW00316", "EGW00300", "EGW00001", "EGW00002", "EGW00202", "EGW00203"),
    *("OPSQ1002", "OPSQ0003", "OPSQ0010", "OPSQ0011"),
]
UNCERTAIN = ["EGW00301", "EGW00302"]
FINAL = ["EGW00206", "EGW00207", "EGW00303", "KIOK0560"]


def by_requests(method: str, url: str, headers: dict[str, str], timeout: float) -> Any:
    return requests.request(method, url, json=BODY, headers=headers, timeout=timeout).json()


def by_httpx(method: str, url: str, headers: dict[str, str], timeout: float) -> Any:
    return httpx.request(method, url, json=BODY, headers=headers, timeout=timeout).json()


async def by_async_httpx(method: str, url: str, headers: dict[str, str], timeout: float) -> Any:
    async with httpx.AsyncClient(timeout=timeout) as client:
        return (await client.request(method, url, json=BODY, headers=headers)).json()


async def by_aiohttp(method: str, url: str, headers: dict[str, str], timeout: float) -> Any:
    limit = aiohttp.ClientTimeout(timeout)
    async with (
        aiohttp.ClientSession(timeout=limit) as session,
        session.request(method, url, json=BODY, headers=headers) as response,
    ):
        return await response.json()


def by_requests_raising(method: str, url: str, headers: dict[str, str], timeout: float) -> Any:
    answer = requests.request(method, url, json=BODY, headers=headers, timeout=timeout)
    answer.raise_for_status()
    return answer.json()


def by_httpx_raising(method: str, url: str, headers: dict[str, str], timeout: float) -> Any:
    return httpx.request(method, url, json=BODY, headers=headers, timeout=timeout).raise_for_status().json()


async def by_aiohttp_raising(method: str, url: str, headers: dict[str, str], timeout: float) -> Any:
    limit = aiohttp.ClientTimeout(timeout)
    async with (
        aiohttp.ClientSession(timeout=limit, raise_for_status=True) as session,
        session.request(method, url, json=BODY, headers=headers) as response,
    ):
        return await response.json()


RETURNING = [by_requests, by_httpx, by_async_httpx, by_aiohttp]
RAISING = [by_requests_raising, by_httpx_raising, by_aiohttp_raising]
every_library = pytest.mark.parametrize("ask", [*RETURNING, *RAISING])
read_and_order = pytest.mark.parametrize("order", [False, True], ids=["read", "order"])


class Asking:
    """A decorated function that asks with a library, and how often it did; what it came to is None where it raised."""

    def __init__(self, ask: Callable[..., Any], *, order: bool, deadline: float = 60) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self._method, self._path = ("POST", ORDER) if order else ("GET", PRICE)
        decorate = retry_on_transient_error(policy=RetryPolicy(transient_deadline=deadline))
        self._ask = decorate(self._asking_async(ask) if inspect.iscoroutinefunction(ask) else self._asking(ask))

    def _asking(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asking(*args: Any) -> Any:
            self.calls += 1
            return ask(*args)

        return asking

    def _asking_async(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        async def asking(*args: Any) -> Any:
            self.calls += 1
            return await ask(*args)

        return asking

    def __call__(self, base: str, headers: dict[str, str], timeout: float = 9) -> Any:
        try:
            asked = self._ask(self._method, base + self._path, headers, timeout)
            return asyncio.run(asked) if inspect.iscoroutine(asked) else asked
        except Exception as error:
            self.error = error
            return None


# -- KIS's codes


WAYS = [*((ask, status) for ask in RETURNING for status in (500, 200)), *((ask, 500) for ask in RAISING)]
"""How a refusal reaches the function."""

OF_EACH_KIND = ("EGW00201", "EGW00316", "EGW00301", "KIOK0560")
"""These come every way; each of the others every sixth: no library is told one refusal of a kind from the next."""


def refusals() -> Iterator[tuple[str, Any, int]]:
    for number, code in enumerate([*PASSING, *UNCERTAIN, *FINAL]):
        for ask, status in WAYS if code in OF_EACH_KIND else WAYS[number % 6 :: 6]:
            yield code, ask, status


@read_and_order
@pytest.mark.parametrize(("code", "ask", "status"), [*refusals()])
def test_a_refusal_is_repeated_as_the_table_allows(
    manager: TokenManager, gateway: KisGateway, no_backoff: None, code: str, status: int, order: bool, ask: Any
) -> None:
    headers = manager.headers("TTTC0012U" if order else "FHKST01010100")
    gateway.refuse_calls(code, 3, status=status)
    asking = Asking(ask, order=order)
    answer = asking(gateway.url, headers)
    repeated = code in PASSING and (not order or code == "EGW00201")
    assert (answer is not None and answer["rt_cd"] == "0") is repeated
    assert gateway.counts.calls == asking.calls == (4 if repeated else 1)
    assert len(gateway.orders) == (1 if order and repeated else 0)


@every_library
@pytest.mark.parametrize("code", UNCERTAIN)
def test_an_order_that_was_placed_though_kis_is_not_sure_is_not_placed_again(
    manager: TokenManager, gateway: KisGateway, no_backoff: None, code: str, ask: Any
) -> None:
    headers = manager.headers("TTTC0012U")
    gateway.refuse_calls(code, 1, reached=True)
    Asking(ask, order=True)(gateway.url, headers)
    assert gateway.orders == [BODY]


@every_library
@read_and_order
@pytest.mark.parametrize("code", ["EGW00201", "EGW00316"])
def test_the_last_answer_of_kis_is_handed_back_at_the_deadline(
    manager: TokenManager, gateway: KisGateway, ask: Any, order: bool, code: str, events: list[RefreshEvent]
) -> None:
    headers = manager.headers("X")
    gateway.refuse_calls(code)
    asking = Asking(ask, order=order, deadline=0.1)
    answer = asking(gateway.url, headers)
    if ask in RETURNING:
        assert answer["msg_cd"] == code
    else:
        assert type(asking.error).__name__ in {"HTTPError", "HTTPStatusError", "ClientResponseError"}
    assert (events[-1].name, events[-1].msg_cd) == ("call_given_up", code)
    assert gateway.orders == []


# -- nobody answered

FAULTS: dict[str, Callable[[KisGateway, bool], None]] = {
    **{
        f"HTTP {status}": lambda gateway, reached, status=status: gateway.fail(status, 2, reached=reached)  # type: ignore[misc]  # a default that binds
        for status in (429, 500, 502, 503, 504)
    },
    "dropped": lambda gateway, reached: gateway.drop("calls", 2, reached=reached),
    "hanging": lambda gateway, reached: gateway.hang("calls", 1, seconds=20, reached=reached),
    "half an object": lambda gateway, reached: gateway.garble("calls", 2, b'{"rt_cd": "0', 500, reached=reached),
    "an empty page": lambda gateway, reached: gateway.garble("calls", 2, b"", 502, reached=reached),
}


ONE_OF_THEM = ["HTTP 429", "HTTP 502", "HTTP 504"]
"""Each library meets one of these, which to all of them are as HTTP 503 is; 500 is KIS's own."""

MEETINGS = [
    (fault, ask)
    for number, ask in enumerate([*RETURNING, *RAISING])
    for fault in FAULTS
    if fault not in ONE_OF_THEM or fault == ONE_OF_THEM[number % 3]
]


@pytest.mark.parametrize(("fault", "ask"), MEETINGS)
@read_and_order
def test_what_nobody_answered_is_repeated_for_a_read_and_never_for_an_order(
    manager: TokenManager, gateway: KisGateway, no_backoff: None, fault: str, order: bool, ask: Any
) -> None:
    """An order that reached KIS is seen there a second time, too, if it is sent again."""
    headers = manager.headers("FHKST01010100")
    FAULTS[fault](gateway, order)
    asking = Asking(ask, order=order)
    answer = asking(gateway.url, headers, 0.2 if fault == "hanging" else 9)
    assert (answer is not None and answer["rt_cd"] == "0") is not order
    if order:
        until(lambda: gateway.orders)  # who hangs up on a busy machine may be gone before the gateway reads
        assert gateway.counts.calls == 1
    elif fault != "hanging":  # then a busy machine may take longer than the time-out once more
        assert gateway.counts.calls == 3
    assert len(gateway.orders) == (1 if order else 0)


@every_library
@read_and_order
@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "http://nowhere.invalid"], ids=["refused", "DNS"])
def test_where_no_connection_comes_about_a_read_is_repeated_and_an_order_is_not(
    ask: Any, order: bool, host: str
) -> None:
    asking = Asking(ask, order=order, deadline=0.1)
    assert asking(host, {}) is None
    assert (asking.calls > 1) is not order


# -- final


@pytest.fixture
def untrusted(listen: Callable[[Callable[[socket.socket], object]], str]) -> str:
    """A server whose certificate nobody has signed but itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates = Path(__file__).parents[1] / "stores" / "certificates"
    context.load_cert_chain(certificates / "loopback.pem")

    def shake_hands(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    return f"https://{listen(shake_hands)}"


@every_library
def test_a_certificate_that_is_not_trusted_is_final(ask: Any, untrusted: str, events: list[RefreshEvent]) -> None:
    asking = Asking(ask, order=False)
    assert asking(untrusted, {}) is None
    assert (asking.calls, events) == (1, [])


@every_library
@pytest.mark.parametrize("url", ["http://", "http://[::1", "ftp://127.0.0.1", "127.0.0.1:80"])
def test_a_url_that_is_none_is_final(ask: Any, url: str, events: list[RefreshEvent]) -> None:
    asking = Asking(ask, order=False)
    assert asking(url, {}) is None
    assert (asking.calls, events) == (1, [])


@every_library
@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_page_with_any_other_status_is_final(
    manager: TokenManager, gateway: KisGateway, ask: Any, status: int, events: list[RefreshEvent]
) -> None:
    headers = manager.headers("FHKST01010100")
    gateway.fail(status)
    asking = Asking(ask, order=False)
    assert asking(gateway.url, headers) is None
    assert (asking.calls, events) == (1, [])
