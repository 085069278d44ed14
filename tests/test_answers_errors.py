"""Exceptions: those that carry an answer, and those that real libraries raise at real faults of the network."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import contextlib
import errno
import gc
import io
import os
import socket
import ssl
import struct
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import certifi
import httpx
import pytest
import requests
import urllib3

from kis_retry import TokenIssueError, is_token_expired_error, is_transient_error
from kis_retry.answers import CODES, Meaning, Verdict, judge_error

Handler = Callable[[socket.socket], object]
Listen = Callable[[Handler], str]
Ask = Callable[[str, str], None]

# The libraries leave sockets of failed requests to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

CERTIFICATE = str(Path(__file__).parent / "stores" / "certificates" / "loopback.pem")  # of 127.0.0.1, with its key
TIMEOUT = 0.1  # seconds; a machine that needs longer meets a time-out, which passes too
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PASSING = (Meaning.TRANSIENT, Meaning.NEVER_LEFT)


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_to_the_next_module() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a time-out would be another failure than the one that is meant."""
    monkeypatch.setitem(globals(), "TIMEOUT", 20)


def meaning_of(error: BaseException) -> Meaning:
    return judge_error(error).meaning


# -- exceptions that carry an answer, or nothing of it but a status


def errors_of(status: int, body: bytes) -> list[Any]:
    """The errors that `raise_for_status()` makes of an answer."""
    response = requests.Response()
    response.status_code, response.raw = status, io.BytesIO(body)
    request = httpx.Request("GET", "http://127.0.0.1/")
    return [
        requests.HTTPError(response=response),
        httpx.HTTPStatusError("", request=request, response=httpx.Response(status, content=body)),
    ]


@pytest.mark.parametrize("code", [*CODES, "APBK0919"])
def test_an_http_error_is_judged_by_the_answer_that_it_carries(code: str) -> None:
    meaning = CODES.get(code, Meaning.FINAL)
    for error in errors_of(500, f'{{"rt_cd": "1", "msg_cd": "{code}"}}'.encode()):
        verdict = judge_error(error)
        assert (verdict.meaning, verdict.code, verdict.error) == (meaning, code, type(error).__name__)
        assert not verdict.unanswered
        assert is_token_expired_error(error) is (meaning is Meaning.EXPIRED)
        assert is_transient_error(error) is (meaning in (Meaning.LIMITED, Meaning.TRANSIENT))


@pytest.mark.parametrize(
    ("status", "meaning"), [(404, Meaning.FINAL), (429, Meaning.TRANSIENT), (500, Meaning.TRANSIENT)]
)
def test_an_http_error_of_a_page_is_judged_by_its_status(status: int, meaning: Meaning) -> None:
    for error in errors_of(status, b"<html>"):
        assert judge_error(error) == Verdict(meaning, error=type(error).__name__, unanswered=True)


@pytest.mark.parametrize("status", [404, 429, 500, 502])
async def test_an_error_that_keeps_a_status_alone_is_judged_by_it_unless_kis_may_have_spoken(
    status: int, listen: Listen
) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<p>".encode())

    url = f"http://{listen(answer)}/"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await session.get(url, raise_for_status=True)
    with pytest.raises(urllib.error.HTTPError) as opened:
        await asyncio.to_thread(urllib.request.urlopen, url, timeout=5)
    with requests.Session() as session_of_requests:
        adapter = requests.adapters.HTTPAdapter(max_retries=urllib3.Retry(1, status_forcelist=[status]))
        session_of_requests.mount("http://", adapter)
        with pytest.raises(requests.exceptions.RetryError) as repeated:
            await asyncio.to_thread(session_of_requests.get, url, timeout=5)
    passing = status in (429, 502)
    assert [is_transient_error(caught.value) for caught in (raised, opened, repeated)] == [passing] * 3
    with opened.value as error:
        assert error.read() == b"<p>", "judging it has consumed nothing"


def test_the_answer_that_an_error_carries_outweighs_its_type() -> None:
    answers = [errors_of(500, b'{"msg_cd": "EGW00301"}')[0].response, errors_of(200, b"{}")[0].response]
    found = [meaning_of(requests.ConnectionError(response=answer)) for answer in answers]
    assert found == [Meaning.UNCERTAIN, Meaning.TRANSIENT]


class Hostile(requests.ConnectionError):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_an_error_of_which_nothing_can_be_read_and_what_is_no_error_do_not_pass() -> None:
    assert judge_error(Hostile()) == Verdict(Meaning.FINAL, error="Hostile", unanswered=True)
    assert not is_transient_error({"msg_cd": "EGW00201"})
    assert not is_token_expired_error({"msg_cd": "EGW00123"})


GROUP: Any = getattr(builtins, "ExceptionGroup", None)


