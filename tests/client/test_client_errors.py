"""What an exception of the client says, and what it keeps to itself."""

from __future__ import annotations

import socket
import threading
import traceback
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import requests

from kis_retry import (
    ConfigurationError,
    Credentials,
    KisClient,
    MemoryTokenStore,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
)
from kis_retry.client.redaction import without_query
from kis_retry.failures import is_transient_failure
from kis_retry.stores.base import key_of
from kis_retry.testing.store_contract import token_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCOUNT = "87654321"
POLICY = RetryPolicy(issue_wait=0, transient_deadline=0)


def client_for(base_url: str, session: requests.Session | None = None) -> KisClient:
    """A client that has its token already."""
    credentials = Credentials("PSappkey0123", "c2VjcmV0", base_url=base_url)
    store = MemoryTokenStore()
    store.save(key_of(credentials), token_named("ready"))
    return KisClient(tokens=TokenManager(credentials, store=store, policy=POLICY), session=session, timeout=(1, 0.2))


def ask(client: KisClient) -> requests.RequestException:
    with pytest.raises(requests.RequestException) as caught:
        client.get("/uapi/domestic-stock/v1/trading/inquire-balance", "TTTC8434R", {"CANO": ACCOUNT, "OFL_YN": "N"})
    return caught.value


def everything_said(error: BaseException) -> str:
    """Text, repr and traceback of it and of all that it is made of."""
    said, waiting, seen = [], [error], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        said += [str(part), repr(part), *traceback.format_exception(part)]
        found = [part.__cause__, part.__context__, getattr(part, "reason", None), *part.args]
        waiting += [other for other in found if isinstance(other, BaseException)]
    return "\n".join(said)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def rude_port() -> Iterator[int]:
    """A server that hangs up on everybody after the request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(65_536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("given", [False, True], ids=["own-session", "given-session"])
def test_a_refused_connection_does_not_show_the_account(closed_port: int, given: bool) -> None:
    with requests.Session() as session:
        error = ask(client_for(f"http://127.0.0.1:{closed_port}", session if given else None))
    assert type(error) is requests.ConnectionError
    assert ACCOUNT not in everything_said(error)
    assert f"port={closed_port}" in str(error)
    assert "inquire-balance?***" in str(error), "what was asked is still to be seen"
    assert is_transient_failure(error)
    assert error.request is not None
    assert error.request.method == "GET"


def test_a_dropped_connection_does_not_show_the_account(rude_port: int) -> None:
    error = ask(client_for(f"http://127.0.0.1:{rude_port}"))
    assert isinstance(error, requests.ConnectionError)
    assert ACCOUNT not in everything_said(error)


def test_a_failed_handshake_does_not_show_the_account_and_is_known_for_what_it_is(rude_port: int) -> None:
    with requests.Session() as session:
        error = ask(client_for(f"https://127.0.0.1:{rude_port}", session))
    assert ACCOUNT not in everything_said(error)


class LayerError(Exception):
    """One of those that an exception is made of, with an address of its own as urllib3's have."""

    def __init__(self, said: object, url: object = None) -> None:
        super().__init__(said, 7)
        self.url = url


def test_no_layer_of_an_exception_shows_the_query_however_deep_and_in_whatever_circle() -> None:
    layers = [LayerError(f"GET http://kis.invalid/x{number}?CANO={ACCOUNT} failed") for number in range(30)]
    for outer, inner in pairwise(layers):
        outer.__context__ = inner
    layers[-1].__context__ = layers[0]
    cause, reason, argument = (LayerError(f"?CANO={ACCOUNT}", url) for url in (f"/x?CANO={ACCOUNT}", None, 7))
    error = requests.ConnectionError(LayerError(argument))
    error.__cause__, error.__context__ = cause, layers[0]
    cause.reason = reason  # type: ignore[attr-defined]  # urllib3's have one
    with pytest.raises(requests.ConnectionError) as caught, without_query():
        raise error
    assert caught.value is error
    assert ACCOUNT not in everything_said(error)
    assert [layer.args for layer in layers] == [(f"GET http://kis.invalid/x{n}?*** failed", 7) for n in range(30)]
    assert [part.url for part in (cause, reason, argument)] == ["/x?***", None, 7]


def test_an_exception_of_another_kind_passes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TimeoutError("the user's own time limit, with ?a=b")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", fail)
    with pytest.raises(TimeoutError, match=r"with \?a=b"):
        client_for("http://127.0.0.1:1").get("/uapi/x", "FHKST01010600")


@pytest.fixture
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """None that this machine names."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)


def set_bundle(monkeypatch: pytest.MonkeyPatch) -> requests.Session | None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    return None


def verify_with_bundle(monkeypatch: pytest.MonkeyPatch) -> requests.Session:
    session = requests.Session()
    session.verify = "/nowhere/bundle.pem"
    return session


@pytest.mark.usefixtures("_no_bundle")
@pytest.mark.parametrize("name", [set_bundle, verify_with_bundle])
def test_a_bundle_of_certificates_that_is_not_there_is_a_configuration_error_that_names_it(
    name: Callable[[pytest.MonkeyPatch], requests.Session | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_for("https://127.0.0.1:1", name(monkeypatch))
    with pytest.raises(ConfigurationError, match=r"/nowhere/bundle\.pem.*REQUESTS_CA_BUNDLE"):
        client.get("/uapi/x", "FHKST01010600")


@pytest.mark.usefixtures("_no_bundle")
def test_a_token_request_names_the_bundle_that_is_not_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nowhere/bundle.pem")
    manager = TokenManager(
        Credentials("PSappkey0123", "c2VjcmV0", base_url="https://127.0.0.1:1"), store=MemoryTokenStore(), policy=POLICY
    )
    with pytest.raises(TokenIssueError, match=r"/nowhere/bundle\.pem.*CURL_CA_BUNDLE") as caught:
        manager.token()
    assert not caught.value.retryable
