"""
Exceptions that carry no answer, as real libraries raise them at real faults of the network.

Each library meets each fault on loopback: what passes by itself is told from what does not, whatever the library makes
of it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import errno
import gc
import http.client
import ipaddress
import os
import socket
import ssl
import struct
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import certifi
import httpx
import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kis_retry import TokenIssueError, is_transient_error
from kis_retry.failures import is_transient_failure

Handler = Callable[[socket.socket], object]
Listen = Callable[[Handler], str]

# The libraries leave sockets of failed requests to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

TIMEOUT = 0.1  # seconds; a machine that needs longer meets a time-out, which passes too
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


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


# -- the libraries: each asks for a URL, trusting a file of certificates, and reads the body


def with_requests(url: str, trusted: str) -> None:
    requests.get(url, timeout=TIMEOUT, verify=trusted)


def with_httpx(url: str, trusted: str) -> None:
    httpx.get(url, timeout=TIMEOUT, verify=ssl.create_default_context(cafile=trusted), trust_env=False)


def with_httpx_async(url: str, trusted: str) -> None:
    async def get() -> None:
        verify = ssl.create_default_context(cafile=trusted)
        async with httpx.AsyncClient(timeout=TIMEOUT, verify=verify, trust_env=False) as client:
            await client.get(url)

    asyncio.run(get())


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


def with_urllib3_that_repeats(url: str, trusted: str) -> None:
    with urllib3.PoolManager(timeout=TIMEOUT, retries=1, ca_certs=trusted) as pool:
        pool.request("GET", url)


def with_urllib(url: str, trusted: str) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT, context=ssl.create_default_context(cafile=trusted)) as response:
        response.read()


CLIENTS: list[Callable[[str, str], None]] = [
    with_requests,
    with_httpx,
    with_httpx_async,
    with_aiohttp,
    with_urllib3,
    with_urllib3_that_repeats,
    with_urllib,
]

every_client = pytest.mark.parametrize("ask", CLIENTS, ids=lambda ask: ask.__name__.removeprefix("with_"))


def error_of(ask: Callable[[str, str], None], url: str, trusted: str) -> Exception:
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


FAULTS: list[Handler] = [
    closes_at_once,
    closes_unanswered,
    resets,
    closes_mid_body,
    closes_mid_chunk,
    says_what_is_no_http,
    hangs,
]
FAULTS_OF_TLS: list[Handler] = [closes_at_once, closes_unanswered, resets, breaks_off_the_handshake, hangs]
FAULTS_WITHIN_TLS: list[Handler] = [closes_unanswered, closes_mid_body, closes_mid_chunk, hangs]


class Certificate(NamedTuple):
    """Of 127.0.0.1, signed by itself: `file` has it and its key, `context` is a server's."""

    file: str
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kis_retry's tests")])
    now, day = dt.datetime.now(dt.timezone.utc), dt.timedelta(days=1)
    alone = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(alone, critical=False)
        .sign(key, hashes.SHA256())
    )
    kind = serialization
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    file.write_bytes(
        signed.public_bytes(kind.Encoding.PEM)
        + key.private_bytes(kind.Encoding.PEM, kind.PrivateFormat.PKCS8, kind.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return Certificate(str(file), context)


def within_tls(fault: Handler, certificate: Certificate, *, abruptly: bool = False) -> Handler:
    """The fault on a connection whose handshake went well; abruptly: without TLS's own goodbye."""

    def handle(connection: socket.socket) -> None:
        with certificate.context.wrap_socket(connection, server_side=True) as inner:
            fault(inner)
            if abruptly:
                os.close(inner.detach())

    return handle


# -- what passes by itself


@every_client
@pytest.mark.parametrize("fault", FAULTS)
def test_a_connection_that_is_dropped_or_hangs_passes(
    fault: Handler, ask: Callable[[str, str], None], listen: Listen, certificate: Certificate
) -> None:
    error = error_of(ask, f"http://{listen(fault)}/", certificate.file)
    assert is_transient_error(error), repr(error)


@every_client
@pytest.mark.parametrize("fault", FAULTS_OF_TLS)
def test_a_handshake_that_is_dropped_or_hangs_passes(
    fault: Handler, ask: Callable[[str, str], None], listen: Listen, certificate: Certificate
) -> None:
    error = error_of(ask, f"https://{listen(fault)}/", certificate.file)
    assert is_transient_error(error), repr(error)


@every_client
@pytest.mark.parametrize(
    ("fault", "abruptly"),
    # The client has hung up before a server that hangs says goodbye, or not.
    [(fault, abruptly) for fault in FAULTS_WITHIN_TLS for abruptly in ([False] if fault is hangs else [False, True])],
)
def test_a_tls_connection_that_is_dropped_or_hangs_passes(
    *, fault: Handler, abruptly: bool, ask: Callable[[str, str], None], listen: Listen, certificate: Certificate
) -> None:
    address = listen(within_tls(fault, certificate, abruptly=abruptly))
    error = error_of(ask, f"https://{address}/", certificate.file)
    assert is_transient_error(error), repr(error)


@every_client
def test_a_refused_connection_passes(ask: Callable[[str, str], None], certificate: Certificate) -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        error = error_of(ask, f"http://127.0.0.1:{bound_but_deaf.getsockname()[1]}/", certificate.file)
    assert is_transient_error(error), repr(error)


@every_client
def test_a_name_that_is_not_found_passes(ask: Callable[[str, str], None], certificate: Certificate) -> None:
    error = error_of(ask, "http://nowhere.invalid/", certificate.file)
    assert is_transient_error(error), repr(error)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        asyncio.exceptions.TimeoutError(),  # on Python 3.10 this and the next are classes of their own
        concurrent.futures.TimeoutError(),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        ConnectionResetError(),
        BrokenPipeError(),
        http.client.RemoteDisconnected(""),
        http.client.IncompleteRead(b""),
        OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)),
        OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)),
        OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        urllib.error.URLError(TimeoutError()),
        urllib.error.URLError(urllib.error.URLError(TimeoutError())),
        requests.exceptions.ProxyError(),
        requests.exceptions.ConnectTimeout(),
        httpx.PoolTimeout(""),
        httpx.ProxyError(""),
        aiohttp.ServerTimeoutError(),
        aiohttp.ServerDisconnectedError(),
    ],
    ids=repr,
)
def test_an_exception_that_says_that_nobody_answered_passes(error: Exception) -> None:
    assert is_transient_error(error)


