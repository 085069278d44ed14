"""One request to a gateway, through each library that the package protects, all called alike."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
import httpx
import requests

from kis_retry import (
    MemoryTokenStore,
    RateLimiter,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway

__all__ = [
    "BALANCE",
    "BUYABLE",
    "GOOD",
    "KINDS",
    "ORDER",
    "PRICE",
    "SYNC",
    "WIRES",
    "Answer",
    "Wire",
    "both",
    "headers_for",
    "issued",
    "manager_for",
    "query",
    "sent",
]

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
BALANCE = "/uapi/domestic-stock/v1/trading/inquire-balance"
BUYABLE = "/uapi/domestic-stock/v1/trading/inquire-psbl-order"

_TIMEOUT = 5  # seconds; nothing here hangs unless a test says so


class Answer(NamedTuple):
    """What a caller got: the HTTP status and KIS's code, or that of a page without one."""

    status: int
    msg_cd: str | None


GOOD = Answer(200, "MCA00000")


class Wire(NamedTuple):
    """
    One library.

    Attributes:
        name: of the library, and how it is called.
        send: sends (method, url, headers, body, timeout), with nobody's protection but what is active.
        dropped: what the library raises where the connection was closed without an answer.
    """

    name: str
    send: Callable[..., Answer]
    dropped: tuple[type[Exception], ...]

    def get(self, gateway: KisGateway, path: str = PRICE, **headers: str) -> Answer:
        """Read something."""
        url = f"{gateway.url}{path}?{urlencode(query(5930))}"
        return self.send("GET", url, headers_for(gateway, **headers), None, _TIMEOUT)

    def order(self, gateway: KisGateway, quantity: int = 1, *, timeout: float = _TIMEOUT, **headers: str) -> Answer:
        """Place an order, as a POST with a JSON body."""
        body = {"PDNO": "005930", "ORD_QTY": str(quantity)}
        return self.send("POST", gateway.url + ORDER, headers_for(gateway, **headers), body, timeout)


def headers_for(gateway: KisGateway, **others: str) -> dict[str, str]:
    """The headers that programs send: their account, and the token that the gateway issued last, if any."""
    account = {"appkey": gateway.credentials.app_key, "appsecret": gateway.credentials.app_secret}
    token = {"authorization": f"Bearer {gateway.current_token}"} if gateway.current_token else {}
    return {**account, **token, "tr_id": "FHKST01010100", **others}


def issued(gateway: KisGateway) -> str:
    """A token that the program asked for by itself, in the form in which headers carry it."""
    credentials = gateway.credentials
    body = {"grant_type": "client_credentials", "appkey": credentials.app_key, "appsecret": credentials.app_secret}
    answer = requests.post(gateway.url + "/oauth2/tokenP", json=body, timeout=_TIMEOUT).json()
    return f"Bearer {answer['access_token']}"


def manager_for(gateway: KisGateway) -> TokenManager:
    """A manager of its own for the gateway's account."""
    return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=1))


def both(
    function: Any,
    *,
    tokens: Any = None,
    policy: RetryPolicy | None = None,
    limiter: RateLimiter | None = None,
    idempotent: bool | None = None,
) -> Any:
    """A function with both decorators."""
    inner = refresh_on_expired_token(tokens=tokens, policy=policy)(function)
    return retry_on_transient_error(policy=policy, limiter=limiter, idempotent=idempotent)(inner)


def sent(gateway: KisGateway, path: str = ORDER) -> int:
    """How many requests for that path have come in."""
    return [request.path for request in gateway.received].count(path)


def query(symbol: int) -> dict[str, str]:
    return {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": f"{symbol:06d}"}


def _read(status: int, body: bytes) -> Answer:
    code = None
    with suppress(ValueError, AttributeError):
        code = json.loads(body).get("msg_cd")
    return Answer(status, code)


def _by_requests(method: str, url: str, headers: Mapping[str, str], body: Any, timeout: float) -> Answer:
    response = requests.request(method, url, headers=headers, json=body, timeout=timeout)
    return _read(response.status_code, response.content)


def _by_session(method: str, url: str, headers: Mapping[str, str], body: Any, timeout: float) -> Answer:
    with requests.Session() as session:
        session.headers.update(headers)
        with session.request(method, url, json=body, timeout=timeout, stream=True) as response:
            return _read(response.status_code, b"".join(response.iter_content(7)))


def _by_urllib(method: str, url: str, headers: Mapping[str, str], body: Any, timeout: float) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return _read(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return _read(error.code, error.read())


def _of(module: Any) -> tuple[Callable[..., Answer], Callable[..., Answer]]:
    def send(method: str, url: str, headers: Mapping[str, str], body: Any, timeout: float) -> Answer:
        with module.Client(timeout=timeout, follow_redirects=True) as client:
            response = client.request(method, url, headers=headers, json=body)
        return _read(response.status_code, response.content)

    async def ask(method: str, url: str, headers: Mapping[str, str], body: Any, timeout: float) -> Answer:
        async with module.AsyncClient(timeout=timeout, headers=headers, follow_redirects=True) as client:
            response = await client.request(method, url, json=body)
        return _read(response.status_code, response.content)

    return send, _in_loop(ask)


async def _by_aiohttp(method: str, url: str, headers: Mapping[str, str], body: Any, timeout: float) -> Answer:
    limit = aiohttp.ClientTimeout(timeout)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=limit) as session,
        session.request(method, url, json=body) as response,
    ):
        return _read(response.status, await response.read())


def _in_loop(ask: Callable[..., Any]) -> Callable[..., Answer]:
    """Send from a loop of one's own: what is active goes along."""
    return lambda *given: asyncio.run(ask(*given))


def _httpx(module: Any) -> list[Wire]:
    sync, in_loop = _of(module)
    dropped = (module.RemoteProtocolError, module.ReadError)
    name = module.__name__
    return [Wire(name, sync, dropped), Wire(f"{name} async", in_loop, dropped)]


WIRES = [
    Wire("requests", _by_requests, (requests.ConnectionError,)),
    Wire("requests session, streamed", _by_session, (requests.ConnectionError,)),
    *_httpx(httpx),
    Wire("aiohttp", _in_loop(_by_aiohttp), (aiohttp.ServerDisconnectedError,)),
    Wire("urllib", _by_urllib, (ConnectionError,)),
]
with suppress(ImportError):  # of Python 3.11 and later
    WIRES += _httpx(import_module("httpx2"))

KINDS = [WIRES[0], WIRES[4]]
"""One that blocks and one on an event loop: each of the others goes by the same engine as one of them."""

SYNC = [wire for wire in WIRES if not wire.name.endswith("async") and wire.name != "aiohttp"]
