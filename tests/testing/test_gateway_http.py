"""The gateway's two front ends: real HTTP on loopback, and KIS's hosts intercepted in `requests`."""

from __future__ import annotations

import gc
import json
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests
from freezegun import freeze_time

from kis_retry.credentials import PAPER_URL, REAL_URL
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kis_retry.credentials import Credentials

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


@pytest.fixture
def gateway() -> Iterator[KisGateway]:
    with KisGateway() as gateway:
        yield gateway


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def line(gateway: KisGateway) -> Iterator[Line]:
    with closing(Line(gateway)) as line:
        yield line


class Line:
    """A bare connection to a gateway."""

    def __init__(self, gateway: KisGateway) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port_of(gateway)), timeout=10)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with their names as they came, and body."""
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while row := self._file.readline().strip():
            name, _, value = row.decode("latin-1").partition(":")
            headers[name] = value.strip()
        return status, headers, self._file.read(int(headers.get("Content-Length", "0")))

    def at_end(self) -> bool:
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def port_of(gateway: KisGateway) -> int:
    return int(gateway.url.rpartition(":")[2])


def ask_token(credentials: Credentials, url: str | None = None, **rest: Any) -> requests.Response:
    body = {
        "grant_type": "client_credentials",
        "appkey": credentials.app_key,
        "appsecret": credentials.app_secret,
    }
    return requests.post(f"{url or credentials.base_url}/oauth2/tokenP", json=body, timeout=10, **rest)


def call(session: requests.Session, url: str, token: str | None, timeout: float = 10) -> requests.Response:
    return session.get(
        url + PRICE,
        params={"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"},
        headers={"authorization": f"Bearer {token}", "tr_id": "FHKST01010100"},
        timeout=timeout,
    )


def get(token: str, *headers: str, path: str = PRICE) -> bytes:
    lines = [f"GET {path}?FID_INPUT_ISCD=005930 HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *headers]
    return "\r\n".join([*lines, "\r\n"]).encode()


def issued(gateway: KisGateway) -> str:
    return str(gateway.issue_elsewhere()["access_token"])


# -- real HTTP


def test_a_token_lives_dies_and_is_replaced_over_http(gateway: KisGateway, session: requests.Session) -> None:
    assert gateway.credentials.base_url == gateway.url
    token = ask_token(gateway.credentials).json()["access_token"]
    answer = call(session, gateway.url, token)
    assert (answer.status_code, answer.json()["output"]["stck_shrn_iscd"]) == (200, "005930")
    gateway.expire()
    answer = call(session, gateway.url, token)
    assert (answer.status_code, answer.json()["msg_cd"]) == (500, "EGW00123")
    token = ask_token(gateway.credentials).json()["access_token"]
    assert call(session, gateway.url, token).status_code == 200
    assert gateway.counts == {
        "calls": 3,
        "answered": 2,
        "refused": 1,
        "token_requests": 2,
        "tokens_issued": 2,
        "token_requests_refused": 0,
    }


def test_the_threads_of_the_gateway_follow_the_frozen_clock(session: requests.Session) -> None:
    with freeze_time("2026-11-24 00:00:00") as frozen, KisGateway() as gateway:
        first = ask_token(gateway.credentials).json()
        assert first["access_token_token_expired"] == "2026-11-25 09:00:00"
        assert ask_token(gateway.credentials).json()["error_code"] == "EGW00133"
        frozen.move_to("2026-11-24 23:59:59")
        assert call(session, gateway.url, first["access_token"]).status_code == 200
        frozen.move_to("2026-11-25 00:00:00")
        assert call(session, gateway.url, first["access_token"]).json()["msg_cd"] == "EGW00123"


def test_the_headers_make_a_named_tuple_as_the_official_sample_does(
    gateway: KisGateway, session: requests.Session
) -> None:
    answer = call(session, gateway.url, issued(gateway))
    own = {name: value for name, value in answer.headers.items() if name.islower()}
    header: Any = namedtuple("header", own.keys())(**own)  # noqa: PYI024  # as the sample does it
    assert (header.tr_id, header.tr_cont) == ("FHKST01010100", "")
    assert header.gt_uid
    assert answer.headers["content-type"].startswith("application/json")
    assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_header_names_and_leading_slashes_do_not_matter(gateway: KisGateway) -> None:
    for name in ("authorization", "Authorization", "AUTHORIZATION"):
        headers = {name: f"Bearer {issued(gateway)}"}
        assert requests.get(f"{gateway.url}/{PRICE}", headers=headers, timeout=10).status_code == 200


def test_many_requests_go_over_one_connection(gateway: KisGateway, line: Line) -> None:
    token = issued(gateway)
    for _ in range(20):
        line.send(get(token))
        assert line.answer()[0] == 200
    assert gateway.counts.answered == 20


def test_requests_may_follow_each_other_without_waiting(gateway: KisGateway, line: Line) -> None:
    line.send(get(issued(gateway)) + get("nobody's"))
    assert (line.answer()[0], line.answer()[0]) == (200, 500)


def test_a_request_may_come_in_pieces(gateway: KisGateway, line: Line) -> None:
    body = json.dumps({"PDNO": "005930", "name": "삼성전자"}, ensure_ascii=False).encode()
    head = f"POST {ORDER} HTTP/1.1\r\nauthorization: Bearer {issued(gateway)}\r\nContent-Length: {len(body)}\r\n\r\n"
    data = head.encode() + body
    for start in range(0, len(data), 7):
        line.send(data[start : start + 7])
    assert json.loads(line.answer()[2])["output"]["ODNO"] == "0000000001"
    assert gateway.orders == [{"PDNO": "005930", "name": "삼성전자"}]


def test_a_caller_that_asks_before_sending_the_body_is_told_to_go_on(gateway: KisGateway, line: Line) -> None:
    line.send(b"POST /uapi/hashkey HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n")
    assert line.answer()[0] == 100
    line.send(b'{"a":1}')
    assert json.loads(line.answer()[2])["BODY"] == {"a": 1}


@pytest.mark.parametrize(
    "request_line_and_headers",
    [
        "GET / HTTP/1.1\r\nConnection: close",
        "GET / HTTP/1.1\r\nconnection: Close",
        "GET / HTTP/1.0",
    ],
)
def test_a_connection_is_closed_on_request(line: Line, request_line_and_headers: str) -> None:
    line.send(f"{request_line_and_headers}\r\n\r\n".encode())
    status, headers, _ = line.answer()
    assert (status, headers["Connection"]) == (404, "close")
    assert line.at_end()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n",
        b"GET http://elsewhere/ HTTP/1.1\r\n\r\n",
        b"PUT / HTTP/1.1\r\n\r\n",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\xff\xff\r\n\r\n",
    ],
)
def test_a_bad_request_gets_400_and_the_connection_is_closed(gateway: KisGateway, line: Line, data: bytes) -> None:
    line.send(data)
    status, _, body = line.answer()
    assert (status, json.loads(body)["rt_cd"]) == (400, "1")
    assert line.at_end()
    assert gateway.counts.calls == 0


def test_headers_without_an_end_get_400(line: Line) -> None:
    line.send(b"GET / HTTP/1.1\r\nx: " + b"y" * 65536)
    assert line.answer()[0] == 400


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12"])
def test_a_caller_that_hangs_up_halfway_does_no_harm(gateway: KisGateway, data: bytes) -> None:
    with closing(Line(gateway)) as line:
        line.send(data)
    assert requests.get(gateway.url, timeout=10).status_code == 404
    assert gateway.counts.calls == 1


def test_many_connections_at_once_are_served(gateway: KisGateway) -> None:
    token = issued(gateway)
    lines = [Line(gateway) for _ in range(100)]
    for line in lines:
        line.send(get(token))
    assert {line.answer()[0] for line in lines} == {200}
    for line in lines:
        line.close()
    assert gateway.counts.answered == 100


def test_latency_slows_every_answer() -> None:
    with KisGateway(latency=0.05) as gateway, closing(Line(gateway)) as line:
        for _ in range(2):
            started = time.perf_counter()
            line.send(get(issued(gateway)))
            assert line.answer()[0] == 200
            assert time.perf_counter() - started >= 0.05


def test_a_slow_answer_does_not_hold_up_the_next_caller() -> None:
    with KisGateway(latency=60) as gateway:
        lines = [Line(gateway) for _ in range(5)]
        for line in lines:
            line.send(get(issued(gateway)))
        wait_for_calls(gateway, 5)
    for line in lines:
        line.close()


def test_a_dropped_call_is_a_connection_error(gateway: KisGateway, session: requests.Session) -> None:
    token = issued(gateway)
    gateway.drop("calls", 1)
    with pytest.raises(requests.ConnectionError):
        call(session, gateway.url, token)
    assert call(session, gateway.url, token).status_code == 200
    assert (gateway.counts.calls, gateway.counts.answered) == (2, 1)


def test_a_dropped_token_request_issues_nothing(gateway: KisGateway) -> None:
    gateway.drop("tokens", 1)
    with pytest.raises(requests.ConnectionError):
        ask_token(gateway.credentials)
    assert ask_token(gateway.credentials).status_code == 200
    assert (gateway.counts.token_requests, gateway.counts.tokens_issued) == (2, 1)


def test_a_hanging_request_is_answered_when_its_seconds_are_over(gateway: KisGateway, session: Any) -> None:
    token = issued(gateway)
    gateway.hang("calls", 1, seconds=0.1)
    started = time.perf_counter()
    assert call(session, gateway.url, token).status_code == 200
    assert time.perf_counter() - started >= 0.1


def test_a_hanging_request_whose_caller_has_gone_never_reaches_kis(gateway: KisGateway) -> None:
    token = issued(gateway)
    gateway.hang("calls", 1, seconds=30)
    line = Line(gateway)
    line.send(get(token))
    wait_for_calls(gateway, 1)
    line.close()
    gateway.heal()
    wait_for_threads("kis-gateway-connection")
    assert (gateway.counts.calls, gateway.counts.answered) == (1, 0)


def test_a_connection_outlives_a_request_that_hung(gateway: KisGateway, line: Line) -> None:
    token = issued(gateway)
    gateway.hang(times=1, seconds=0.01)
    for _ in range(5):
        line.send(get(token))
        assert line.answer()[0] == 200


def test_heal_lets_a_hanging_request_go_on(gateway: KisGateway, line: Line) -> None:
    token = issued(gateway)
    gateway.hang("calls", seconds=30)
    line.send(get(token))
    wait_for_calls(gateway, 1)
    gateway.heal()
    assert line.answer()[0] == 200


def test_a_hanging_order_that_reached_kis_is_placed_and_its_answer_is_late(gateway: KisGateway, line: Line) -> None:
    body = b'{"PDNO": "005930"}'
    head = f"POST {ORDER} HTTP/1.1\r\nauthorization: Bearer {issued(gateway)}\r\nContent-Length: {len(body)}\r\n\r\n"
    gateway.hang("calls", seconds=30, reached=True)
    line.send(head.encode() + body)
    wait_for_calls(gateway, 1)
    assert len(gateway.orders) == 1
    gateway.heal()
    assert json.loads(line.answer()[2])["output"]["ODNO"] == "0000000001"
    assert len(gateway.orders) == 1


def test_closing_cuts_hanging_and_slow_requests_short() -> None:
    for latency in (0.0, 30.0):
        with KisGateway(latency=latency) as gateway:
            if not latency:
                gateway.hang("calls", seconds=30)
            line = Line(gateway)
            line.send(get(issued(gateway)))
            wait_for_calls(gateway, 1)
            started = time.perf_counter()
        assert time.perf_counter() - started < 5
        assert line.at_end()
        line.close()


def wait_for_threads(name: str) -> None:
    deadline = time.perf_counter() + 10
    while any(thread.name == name for thread in threading.enumerate()):
        assert time.perf_counter() < deadline, "the thread did not end"
        time.sleep(0.005)


def wait_for_calls(gateway: KisGateway, calls: int) -> None:
    deadline = time.perf_counter() + 10
    while gateway.counts.calls < calls:
        assert time.perf_counter() < deadline, "the call did not arrive"
        time.sleep(0.005)


def test_a_garbled_answer_arrives_byte_for_byte(gateway: KisGateway, session: requests.Session) -> None:
    gateway.garble("calls", 1, body=b"\xff<half")
    answer = call(session, gateway.url, "t")
    assert (answer.status_code, answer.content) == (502, b"\xff<half")


def test_a_status_without_a_name_can_be_sent(gateway: KisGateway, session: requests.Session) -> None:
    gateway.garble("calls", 1, status=599)
    assert call(session, gateway.url, "t").status_code == 599


def test_closing_ends_idle_connections_and_frees_the_port() -> None:
    with KisGateway() as gateway:
        line = Line(gateway)
        line.send(get(issued(gateway)))
        assert line.answer()[0] == 200
        threads = [thread for thread in threading.enumerate() if "kis-gateway" in thread.name]
        assert threads
    assert line.at_end()
    line.close()
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(ConnectionRefusedError):
        Line(gateway)
    gc.collect()  # a socket left open would warn here
    with KisGateway(port=port_of(gateway)) as again:
        assert again.url == gateway.url
        assert again.credentials.app_key != gateway.credentials.app_key


def test_a_gateway_is_opened_once(gateway: KisGateway) -> None:
    with pytest.raises(RuntimeError, match="can be opened once"):
        gateway.__enter__()
    with pytest.raises(RuntimeError, match="can be opened once"):
        gateway.mocked().__enter__()
    assert requests.get(gateway.url, timeout=10).status_code == 404


def test_a_closed_gateway_is_not_opened_again() -> None:
    with KisGateway() as gateway:
        pass
    with pytest.raises(RuntimeError, match="can be opened once"), gateway:
        pass
    gateway.close()


def test_gateways_run_side_by_side_and_know_nothing_of_each_other(
    gateway: KisGateway, session: requests.Session
) -> None:
    with KisGateway() as other:
        assert other.url != gateway.url
        assert call(session, other.url, issued(gateway)).json()["msg_cd"] == "EGW00121"
        assert ask_token(gateway.credentials, other.url).json()["error_code"] == "EGW00103"


def test_a_connection_that_is_gone_before_it_is_accepted_does_not_keep_close_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = KisGateway()
    with gateway:
        accepting = threading.Event()
        server: Any = gateway._server
        accept = server._accept

        def accept_too_late() -> None:
            server._listener.accept()[0].close()
            accepting.set()
            accept()

        monkeypatch.setattr(server, "_accept", accept_too_late)
        address = ("127.0.0.1", port_of(gateway))
        with socket.create_connection(address, 5):
            assert accepting.wait(5)
        closing_it = threading.Thread(target=gateway.close, daemon=True)
        closing_it.start()
        closing_it.join(10)
        closed = not closing_it.is_alive()
        with suppress(OSError):  # or a server that waits for it would wait for ever
            socket.create_connection(address, 5).close()
        assert closed


def test_a_connection_for_which_there_is_no_thread_is_closed_and_the_next_one_served(
    gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_threads(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        with closing(Line(gateway)) as line:
            assert line.at_end()
    with closing(Line(gateway)) as line:
        line.send(get(issued(gateway)))
        assert line.answer()[0] == 200


def test_wait_ends_when_the_gateway_is_closed(gateway: KisGateway) -> None:
    assert not gateway.wait(0)
    timer = threading.Timer(0.05, gateway.close)
    timer.start()
    assert gateway.wait(10)
    timer.join()


def test_neither_responses_nor_pytest_is_needed_over_http() -> None:
    script = """
