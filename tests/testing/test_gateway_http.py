"""The gateway's front ends: real HTTP on loopback, and KIS's hosts intercepted in `requests`."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests

from gateway_caller import ORDER, PRICE
from kis_retry import Credentials
from kis_retry.testing import KisGateway
from patience import PATIENCE, until

REAL, PAPER = "https://openapi.koreainvestment.com:9443", "https://openapivts.koreainvestment.com:29443"


class Line:
    """A bare connection to a gateway."""

    def __init__(self, gateway: KisGateway) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port_of(gateway)), timeout=PATIENCE)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[int, bytes]:
        """Status and body."""
        status, length = int(self._file.readline().split()[1]), 0
        while row := self._file.readline().strip():
            name, _, value = row.decode("latin-1").partition(":")
            length = int(value) if name == "Content-Length" else length
        return status, self._file.read(length)

    def at_end(self) -> bool:
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def line(gateway: KisGateway) -> Iterator[Line]:
    with closing(Line(gateway)) as line:
        yield line


def port_of(gateway: KisGateway) -> int:
    return int(gateway.url.rpartition(":")[2])


def post(token: str, body: bytes) -> bytes:
    head = f"POST {ORDER} HTTP/1.1\r\nauthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def issued(gateway: KisGateway) -> str:
    return str(gateway.issue_elsewhere()["access_token"])


def get(token: str) -> bytes:
    return f"GET {PRICE}?FID_INPUT_ISCD=005930 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def ask_token(credentials: Credentials, url: str) -> requests.Response:
    body = {"grant_type": "client_credentials", "appkey": credentials.app_key, "appsecret": credentials.app_secret}
    return requests.post(f"{url}/oauth2/tokenP", json=body, timeout=10)


def call(url: str, token: str, path: str = PRICE, tr_id: str = "FHKST01010100") -> str:
    headers = {"authorization": f"Bearer {token}", "tr_id": tr_id}
    return str(
        requests.request("GET" if path == PRICE else "POST", url + path, headers=headers, timeout=10).json()["msg_cd"]
    )


# -- real HTTP


def test_header_names_leading_slashes_and_blank_parameters_do_not_matter(gateway: KisGateway) -> None:
    for name in ("authorization", "Authorization", "AUTHORIZATION"):
        headers = {name: f"Bearer {issued(gateway)}"}
        answer = requests.get(f"{gateway.url}//uapi/else?a=1&B=&c", headers=headers, timeout=10)
        assert answer.json()["output"] == {"a": "1", "B": "", "c": ""}


GARBAGE = [b"GET / HT", b"\x16\x03\x01\xff\xff\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12"]
GARBAGE += [
    b"POST / HTTP/1.1\r\n" + rest + b"\r\n\r\n" for rest in (b"Content-Length: many", b"Transfer-Encoding: chunked")
]


@pytest.mark.parametrize("data", GARBAGE)
def test_a_caller_that_speaks_something_else_or_hangs_up_does_no_harm(
    gateway: KisGateway, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(Line(gateway)) as line:
        line.send(data)
    assert requests.get(gateway.url, timeout=10).status_code == 404
    gateway.close()
    assert gateway.orders == []
    assert capfd.readouterr().err == ""


def test_latency_slows_every_answer_and_no_other_caller() -> None:
    with KisGateway(latency=0.1) as gateway:
        token = issued(gateway)
        lines = [Line(gateway) for _ in range(10)]
        started = time.monotonic()
        for line in lines:
            line.send(get(token))
        assert {line.answer()[0] for line in lines} == {200}
        assert 0.1 <= time.monotonic() - started < 1
        for line in lines:
            line.close()


# -- hanging and closing


def test_a_hanging_order_is_placed_and_its_answer_is_late(gateway: KisGateway, line: Line) -> None:
    gateway.hang("calls", seconds=30)
    line.send(post(issued(gateway), b'{"PDNO": "005930"}'))
    until(lambda: gateway.orders)
    gateway.heal()
    assert json.loads(line.answer()[1])["output"]["ODNO"] == "0000000001"
    assert len(gateway.orders) == 1


@pytest.mark.parametrize("latency", [0.0, 30.0])
def test_closing_cuts_hanging_and_slow_requests_short(latency: float) -> None:
    with KisGateway(latency=latency) as gateway, closing(Line(gateway)) as line:
        if not latency:
            gateway.hang("calls", seconds=30)
        line.send(get(issued(gateway)))
        until(lambda: gateway.counts.calls == 1)
        started = time.monotonic()
        gateway.close()
        assert line.at_end()
        assert time.monotonic() - started < 5


def test_closing_ends_idle_connections_at_once_and_frees_the_port() -> None:
    with KisGateway() as gateway:
        line = Line(gateway)
        line.send(get(issued(gateway)))
        assert line.answer()[0] == 200
        threads = [thread for thread in threading.enumerate() if "kis-gateway" in thread.name]
        started = time.monotonic()
    gateway.close()
    assert time.monotonic() - started < 0.2
    assert line.at_end()
    line.close()
    until(lambda: not any(thread.is_alive() for thread in threads))
    with pytest.raises(ConnectionRefusedError):
        Line(gateway)
    with KisGateway(host="0.0.0.0", port=port_of(gateway)) as again:
        assert again.url == gateway.url, "an address that can be called"
        assert again.credentials.app_key != gateway.credentials.app_key


# -- KIS's own hosts


def test_both_hosts_are_intercepted_with_tokens_of_their_own() -> None:
    with KisGateway(paper=True).mocked() as gateway:
        assert (gateway.url, gateway.credentials.base_url, gateway.credentials.paper) == (PAPER, PAPER, True)
        tokens = [ask_token(gateway.credentials, url).json()["access_token"] for url in (REAL, PAPER)]
        found = [call(url, token) for url in (REAL, PAPER + "/") for token in tokens]
        assert found == ["MCA00000", "EGW00121", "EGW00121", "MCA00000"]
        orders = [
            call(url, token, ORDER, tr_id)
            for url, token in zip((REAL, PAPER), tokens, strict=True)
            for tr_id in ("TTTC0012U", "VTTC0012U")
        ]
        assert orders == ["MCA00000", "EGW02004", "EGW02006", "MCA00000"]
        gateway.expire()
        assert call(PAPER, tokens[1]) == "EGW00123"
        assert (len(gateway.orders), gateway.counts.refused) == (2, 5)


def test_mocked_gateways_nest_and_end(gateway: KisGateway) -> None:
    with KisGateway().mocked() as outer:
        with KisGateway().mocked() as inner:
            assert ask_token(inner.credentials, REAL).status_code == 200
            assert ask_token(outer.credentials, REAL).status_code == 403
        assert ask_token(outer.credentials, REAL).status_code == 200
        assert requests.get(gateway.url, timeout=10).status_code == 404, "others are reached as ever"
    with pytest.raises(requests.ConnectionError):
        requests.get(outer.url + PRICE, proxies={"https": "http://127.0.0.1:9"}, timeout=10)