def test_an_exception_of_somebody_elses_passes_if_it_is_one_of_these() -> None:
    class Away(requests.exceptions.ReadTimeout):
        pass

    assert is_transient_error(Away())


@pytest.mark.parametrize(("status", "passes"), [(503, True), (502, True), (429, True), (500, False), (404, False)])
def test_a_status_that_a_library_itself_has_repeated_in_vain_is_judged_as_that_status(
    *, status: int, passes: bool, listen: Listen
) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 {status} Away\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    url = f"http://{listen(refuse)}/"
    repeats = urllib3.Retry(1, status_forcelist=[status])
    with urllib3.PoolManager(retries=repeats) as pool, pytest.raises(urllib3.exceptions.MaxRetryError) as direct:
        pool.request("GET", url)
    with requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=repeats))
        with pytest.raises(requests.exceptions.RetryError) as wrapped:
            session.get(url, timeout=TIMEOUT)
    assert [is_transient_error(caught.value) for caught in (direct, wrapped)] == [passes] * 2


# -- what does not


@pytest.mark.usefixtures("patient")
@every_client
def test_a_certificate_that_nobody_trusts_is_final(
    ask: Callable[[str, str], None], listen: Listen, certificate: Certificate, tmp_path: Path
) -> None:
    address = listen(within_tls(closes_unanswered, certificate))
    error = error_of(ask, f"https://{address}/", certifi.where())
    assert not is_transient_error(error), repr(error)


@pytest.mark.usefixtures("patient")
@every_client
def test_a_certificate_of_another_host_is_final(
    ask: Callable[[str, str], None], listen: Listen, certificate: Certificate
) -> None:
    port = listen(within_tls(closes_unanswered, certificate)).partition(":")[2]
    error = error_of(ask, f"https://localhost:{port}/", certificate.file)
    assert not is_transient_error(error), repr(error)


@pytest.mark.usefixtures("patient")
@every_client
def test_a_server_that_does_not_speak_tls_is_final(
    ask: Callable[[str, str], None], listen: Listen, certificate: Certificate
) -> None:
    error = error_of(ask, f"https://{listen(says_what_is_no_http)}/", certificate.file)
    assert not is_transient_error(error), repr(error)


@pytest.mark.usefixtures("patient")
@every_client
@pytest.mark.parametrize("url", ["http://", "http://[::1"])
def test_an_invalid_url_is_final(url: str, ask: Callable[[str, str], None], certificate: Certificate) -> None:
    error = error_of(ask, url, certificate.file)
    assert not is_transient_error(error), repr(error)


@pytest.mark.usefixtures("patient")
def test_a_redirect_in_a_ring_is_final(listen: Listen) -> None:
    def send_on(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    url = f"http://{listen(send_on)}/"
    with requests.Session() as session, pytest.raises(requests.TooManyRedirects) as caught:
        session.get(url, timeout=TIMEOUT)
    assert not is_transient_error(caught.value)
    with urllib3.PoolManager(retries=1) as pool, pytest.raises(urllib3.exceptions.MaxRetryError) as direct:
        pool.request("GET", url)
    assert not is_transient_error(direct.value)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("timed out"),
        KeyError("rt_cd"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
        PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
        OSError("Could not find a suitable TLS CA certificate bundle"),
        ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
        ssl.SSLCertVerificationError(1, "certificate verify failed"),
        requests.exceptions.SSLError("certificate verify failed"),
        requests.exceptions.InvalidSchema(),
        requests.exceptions.JSONDecodeError("Expecting value", "<html>502 Bad Gateway</html>", 0),
        requests.exceptions.HTTPError("502 Server Error"),
        httpx.LocalProtocolError(""),
        httpx.UnsupportedProtocol(""),
        httpx.DecodingError(""),
        aiohttp.InvalidURL("nowhere"),
        aiohttp.ServerFingerprintMismatch(b"", b"", "127.0.0.1", 443),
        urllib.error.URLError("unknown url type: ftp2"),
        urllib.error.URLError(FileNotFoundError()),
        urllib3.exceptions.SSLError("certificate verify failed"),
        TokenIssueError("the token endpoint could not be reached"),
    ],
    ids=repr,
)
def test_every_other_exception_is_final(error: Exception) -> None:
    assert not is_transient_error(error)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(503), asyncio.CancelledError(), GeneratorExit()])
def test_what_is_no_exception_of_a_program_is_never_transient(error: BaseException) -> None:
    assert not is_transient_error(error)
    assert not is_transient_failure(error)


@pytest.mark.parametrize(
    ("cause", "passes"),
    [(aiohttp.http_exceptions.BadHttpMessage("no such thing"), True), (ValueError(), False), (None, False)],
)
def test_an_answer_that_was_no_http_passes_and_one_that_was_refused_does_not(
    cause: Exception | None, passes: bool
) -> None:
    request: Any = None
    error = aiohttp.ClientResponseError(request, (), status=400)
    error.__cause__ = cause
    assert is_transient_error(error) is passes
