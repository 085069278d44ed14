"""Which bodies are read to see what KIS said: its own, whatever their type; never a stream that may have no end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from answers import EXPIRED, GOOD, PRICE
from kis_retry import refresh_on_expired_token, retry_on_transient_error
from servers import EndingHTTPServer
from sources import NumberedTokens

PRICES = {**GOOD, "output": {"stck_prpr": "70000"}}
LINES = "/lines"
PATIENCE = 20


class Stand:
    """A server of another hand: KIS's price, for the newest token alone, and lines of JSON without an end."""

    def __init__(self, tokens: NumberedTokens) -> None:
        self.kind: str | None = "application/json"
        self.status = 200
        self.picture = b""  # what a proxy sends instead of a refusal
        self.read = threading.Event()  # somebody has read the first of the lines
        self.waited_in_vain = False  # nobody read it before the last one was sent
        self.refused = 0
        self.said_of_tokens: Any = {}
        stand = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == LINES:
                    self._lines()
                    return
                if self.path.startswith("/oauth2/"):
                    self._say(200, stand.said_of_tokens)
                    return
                good = self.headers["authorization"] == tokens.token().bearer
                stand.refused += not good
                self._say(200 if good else stand.status, PRICES if good else EXPIRED)

            def _say(self, status: int, answer: Any) -> None:
                body = stand.picture or json.dumps(answer, ensure_ascii=False).encode()
                self.send_response(status)
                if stand.kind is not None:
                    self.send_header("Content-Type", stand.kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _lines(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", stand.kind or "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"4\r\n{}\r\n\r\n")
                self.wfile.flush()
                stand.waited_in_vain = not stand.read.wait(PATIENCE)
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = EndingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def tokens() -> NumberedTokens:
    return NumberedTokens()


@pytest.fixture
def stand(tokens: NumberedTokens) -> Iterator[Stand]:
    made = Stand(tokens)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


Ask = Callable[[str, dict[str, str]], Any]


def with_requests(url: str, headers: dict[str, str]) -> Any:
    return requests.get(url, headers=headers, timeout=9).json()


def with_requests_streaming(url: str, headers: dict[str, str]) -> Any:
    with requests.get(url, headers=headers, timeout=9, stream=True) as response:
        return json.loads(b"".join(response.iter_content(7)))


def with_httpx(url: str, headers: dict[str, str]) -> Any:
    return httpx.get(url, headers=headers).json()


def with_httpx_streaming(url: str, headers: dict[str, str]) -> Any:
    with httpx.stream("GET", url, headers=headers) as response:
        return json.loads(b"".join(response.iter_bytes(7)))


def with_httpx_in_a_loop(url: str, headers: dict[str, str]) -> Any:
    async def ask() -> Any:
        async with httpx.AsyncClient(headers=headers) as client:
            return (await client.get(url)).json()

    return ask


def with_aiohttp(url: str, headers: dict[str, str]) -> Any:
    async def ask() -> Any:
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
            return json.loads(await response.read())

    return ask


def with_aiohttp_streaming(url: str, headers: dict[str, str]) -> Any:
    async def ask() -> Any:
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
            return json.loads(b"".join([chunk async for chunk in response.content.iter_chunked(7)]))

    return ask


LIBRARIES: list[Ask] = [
    with_requests,
    with_requests_streaming,
    with_httpx,
    with_httpx_streaming,
    with_httpx_in_a_loop,
    with_aiohttp,
    with_aiohttp_streaming,
]
KINDS = ["application/json;charset=UTF-8", "text/html; charset=utf-8", "application/problem+json", None]


# The status is asked where the body is not read, and that goes by the type.
@pytest.mark.parametrize(("kind", "status"), [*((kind, 200) for kind in KINDS), (KINDS[0], 500)])
@pytest.mark.parametrize("ask", LIBRARIES)
def test_a_swallowed_refusal_is_seen_whatever_its_type_and_however_it_is_read(
    stand: Stand, tokens: NumberedTokens, ask: Ask, kind: str | None, status: int
) -> None:
    headers = {"Authorization": tokens.token().bearer, "appkey": "PSkey"}
    stand.kind, stand.status = kind, status
    asked = ask(stand.url + PRICE, headers)
    if asyncio.iscoroutinefunction(asked):

        @refresh_on_expired_token(tokens=tokens)
        async def fetch_async() -> Any:
            return (await asked()).get("output")

        answers = [asyncio.run(fetch_async())]
        tokens.number += 1
        answers += [asyncio.run(fetch_async()) for _ in range(2)]
    else:

        @refresh_on_expired_token(tokens=tokens)
        def fetch() -> Any:
            return ask(stand.url + PRICE, headers).get("output")

        answers = [fetch()]
        tokens.number += 1
        answers += [fetch() for _ in range(2)]
    assert answers == [PRICES["output"]] * 3
    assert stand.refused == 1


# What is said of tokens, and not of prices.


def price_and_approval(stand: Stand, tokens: NumberedTokens, ask: Ask) -> Callable[[], Any]:
    """A function that asks for a price with the token of now, and then the token endpoint for something else."""
    headers = {"Authorization": tokens.token().bearer}

    @refresh_on_expired_token(tokens=tokens)
    def fetch() -> Any:
        price = ask(stand.url + PRICE, headers)
        ask(stand.url + "/oauth2/Approval", headers)
        return price.get("output")

    return fetch


@pytest.mark.parametrize("ask", [with_requests, with_httpx])
def test_an_answer_of_the_token_endpoint_is_no_refusal(stand: Stand, tokens: NumberedTokens, ask: Ask) -> None:
    stand.said_of_tokens = EXPIRED
    assert price_and_approval(stand, tokens, ask)() == PRICES["output"]
    assert tokens.refreshed == []


@pytest.mark.parametrize("ask", [with_requests, with_httpx])
def test_an_answer_of_the_token_endpoint_is_no_recovery(stand: Stand, tokens: NumberedTokens, ask: Ask) -> None:
    fetch = price_and_approval(stand, tokens, ask)
    stand.said_of_tokens = GOOD
    tokens.number = 2
    assert fetch() == PRICES["output"]
    assert stand.refused == 1


# Streams.


def first_line_of_requests(url: str) -> None:
    with requests.get(url, timeout=9, stream=True) as response:
        assert next(response.iter_lines()) == b"{}"


def first_line_of_httpx(url: str) -> None:
    with httpx.stream("GET", url) as response:
        assert next(response.iter_lines()) == "{}"


def first_line_of_aiohttp(url: str) -> Any:
    async def read() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert await response.content.readline() == b"{}\r\n"

    return read


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "text/event-stream"])
@pytest.mark.parametrize("read", [first_line_of_requests, first_line_of_httpx, first_line_of_aiohttp])
def test_a_stream_without_an_end_is_left_to_who_reads_it(
    stand: Stand, tokens: NumberedTokens, read: Any, kind: str
) -> None:
    stand.kind = kind
    asked = read(stand.url + LINES) if read is first_line_of_aiohttp else None
    if asked is not None:

        @refresh_on_expired_token(tokens=tokens)
        async def follow_async() -> None:
            await asked()
            stand.read.set()

        asyncio.run(follow_async())
    else:

        @refresh_on_expired_token(tokens=tokens)
        def follow() -> None:
            read(stand.url + LINES)
            stand.read.set()

        follow()
    assert not stand.waited_in_vain


async def status_by_httpx(url: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).status_code


async def status_by_aiohttp(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


@pytest.mark.parametrize("ask", [status_by_httpx, status_by_aiohttp])
def test_a_status_of_a_failure_counts_though_its_body_is_not_read(
    stand: Stand, tokens: NumberedTokens, no_backoff: None, ask: Callable[[str], Awaitable[int]]
) -> None:
    stand.kind, stand.status, stand.picture = "image/png", 503, b"\x89PNG"
    url, statuses = stand.url + PRICE, []

    @retry_on_transient_error
    async def fetch() -> int:
        statuses.append(await ask(url))
        if len(statuses) == 2:
            stand.status = 418
        return statuses[-1]

    assert asyncio.run(fetch()) == 418
    assert statuses == [503, 503, 418]