import sys
sys.modules["responses"] = sys.modules["pytest"] = sys.modules["_pytest"] = None
from urllib.error import HTTPError
from urllib.request import urlopen
from kis_retry.testing import KisGateway
with KisGateway() as gateway:
    try:
        urlopen(gateway.url)
    except HTTPError as error:
        print(error.code)
        error.close()
for attempt in (lambda: KisGateway().mocked(), lambda: __import__("kis_retry.testing.plugin")):
    try:
        attempt()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert lines[0] == "404", done.stderr
    assert ["kis-retry[testing]" in line for line in lines[1:]] == [True, True]


def test_without_responses_mocking_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kis_retry.testing.mock", raising=False)
    monkeypatch.setitem(sys.modules, "responses", None)
    with pytest.raises(ImportError, match=r"needs `responses`: pip install 'kis-retry\[testing\]'"):
        KisGateway().mocked()


def test_brackets_nested_deeply_do_no_harm(gateway: KisGateway, line: Line) -> None:
    body = b"[" * 500_000
    head = f"POST {ORDER} HTTP/1.1\r\nauthorization: Bearer {issued(gateway)}\r\nContent-Length: {len(body)}\r\n\r\n"
    line.send(head.encode() + body)
    assert line.answer()[0] == 200
    assert gateway.orders == [{}]