@pytest.mark.skipif(GROUP is None, reason="exception groups came with Python 3.11")
def test_a_group_passes_if_every_exception_in_it_does() -> None:
    away, refused = httpx.ReadTimeout(""), httpx.ConnectError("")
    assert meaning_of(GROUP("", [away, refused, GROUP("", [away])])) is Meaning.TRANSIENT
    assert meaning_of(GROUP("", [away, GROUP("", [ValueError()])])) is Meaning.FINAL


# -- the libraries: each asks for a URL, trusting a file of certificates, and reads the body


def with_requests(url: str, trusted: str) -> None:
    requests.get(url, timeout=TIMEOUT, verify=trusted)


def with_httpx(url: str, trusted: str) -> None:
    httpx.get(url, timeout=TIMEOUT, verify=ssl.create_default_context(cafile=trusted), trust_env=False)


def with_aiohttp(url: str, trusted: str) -> None:
    async def get() -> None:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.get(url, ssl=ssl.create_default_context(cafile=trusted)) as response,
        ):
            await response.read()

    asyncio.run(get())


def with_urllib3(url: str, trusted: str) -> None:
    with urllib3.PoolManager(timeout=TIMEOUT, retries=False, ca_certs=trusted) as pool:
        pool.request("GET", url)


def with_urllib(url: str, trusted: str) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT, context=ssl.create_default_context(cafile=trusted)) as response:
        response.read()


CLIENTS: list[Ask] = [with_requests, with_httpx, with_aiohttp, with_urllib3, with_urllib]
every_client = pytest.mark.parametrize("ask", CLIENTS, ids=lambda ask: ask.__name__.removeprefix("with_"))


def error_of(ask: Ask, url: str, trusted: str = CERTIFICATE) -> Exception:
    with pytest.raises(Exception) as caught:  # which one it is, is what the libraries differ in
        ask(url, trusted)
    return caught.value


# -- the faults


def closes_at_once(connection: socket.socket) -> None:
    pass


def closes_unanswered(connection: socket.socket) -> None:
    connection.recv(65_536)


