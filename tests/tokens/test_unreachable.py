"""Why the token endpoint could not be reached: each cause as it really happens, and none that shows a secret."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests

from kis_retry import Credentials, KisRetryError, MemoryTokenStore, RetryPolicy, TokenIssueError, TokenManager
from kis_retry.tokens.issuer import TokenIssuer
from kis_retry.tokens.unreachable import cause_of, host_of, is_final
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kis_retry.testing import KisGateway


@pytest.fixture
def server(listen: Callable[[Callable[[socket.socket], object]], str]) -> Callable[..., str]:
    """Serve connections in a way of the test's; the base URL."""
    return lambda handle: f"http://{listen(handle)}"


def failure(base_url: str, timeout: float = 5, **options: Any) -> TokenIssueError:
    credentials = Credentials("PSkey-PSkey", "s3cr3t-s3cr3t", base_url=base_url)
    with pytest.raises(TokenIssueError) as caught:
        TokenIssuer(credentials, **options).issue(timeout)
    text = str(caught.value)
    assert "PSkey" not in text
    assert "s3cr3t" not in text
    assert "oauth2" not in text
    assert host_of(base_url) in text
    return caught.value


def test_a_name_that_is_not_known() -> None:
    error = failure("https://no-such-host.invalid")
    assert str(error) == (
        "the token endpoint at no-such-host.invalid could not be reached: its name could not be resolved (DNS)"
    )
    assert error.retryable


def test_a_refused_connection() -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        error = failure(f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert str(error).endswith(": the connection was refused")
    assert error.retryable


def test_an_answer_that_does_not_come(server: Any) -> None:
    over = threading.Event()
    url = server(lambda connection: over.wait(PATIENCE))
    error = failure(url, timeout=0.1)
    over.set()
    assert str(error).rpartition(": ")[2] in ("no answer in time", "no complete answer in time")
    assert error.retryable


def test_a_token_request_gets_half_a_second_however_little_of_issue_wait_is_left() -> None:
    waited: list[tuple[float, float]] = []

    class Away(requests.Session):
        def request(self, *_: object, timeout: Any = None, **__: object) -> Any:
            waited.append(timeout)
            raise requests.ConnectTimeout

    policy = RetryPolicy(issue_wait=0.3)
    manager = TokenManager(Credentials("k", "s"), store=MemoryTokenStore(), policy=policy, session=Away())
    with pytest.raises(TokenIssueError):
        manager.token()
    assert set(waited) == {(0.5, 0.5)}


def test_a_connection_that_is_dropped(server: Any) -> None:
    error = failure(server(lambda connection: connection.recv(10)))
    assert str(error).endswith(": the connection was dropped")
    assert error.retryable


@pytest.mark.parametrize("part", ["head", "body"])
def test_an_answer_that_trickles_is_given_up_when_the_time_is_over(part: str, server: Any) -> None:
    """A byte now and then keeps every time-out of the socket from running out."""
    over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
        connection.sendall(head if part == "head" else head + b"\r\n")
        for _ in range(600):
            connection.sendall(b"x")
            if over.wait(0.05):
                break

    url = server(trickle)
    began = time.monotonic()
    error = failure(url, timeout=0.2)
    over.set()
    assert time.monotonic() - began < 15, "it trickles for thirty seconds"
    assert str(error).endswith(": no complete answer in time")
    assert error.retryable


def test_a_host_without_tls(server: Any) -> None:
    url = server(lambda connection: connection.sendall(b"no TLS here\r\n"))
    error = failure(url.replace("http", "https"))
    assert "TLS" in str(error)
    assert error.retryable


def test_a_certificate_that_is_not_accepted_is_final() -> None:
    error = requests.exceptions.SSLError()
    error.__cause__ = ssl.SSLCertVerificationError()
    assert cause_of(error) == "its TLS certificate was not accepted"
    assert is_final(error)
    assert not is_final(requests.exceptions.SSLError())


def test_a_ca_bundle_that_is_not_there_is_final_and_no_bare_error(gateway: KisGateway) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = "/no/such/bundle.pem"
        error = failure("https://127.0.0.1:1", session=session)
    assert "REQUESTS_CA_BUNDLE" in str(error)
    assert not error.retryable


def test_a_ca_bundle_without_a_certificate_is_final(gateway: KisGateway, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("no certificate", "ascii")
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(bundle)
        error = failure(gateway.url.replace("http:", "https:"), session=session)
    assert "holds none (REQUESTS_CA_BUNDLE" in str(error)
    assert not error.retryable


def test_a_proxy_that_does_not_answer() -> None:
    with closing(socket.socket()) as bound, requests.Session() as session:
        bound.bind(("127.0.0.1", 0))
        session.trust_env = False
        session.proxies["https"] = f"http://127.0.0.1:{bound.getsockname()[1]}"
        error = failure("https://kis.invalid", session=session)
    assert str(error).endswith(": the proxy did not let the request through")


def test_a_revocation_names_them_too() -> None:
    from kis_retry import AccessToken

    token = AccessToken("abc", dt.datetime(2100, 1, 1, tzinfo=dt.timezone.utc))
    credentials = Credentials("key", "secret", base_url="https://no-such-host.invalid")
    with pytest.raises(KisRetryError, match=r"no-such-host\.invalid could not be reached: .*DNS"):
        TokenIssuer(credentials).revoke(token, 5)


def test_a_host_is_named_without_user_and_password() -> None:
    assert host_of("https://user:password@kis.example:9443/path?appkey=x") == "kis.example:9443"


def test_an_error_of_another_kind_is_told_by_its_type() -> None:
    assert cause_of(LookupError("s3cr3t")) == "LookupError"
    assert is_final(LookupError())
    looped = requests.ConnectionError()
    looped.__context__ = looped
    assert cause_of(looped) == "ConnectionError"
    assert not is_final(looped)


# --- KIS's clock


@pytest.mark.parametrize(("date", "ahead"), [(b"Date: Tue, 24 Nov 2099 00:00:00 GMT\r\n", True), (b"", None)])
def test_the_clock_of_kis_is_read_from_its_answers(date: bytes, ahead: bool | None, server: Any) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        body = b'{"error_code":"EGW00133"}'
        connection.sendall(b"HTTP/1.1 403 X\r\n" + date + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    issuer = TokenIssuer(Credentials("key", "secret", base_url=server(refuse)))
    with pytest.raises(TokenIssueError):
        issuer.issue(5)
    if ahead is None:
        assert issuer.clock_ahead is None
    else:
        assert issuer.clock_ahead == pytest.approx(4_099_161_600 - time.time(), abs=5)