def test_it_listens_where_it_is_told_and_gives_an_address_that_can_be_called() -> None:
    with KisGateway(host="0.0.0.0", app_key="my-key", app_secret="my-secret") as gateway:
        assert gateway.url.startswith("http://127.0.0.1:")
        assert ask_token(gateway.credentials).status_code == 200
        assert (gateway.credentials.app_key, gateway.credentials.app_secret) == ("my-key", "my-secret")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return socket.has_dualstack_ipv6()
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_on_every_address_it_is_reached_by_either_protocol() -> None:
    with KisGateway(host="::") as gateway:
        assert gateway.url.startswith("http://[::1]:")
        for host in ("[::1]", "127.0.0.1"):
            assert requests.get(f"http://{host}:{port_of(gateway)}", timeout=10).status_code == 404


def test_no_crowd_gets_more_calls_through_than_the_limit() -> None:
    with KisGateway(rate_limit=18, clock=lambda: 1_795_478_400.5) as gateway:
        token = issued(gateway)
        begin = threading.Barrier(8)
        found: list[int] = []

        def work() -> None:
            with requests.Session() as session:
                begin.wait(30)
                found.extend(call(session, gateway.url, token).status_code for _ in range(10))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert (found.count(200), found.count(500)) == (18, 62)
        assert gateway.faults_met == {"over_limit": 62}
        assert len(gateway.arrivals) == 80


