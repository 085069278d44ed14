"""Each library: refused requests are renewed, reads are repeated and paced, and everything else is as without."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import socket
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from kis_retry import (
    MemoryTokenStore,
    RateLimiter,
    RefreshEvent,
    RetryPolicy,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway
from senders import GOOD, KINDS, ORDER, PRICE, WIRES, Answer, Wire, both, headers_for, issued

ALL = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
TWO = pytest.mark.parametrize("wire", KINDS, ids=lambda wire: wire.name)
Listen = Callable[[Callable[[socket.socket], object]], str]


# Renewed, repeated, paced.


@ALL
@pytest.mark.parametrize("status", [500, 200])
def test_a_refused_read_is_renewed(wire: Wire, status: int, events: list[RefreshEvent]) -> None:
    with KisGateway(expired_status=status) as gateway:
        token = issued(gateway)
        gateway.expire()
        gateway.reset_counts()
        fetch = refresh_on_expired_token(lambda: wire.get(gateway, authorization=token))
        assert [fetch() for _ in range(3)] == [GOOD] * 3
        assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1), "a dead token leaves once"
    names = [event.name for event in events]
    assert names == ["token_expired", "token_refreshed", "call_retried", "call_recovered"]
    assert {event.request for event in events} == {f"GET {PRICE}"}


@TWO
def test_a_read_without_a_token_gets_one(wire: Wire) -> None:
    with KisGateway() as gateway:
        fetch = refresh_on_expired_token(lambda: wire.get(gateway))
        assert fetch() == GOOD
        assert (gateway.counts.calls, gateway.counts.token_requests) == (1, 1)


@TWO
def test_where_no_token_can_be_had_the_caller_gets_what_kis_said(
    wire: Wire, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    gateway.expire()
    gateway.refuse_tokens("EGW00103")
    fetch = refresh_on_expired_token(lambda: wire.get(gateway))
    assert fetch() == Answer(500, "EGW00123")
    assert gateway.counts.calls == 1
    failed = [event for event in events if event.name == "token_refresh_failed"]
    assert [event.msg_cd for event in failed] == ["EGW00103"]
    assert events[-1].name == "call_given_up"


FAULTS: dict[str, Callable[[KisGateway], None]] = {
    "a drop": lambda gateway: gateway.drop(times=2),
    "a time-out": lambda gateway: gateway.hang(times=1, seconds=20),
    "EGW00201": lambda gateway: gateway.refuse_calls("EGW00201", 2),
    "HTTP 503": lambda gateway: gateway.fail(503, times=1),
    "HTTP 500 without a verdict": lambda gateway: gateway.fail(500, times=1),
}
OF_EACH_LIBRARY = [(wire, fault) for wire in WIRES for fault in ("a drop", "a time-out")]


@pytest.mark.parametrize(
    ("wire", "fault"),
    [*OF_EACH_LIBRARY, *((WIRES[0], fault) for fault in list(FAULTS)[2:])],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_read_is_repeated_after_what_passes(
    wire: Wire, fault: str, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    timeout = 0.3 if fault == "a time-out" else 5
    url = f"{gateway.url}{PRICE}?FID_INPUT_ISCD=005930"
    fetch = both(lambda: wire.send("GET", url, headers_for(gateway), None, timeout))
    FAULTS[fault](gateway)
    assert fetch() == GOOD
    assert events[-1].name == "call_recovered"
    gateway.heal()


@ALL
def test_without_the_rule_a_failure_comes_as_it_is(wire: Wire, gateway: KisGateway, events: list[RefreshEvent]) -> None:
    gateway.fail(503, times=1)
    assert refresh_on_expired_token(lambda: wire.get(gateway))() == Answer(503, None)
    gateway.drop()
    with pytest.raises(wire.dropped):
        refresh_on_expired_token(lambda: wire.get(gateway))()
    assert events == []
    assert gateway.counts.calls == (3 if wire.name == "aiohttp" else 2), "aiohttp repeats a read once by itself"


@TWO
def test_without_the_other_rule_a_refusal_comes_as_it_is(
    wire: Wire, gateway: KisGateway, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    gateway.expire()
    assert retry_on_transient_error(lambda: wire.get(gateway))() == Answer(500, "EGW00123")
    assert (gateway.counts.calls, events, caplog.messages) == (1, [], [])


@TWO
def test_a_read_ends_as_it_failed_last_after_the_deadline(wire: Wire, gateway: KisGateway) -> None:
    gateway.drop()
    with pytest.raises(wire.dropped):
        both(lambda: wire.get(gateway), policy=RetryPolicy(transient_deadline=0.7))()
    assert gateway.counts.calls > 1


@TWO
def test_reads_are_paced(wire: Wire, gateway: KisGateway) -> None:
    limiter = RateLimiter(gateway.credentials, rate=20, store=MemoryTokenStore())
    fetch = both(lambda _: wire.get(gateway), limiter=limiter)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch, range(6))) == {GOOD}
    arrivals = sorted(gateway.arrivals)
    assert arrivals[-1] - arrivals[0] > 4 / 20, "evenly spaced"


# The bodies of answers.


def _by_requests(url: str, headers: dict[str, str]) -> list[bytes]:
    def get() -> requests.Response:
        return requests.get(url, headers=headers, stream=True, timeout=9)

    with get() as one, get() as two, get() as three:
        parts = [b"".join(one.iter_content(5)), two.raw.read(4) + two.raw.read(), b"\n".join(three.iter_lines())]
        return [*parts, get().content]


def _by_httpx(url: str, headers: dict[str, str]) -> list[bytes]:
    with httpx.Client(headers=headers) as client:
        read = []
        for name in ("iter_raw", "iter_bytes", "iter_text", "iter_lines"):
            with client.stream("GET", url) as response:
                read.append(list(getattr(response, name)()))
        whole = client.get(url)
        assert whole.elapsed.total_seconds() > 0
        assert whole.num_bytes_downloaded == len(b"".join(read[0]))
    return [b"".join(part if isinstance(part, bytes) else part.encode() for part in parts) for parts in read]


def _by_aiohttp(url: str, headers: dict[str, str]) -> list[bytes]:
    async def read_all() -> list[bytes]:
        read = []
        async with aiohttp.ClientSession(headers=headers) as session:
            for take in (
                lambda response: response.content.read(),
                lambda response: response.content.readexactly(5),
                lambda response: response.content.readline(),
                lambda response: response.read(),
            ):
                async with session.get(url) as response:
                    read.append(await take(response))
            async with session.get(url) as response:
                read.append(b"".join([part async for part in response.content.iter_chunked(7)]))
        return read

    return asyncio.run(read_all())


def _by_urllib(url: str, headers: dict[str, str]) -> list[bytes]:
    def get() -> Any:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=9)

    with get() as one, get() as two, get() as three, get() as four:
        buffer = bytearray(5)
        four.readinto(buffer)
        return [one.read(5) + one.read(), two.readline(), b"".join(three), bytes(buffer)]


READERS = [_by_requests, _by_httpx, _by_aiohttp, _by_urllib]


def _answering(status: str, *headers: str, body: bytes) -> Callable[[socket.socket], None]:
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "\r\n"]).encode()

    def answer(connection: socket.socket) -> None:
        asked = connection.recv(65536)
        if b"\r\nPOST" in b"\r\n" + asked and asked.endswith(b"\r\n\r\n"):
            connection.recv(65536)  # its body, without which closing would be a reset
        connection.sendall(head + body)

    return answer


TEXT = json.dumps({"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상"}, indent=1, ensure_ascii=False).encode()
ZIPPED = gzip.compress(TEXT, mtime=0)
KIND = "Content-Type: application/json"
ANSWERS = {
    "as it is": _answering("200 OK", KIND, f"Content-Length: {len(TEXT)}", body=TEXT),
    "chunked": _answering(
        "200 OK",
        KIND,
        "Transfer-Encoding: chunked",
        body=b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (TEXT[:5], len(TEXT) - 5, TEXT[5:]),
    ),
    "compressed": _answering("200 OK", KIND, f"Content-Length: {len(ZIPPED)}", "Content-Encoding: gzip", body=ZIPPED),
    "to the end": _answering("200 OK", KIND, body=TEXT),
    "of no type": _answering("200 OK", f"Content-Length: {len(TEXT)}", body=TEXT),
    "of bytes": _answering(
        "200 OK", "Content-Type: application/octet-stream", f"Content-Length: {len(TEXT)}", body=TEXT
    ),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_streamed_body_is_read_as_without(read: Any, kind: str, listen: Listen) -> None:
    url, headers = f"http://{listen(ANSWERS[kind])}{PRICE}", {"authorization": "Bearer x"}
    assert both(read)(url, headers) == read(url, headers)


@pytest.mark.parametrize("read", READERS)
def test_a_streamed_body_is_judged(read: Any, gateway: KisGateway) -> None:
    gateway.expire()
    assert b"MCA00000" in refresh_on_expired_token(read)(gateway.url + PRICE, headers_for(gateway))[0]
    gateway.refuse_calls("EGW00201", 1)
    assert b"MCA00000" in both(read)(gateway.url + PRICE, headers_for(gateway))[0]


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire.name != "urllib"], ids=lambda wire: wire.name)
def test_an_order_whose_answer_cannot_be_unpacked_leaves_once(wire: Wire, listen: Listen) -> None:
    came = []

    def answer(connection: socket.socket) -> None:
        came.append(1)
        _answering("200 OK", KIND, "Content-Encoding: gzip", body=b"no gzip")(connection)

    url = f"http://{listen(answer)}{ORDER}"
    endings = []
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)deco|gzip") as raised:
            both(wire.send)("POST", url, {"appkey": "PS1"}, {"PDNO": "005930"}, 5)
        endings.append(raised.type)
    assert endings[0] is endings[1]
    assert came == [1]


def test_the_headers_of_an_opener_are_the_requests(gateway: KisGateway) -> None:
    opener = urllib.request.build_opener()
    opener.addheaders = list(headers_for(gateway).items())
    gateway.expire()
    fetch = refresh_on_expired_token(lambda: json.load(opener.open(gateway.url + PRICE, timeout=9))["msg_cd"])
    assert fetch() == "MCA00000"


async def test_an_address_that_aiohttp_refuses_is_refused_by_it() -> None:
    @refresh_on_expired_token
    async def fetch() -> Any:
        async with aiohttp.ClientSession() as session:
            await session.get("http://[bad/uapi/x")

    with pytest.raises(aiohttp.InvalidURL):
        await fetch()


@ALL
def test_a_body_that_breaks_off_is_asked_for_again(wire: Wire, listen: Listen) -> None:
    answers = iter([_answering("200 OK", KIND, "Content-Length: 999", body=TEXT), ANSWERS["as it is"]])
    address = listen(lambda connection: next(answers)(connection))
    assert both(lambda: wire.send("GET", f"http://{address}{PRICE}", {}, None, 5))() == GOOD


@ALL
def test_a_body_that_breaks_off_for_good_is_an_error_of_the_library(wire: Wire, listen: Listen) -> None:
    address = listen(_answering("200 OK", KIND, "Content-Length: 999", body=TEXT))

    def error(fetch: Any) -> type:
        with pytest.raises(Exception) as raised:  # whatever it is
            fetch("GET", f"http://{address}{PRICE}", {}, None, 5)
        return raised.type

    assert error(refresh_on_expired_token(wire.send)) is error(wire.send)


def test_a_stream_of_events_is_not_waited_for(listen: Listen) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        connection.recv(1)  # until the caller hangs up

    url = f"http://{listen(answer)}{PRICE}"

    @both
    def first() -> tuple[str, Any]:
        with httpx.stream("GET", url) as by_httpx, requests.get(url, stream=True, timeout=9) as by_requests:
            return next(by_httpx.iter_lines()), next(by_requests.iter_lines(chunk_size=1))

    assert first() == ("data: 1", b"data: 1")


# The bodies of requests.


async def _post_form(url: str, headers: dict[str, str], file: io.BytesIO) -> None:
    async with aiohttp.ClientSession() as session, session.post(url, data={"file": file}, headers=headers):
        pass


def _post_by_urllib(url: str, headers: dict[str, str], file: io.BytesIO) -> None:
    length = {"Content-Length": str(len(file.getvalue()))}
    urllib.request.urlopen(urllib.request.Request(url, file, {**headers, **length}), timeout=9).close()


STREAMS: dict[str, Callable[[str, dict[str, str], io.BytesIO], object]] = {
    "requests": lambda url, headers, file: requests.post(url, data=file, headers=headers, timeout=9),
    "httpx": lambda url, headers, file: httpx.post(url, files={"file": file}, headers=headers),
    "aiohttp": lambda url, headers, file: asyncio.run(_post_form(url, headers, file)),
    "urllib": _post_by_urllib,
}


@pytest.mark.parametrize("library", STREAMS)
@pytest.mark.parametrize("code", ["EGW00123", "EGW00201"])
def test_a_body_that_cannot_be_sent_twice_is_sent_once(library: str, code: str, gateway: KisGateway) -> None:
    gateway.refuse_calls(code, status=200)
    both(STREAMS[library])(gateway.url + ORDER, headers_for(gateway), io.BytesIO(b'{"PDNO": "005930"}'))
    assert gateway.counts.calls == 1


# Redirects.


@ALL
def test_a_read_behind_a_redirect_is_renewed(wire: Wire, gateway: KisGateway) -> None:
    gateway.fail(303, times=1, headers={"Location": f"{gateway.url}{PRICE}?FID_INPUT_ISCD=000660"})
    gateway.expire_at(2)
    assert refresh_on_expired_token(lambda: wire.get(gateway))() == GOOD


# What the caller has in its hands.


def test_the_headers_and_requests_of_the_caller_stay_as_they_are(gateway: KisGateway) -> None:
    headers = headers_for(gateway)
    before = dict(headers)
    gateway.expire()

    @refresh_on_expired_token
    def fetch() -> None:
        request = httpx.Request("POST", gateway.url + ORDER, headers=headers, json={"PDNO": "1"})
        with httpx.Client() as client:
            response = client.send(request)
        assert request.headers["authorization"] == before["authorization"] != response.request.headers["authorization"]
        assert response.request.content == request.content, "it can be read by whoever logs it"
        prepared = requests.Request("GET", gateway.url + PRICE, headers=headers).prepare()
        with requests.Session() as session:
            sent = session.send(prepared, timeout=9).request
        assert prepared.headers["authorization"] == before["authorization"] != sent.headers["authorization"]

    fetch()
    assert headers == before


def test_an_answer_without_its_body_is_none_that_broke_off(listen: Listen) -> None:
    """To a HEAD: what it says of its length is of the body that a GET would get."""
    url = f"http://{listen(_answering('200 OK', KIND, 'Content-Length: 99', body=b''))}{PRICE}"
    assert both(lambda: requests.head(url, stream=True, timeout=9).content)() == b""