def resets(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes_mid_body(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"rt_cd')


def closes_mid_chunk(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(HEAD + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"rt_cd')


def says_what_is_no_http(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"no such thing\r\n\r\n")


def hangs(connection: socket.socket) -> None:
    while connection.recv(65_536):  # until the client has had enough
        pass


def breaks_off_the_handshake(connection: socket.socket) -> None:
    connection.recv(10)
    connection.sendall(b"\x16\x03\x03\x00\x50ab")


FAULTS: list[Handler] = [closes_at_once, closes_unanswered, resets, closes_mid_body, closes_mid_chunk]
FAULTS += [says_what_is_no_http, hangs]
FAULTS_OF_TLS: list[Handler] = [closes_at_once, resets, breaks_off_the_handshake, hangs]
FAULTS_WITHIN_TLS: list[Handler] = [closes_unanswered, closes_mid_body, closes_mid_chunk]


def within_tls(fault: Handler) -> Handler:
    """The fault on a connection whose handshake went well, and that ends without TLS's own goodbye."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            fault(inner)
            os.close(inner.detach())

    return handle


# -- what passes by itself


@every_client
@pytest.mark.parametrize("fault", FAULTS)
def test_a_connection_that_is_dropped_or_hangs_may_have_carried_the_request(
    fault: Handler, ask: Ask, listen: Listen
) -> None:
    verdict = judge_error(error_of(ask, f"http://{listen(fault)}/"))
    assert (verdict.meaning, verdict.unanswered) == (Meaning.TRANSIENT, True), verdict


@every_client
@pytest.mark.parametrize("fault", FAULTS_OF_TLS)
def test_a_handshake_that_is_dropped_or_hangs_passes(fault: Handler, ask: Ask, listen: Listen) -> None:
    error = error_of(ask, f"https://{listen(fault)}/")
    assert meaning_of(error) in PASSING, repr(error)


@every_client
@pytest.mark.parametrize("fault", FAULTS_WITHIN_TLS)
def test_a_tls_connection_that_is_dropped_may_have_carried_the_request(
    fault: Handler, ask: Ask, listen: Listen, patient: None
) -> None:
    error = error_of(ask, f"https://{listen(within_tls(fault))}/")
    assert meaning_of(error) is Meaning.TRANSIENT, repr(error)


@every_client
def test_where_there_is_no_connection_nothing_has_left(ask: Ask, patient: None) -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        refused = error_of(ask, f"http://127.0.0.1:{bound_but_deaf.getsockname()[1]}/")
    unknown = error_of(ask, "http://nowhere.invalid/")
    assert [meaning_of(error) for error in (refused, unknown)] == [Meaning.NEVER_LEFT] * 2, (refused, unknown)


@pytest.fixture
def full() -> Iterator[str]:
    """The address of a listener that takes no more connections, so that connecting takes for ever."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@every_client
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_where_there_is_no_connection_in_time_nothing_has_left(scheme: str, ask: Ask, full: str) -> None:
    error = error_of(ask, f"{scheme}://{full}/")
    # aiohttp's time for all of a request does not say which part took it.
    assert meaning_of(error) is (Meaning.TRANSIENT if ask is with_aiohttp else Meaning.NEVER_LEFT), repr(error)


async def test_aiohttp_says_when_it_was_the_connection_that_took_too_long(full: str) -> None:
    timeout = aiohttp.ClientTimeout(sock_connect=TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with pytest.raises(aiohttp.ServerTimeoutError) as caught:
            await session.get(f"http://{full}/")
    assert meaning_of(caught.value) is Meaning.NEVER_LEFT


DROPPED = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
UNREACHABLE = OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (asyncio.exceptions.TimeoutError(), Meaning.TRANSIENT),  # a class of its own on Python 3.10, and the next
        (concurrent.futures.TimeoutError(), Meaning.TRANSIENT),
        (BrokenPipeError(), Meaning.TRANSIENT),
        (UNREACHABLE, Meaning.TRANSIENT),
        (DROPPED, Meaning.TRANSIENT),
        (ConnectionRefusedError(), Meaning.NEVER_LEFT),
        (urllib.error.URLError(TimeoutError()), Meaning.NEVER_LEFT),
        (urllib.error.URLError(UNREACHABLE), Meaning.NEVER_LEFT),
        (urllib.error.URLError(DROPPED), Meaning.TRANSIENT),
        (requests.exceptions.SSLError(DROPPED), Meaning.TRANSIENT),
        (httpx.PoolTimeout(""), Meaning.NEVER_LEFT),
        (httpx.ProxyError(""), Meaning.TRANSIENT),
        (type("Away", (requests.ReadTimeout,), {})(), Meaning.TRANSIENT),
        (type("ConnectTimeout", (Exception,), {"__module__": "httpx2"})(), Meaning.NEVER_LEFT),
        (type("NetworkError", (Exception,), {"__module__": "httpx2._x"})(), Meaning.TRANSIENT),
        # and what does not pass
        (ValueError("timed out"), Meaning.FINAL),
        (OSError(DROPPED), Meaning.FINAL),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), Meaning.FINAL),
        (requests.exceptions.JSONDecodeError("Expecting value", "<html>502 Bad Gateway</html>", 0), Meaning.FINAL),
        (aiohttp.ServerFingerprintMismatch(b"", b"", "127.0.0.1", 443), Meaning.FINAL),
        (urllib.error.URLError("unknown url type: ftp2"), Meaning.FINAL),
        (TokenIssueError("the token endpoint could not be reached"), Meaning.FINAL),
        *((kind(), Meaning.FINAL) for kind in (KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit)),
    ],
    ids=repr,
)  # fmt: skip
def test_the_type_of_an_exception_says_whether_anybody_answered(error: BaseException, meaning: Meaning) -> None:
    assert judge_error(error) == Verdict(meaning, error=type(error).__name__, unanswered=True)
    assert is_transient_error(error) is (meaning in PASSING)


# -- what does not


@every_client
def test_a_certificate_that_is_not_trusted_or_of_another_host_is_final(ask: Ask, listen: Listen, patient: None) -> None:
    address = listen(within_tls(closes_unanswered))
    untrusted = error_of(ask, f"https://{address}/", certifi.where())
    elsewhere = error_of(ask, f"https://localhost:{address.partition(':')[2]}/")
    assert [meaning_of(error) for error in (untrusted, elsewhere)] == [Meaning.FINAL] * 2, (untrusted, elsewhere)


@every_client
def test_a_server_without_tls_and_an_invalid_url_are_final(ask: Ask, listen: Listen, patient: None) -> None:
    for url in (f"https://{listen(says_what_is_no_http)}/", "http://", "http://[::1"):
        error = error_of(ask, url)
        assert meaning_of(error) is Meaning.FINAL, repr(error)


# -- what an exception was made of


def test_the_cause_of_an_error_of_ours_and_what_was_handled_when_it_was_raised_say_nothing_of_it() -> None:
    error = TokenIssueError("no token")
    error.__cause__ = requests.ConnectionError()
    assert meaning_of(error) is Meaning.FINAL
    for context in (ssl.SSLCertVerificationError(1, "certificate verify failed"), ConnectionRefusedError()):
        timeout = requests.exceptions.ReadTimeout()
        timeout.__context__ = context
        assert meaning_of(timeout) is Meaning.TRANSIENT