def test_an_outage_that_drops_connections_shows_over_http(gateway: KisGateway, session: requests.Session) -> None:
    token = issued(gateway)
    gateway.outage(status=None)
    with pytest.raises(requests.ConnectionError):
        call(session, gateway.url, token)
    gateway.heal()
    assert call(session, gateway.url, token).status_code == 200


# -- the mocked hosts


def test_the_real_host_is_intercepted(session: requests.Session) -> None:
    with KisGateway().mocked() as gateway:
        assert gateway.url == gateway.credentials.base_url == REAL_URL
        token = ask_token(gateway.credentials).json()["access_token"]
        answer = call(session, REAL_URL, token)
        assert answer.json()["output"]["stck_shrn_iscd"] == "005930"
        assert {name for name in answer.headers if name.islower()} == {"tr_id", "tr_cont", "gt_uid"}
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert int(answer.headers["Content-Length"]) == len(answer.content)
        gateway.expire_at(2)
        assert call(session, REAL_URL + "/", token).json()["msg_cd"] == "EGW00123"
        assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)


def test_the_paper_host_is_intercepted_with_tokens_of_its_own(session: requests.Session) -> None:
    with KisGateway().mocked() as gateway:
        paper = ask_token(gateway.credentials, PAPER_URL).json()["access_token"]
        real = ask_token(gateway.credentials, REAL_URL).json()["access_token"]
        found = [call(session, url, token).json()["msg_cd"] for url in (REAL_URL, PAPER_URL) for token in (real, paper)]
        assert found == ["MCA00000", "EGW00121", "EGW00121", "MCA00000"]


