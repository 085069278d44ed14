"""How a gateway's HTTP server reads, answers and ends: its connections, with what comes in in the test's hand."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests

from kis_retry.testing import KisGateway, http_server
from patience import PATIENCE, until

if TYPE_CHECKING:
    from kis_retry.testing.wire import Request, Response

MEGABYTE = 1024 * 1024


class Wire:
    """What a connection takes for its socket: it hands out what comes in piece by piece, and keeps what goes out."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.sent = b""

    def recv(self, _: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def setsockopt(self, *_: int) -> None:
        pass


def statuses(*pieces: bytes, gateway: KisGateway | None = None) -> list[int]:
    """The statuses of the answers to what came in like that."""
    wire: Any = Wire(*pieces)
    http_server._Connection(gateway or KisGateway(), wire).serve()
    return [int(answer[:3]) for answer in wire.sent.split(b"HTTP/1.1 ")[1:]]


def head_of(size: int) -> bytes:
    """The head of a request, without its end, in so many bytes."""
    return b"GET / HTTP/1.1\r\nx: ".ljust(size, b"y")


def test_headers_may_have_64_kilobytes() -> None:
    assert statuses(head_of(64 * 1024), b"\r\n\r\n") == [404]
    assert statuses(head_of(64 * 1024 + 1), b"\r\n\r\n") == [400]
    assert statuses(head_of(40_000), b"y" * 40_000, b"\r\n\r\n") == [400]


def test_a_body_may_have_a_megabyte() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    assert statuses(head % MEGABYTE, b"x" * MEGABYTE) == [404]
    assert statuses(head % (MEGABYTE + 1), b"x" * (MEGABYTE + 1)) == [400]


@pytest.mark.parametrize(
    ("first", "answers"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 2),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", 2),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 1),
        (b"GET / HTTP/1.0\r\n\r\n", 1),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 2),
        (b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n", 1),
        (b"GET /\r\n\r\n", 1),
        (b"GET / HTTP/1.1\r\nname : x\r\n\r\n", 1),
    ],
)
def test_the_next_request_is_read_unless_the_connection_is_to_end(first: bytes, answers: int) -> None:
    assert len(statuses(first, b"GET / HTTP/1.1\r\n\r\n")) == answers


@pytest.mark.parametrize("line", [b"name : x", b" name: x", b": x", b"name"])
def test_a_bad_header_line_is_refused_and_the_answer_says_that_it_is_the_last(line: bytes) -> None:
    wire: Any = Wire(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n")
    http_server._Connection(KisGateway(), wire).serve()
    assert wire.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in wire.sent


@pytest.mark.parametrize("length", [b"", b"many", b"-1", b"1.0", b"\xb2", b"9" * 8, b"9" * 5000])
def test_a_length_that_is_no_number_of_bytes_is_refused(length: bytes) -> None:
    assert statuses(b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n") == [400]


def test_what_comes_with_a_body_is_the_next_request() -> None:
    post = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    assert statuses(post + post + b"GET / HTTP/1.1\r\n\r\n") == [404, 404, 404]


def test_no_request_at_all_is_refused() -> None:
    assert statuses(b"\r\n\r\n") == [400]


@pytest.mark.parametrize(("length", "is_told"), [(0, False), (2, True)])
def test_a_caller_that_asks_is_told_to_go_on_where_there_is_a_body(length: int, is_told: bool) -> None:
    head = f"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    assert statuses(head.encode(), b"{}"[:length]) == ([100, 404] if is_told else [404])


@pytest.mark.parametrize("is_mocked", [False, True])
def test_a_parameter_may_be_blank(is_mocked: bool) -> None:
    with KisGateway().mocked() if is_mocked else KisGateway() as gateway:
        headers = {"authorization": f"Bearer {gateway.issue_elsewhere()['access_token']}"}
        answer = requests.get(f"{gateway.url}/uapi/else?a=1&B=&c", headers=headers, timeout=10)
        assert answer.json()["output"] == {"a": "1", "B": "", "c": ""}


class Asked(KisGateway):
    """It remembers for how long it was to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return super().wait(0)


def test_an_answer_that_hung_does_not_wait_any_longer() -> None:
    gateway = Asked()
    with gateway:
        gateway.hang(times=1, seconds=0)
        assert requests.get(f"{gateway.url}/uapi/else", timeout=10).status_code == 500
        assert gateway.waits == [0]


def test_no_answer_waits_in_the_socket_for_a_fuller_packet(gateway: KisGateway) -> None:
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), 10) as mine:
        mine.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert json.loads(mine.recv(65536).partition(b"\r\n\r\n")[2])["msg_cd"] == "OPSQ0002"
        (served,) = [each for each in gc.get_objects() if is_other_end(each, mine)]
        assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def is_other_end(each: object, mine: socket.socket) -> bool:
    if not isinstance(each, socket.socket) or each.fileno() < 0 or each.family != mine.family:
        return False
    try:
        return bool(each.getpeername() == mine.getsockname())
    except OSError:
        return False


class Thorough(KisGateway):
    """It thinks about each request for a moment, even where it is closed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()

    def receive(self, request: Request) -> Response:
        self.is_asked.set()
        until(lambda: self.wait(0))
        time.sleep(0.02)
        return super().receive(request)


def test_closing_waits_for_every_connection_to_end() -> None:
    gateway = Thorough()
    with gateway, socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), 10) as mine:
        mine.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert gateway.is_asked.wait(PATIENCE)
        gateway.close()
        assert "kis-gateway-connection" not in [thread.name for thread in threading.enumerate()]


def test_a_gateway_that_is_left_open_does_not_keep_a_program_from_ending(gateway: KisGateway) -> None:
    with closing(socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), 10)) as mine:
        mine.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert mine.recv(9) == b"HTTP/1.1 "
        threads = {thread.name: thread for thread in threading.enumerate() if thread.name.startswith("kis-gateway")}
        assert {name: thread.daemon for name, thread in threads.items()} == {
            "kis-gateway": True,
            "kis-gateway-connection": True,
        }