@pytest.mark.parametrize("body", [b'{"n": 1}', '{"n": 1}'])
def test_an_order_is_placed_through_mocked_hosts(body: Any) -> None:
    with KisGateway().mocked() as gateway:
        headers: dict[str, Any] = {"authorization": f"Bearer {issued(gateway)}".encode()}
        requests.post(REAL_URL + ORDER, data=body, headers=headers, timeout=10)
        assert gateway.orders == [{"n": 1}]


def test_mocked_hosts_drop_hang_and_garble(session: requests.Session) -> None:
    with KisGateway().mocked() as gateway:
        gateway.drop("calls", 1)
        with pytest.raises(requests.ConnectionError) as dropped:
            call(session, REAL_URL, "t")
        assert not isinstance(dropped.value, requests.Timeout)
        gateway.hang("calls", 1, seconds=3600)
        with pytest.raises(requests.Timeout):
            call(session, REAL_URL, "t")
        gateway.garble("calls", 1, body=b"<html>busy")
        answer = call(session, REAL_URL, "t")
        assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (502, b"<html>busy", "text/html")
        gateway.hang("tokens", 1)
        with pytest.raises(requests.Timeout):
            ask_token(gateway.credentials)
        assert ask_token(gateway.credentials).status_code == 200


def test_mocked_hosts_are_slow_too(session: requests.Session) -> None:
    with KisGateway(latency=0.05).mocked():
        started = time.perf_counter()
        call(session, REAL_URL, "t")
        assert time.perf_counter() - started >= 0.05


def test_mocked_hosts_are_for_every_thread() -> None:
    with KisGateway().mocked() as gateway:
        token = issued(gateway)
        found: list[int] = []

        def work() -> None:
            with requests.Session() as session:
                found.extend(call(session, REAL_URL, token).status_code for _ in range(10))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert found == [200] * 40
        assert gateway.counts.answered == 40


def test_beside_the_mocked_hosts_only_loopback_is_reached(gateway: KisGateway) -> None:
    with KisGateway().mocked():
        assert requests.get(gateway.url, timeout=10).status_code == 404
        with pytest.raises(requests.ConnectionError, match="refused by Responses"):
            requests.get("http://kis.example/", timeout=10)


def test_mocked_gateways_nest_and_leave_no_trace() -> None:
    send = requests.adapters.HTTPAdapter.send
    with KisGateway().mocked() as outer:
        with KisGateway().mocked() as inner:
            assert ask_token(inner.credentials).status_code == 200
            assert ask_token(outer.credentials).status_code == 403
        assert ask_token(outer.credentials).status_code == 200
    assert requests.adapters.HTTPAdapter.send is send


def test_an_error_inside_a_mocked_gateway_comes_out_and_leaves_no_trace() -> None:
    send = requests.adapters.HTTPAdapter.send
    gateway = KisGateway()
    with pytest.raises(LookupError), gateway.mocked():
        raise LookupError
    assert requests.adapters.HTTPAdapter.send is send
    assert gateway.wait(0)
