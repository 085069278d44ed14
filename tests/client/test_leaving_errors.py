"""What leaves a client when something goes wrong: the same exception, and nothing secret in it or in its frames."""

from __future__ import annotations

import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests

from clients import Asking
from kis_retry import Credentials, KisClient, TokenIssueError, is_transient_error
from kis_retry.testing import KisGateway
from loopback import TOKEN, Loopback, Reply
from sources import NumberedTokens

KEY, SECRET, ACCOUNT = "PSappkey0123", "c2VjcmV0c2VjcmV0", "87654321"
BALANCE = "/uapi/domestic-stock/v1/trading/inquire-balance"


@pytest.fixture
def client(at_host: Callable[..., Asking]) -> Asking:
    """A client that has its token, waits for nothing and repeats nothing."""
    made = at_host(timeout=(1, 0.2), transient_deadline=0, order_deadline=0)
    made.fetch_domestic_price("005930")
    return made


def failing(listen: Any, host: Loopback, client: Asking, how: str) -> None:
    """Let the next request of the client fail."""
    if how == "no JSON":
        host.replies = [Reply([])]
        return
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    address = {
        "refused": lambda: f"http://127.0.0.1:{port}",
        "dropped": lambda: f"http://{listen(lambda connection: connection.recv(65_536))}",
        "silent": lambda: f"http://{listen(lambda connection: connection.recv(65_536) and connection.recv(1))}",
        "no TLS": lambda: f"https://{listen(lambda connection: connection.recv(65_536))}",
    }[how]()
    keys = client.client.credentials
    client.client.credentials = Credentials(keys.app_key, keys.app_secret, base_url=address)


FAILURES = ["refused", "dropped", "silent", "no TLS", "no JSON"]


def all_that_shows(error: BaseException) -> str:
    """What a log, an error collector or a person would see of it: texts, attributes, a pickle, and locals of frames."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown = ["".join(told.format()), repr(vars(error)), repr(error.args), repr(pickle.dumps(error))]
    request = getattr(error, "request", None)
    if request is not None:
        body = getattr(request, "body", b"") or getattr(request, "content", b"")
        shown += [repr(dict(request.headers)), str(request.url), repr(body)]
    return "\n".join(shown)


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("sending", ["get", "post"])
def test_nothing_secret_leaves_with_an_error(
    sending: str, how: str, client: Asking, host: Loopback, listen: Any
) -> None:
    failing(listen, host, client, how)
    try:
        getattr(client, sending)(BALANCE, "TTTC8434R", {"CANO": ACCOUNT})
    except Exception as error:
        found = all_that_shows(error)
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    for secret in (KEY, SECRET, TOKEN):
        assert secret not in found
    assert not [name for name in frames if name in ("request", "send", "urlopen", "handle_async_request")]


@pytest.mark.parametrize("how", [how for how in FAILURES if how != "no JSON"])
def test_it_stays_what_it_was(how: str, client: Asking, host: Loopback, listen: Any) -> None:
    failing(listen, host, client, how)
    with pytest.raises(Exception) as caught:  # of requests or httpx
        client.get(BALANCE, "TTTC8434R", {"CANO": ACCOUNT})
    error = caught.value
    assert type(error).__module__.partition(".")[0] in ("requests", "httpx")
    assert is_transient_error(error)
    assert ACCOUNT not in f"{error} {error.request.url}"  # type: ignore[attr-defined]  # both have one
    assert error.request.method == "GET"  # type: ignore[attr-defined]  # as above
    assert str(error.request.url).endswith(BALANCE)  # type: ignore[attr-defined]  # as above
    assert how != "refused" or not isinstance(error, requests.RequestException) or "inquire-balance?***" in str(error)
    assert type(pickle.loads(pickle.dumps(error))) is type(error)


def test_a_response_that_an_error_carries_tells_of_no_request(gateway: KisGateway) -> None:
    def refuse(response: requests.Response, **_: object) -> None:
        response.raise_for_status()

    with requests.Session() as session:
        session.hooks["response"].append(refuse)
        client = KisClient(gateway.credentials, session=session)
        client.access_token  # noqa: B018  # the first token
        gateway.fail(404, 1)
        with pytest.raises(requests.HTTPError) as caught:
            client.get(BALANCE, "TTTC8434R", {"CANO": ACCOUNT})
    response = caught.value.response
    assert response.status_code == 404
    assert dict(response.request.headers) == {}
    assert ACCOUNT not in f"{response.url} {caught.value}"


def test_the_error_of_a_first_token_has_no_frames_of_its_request(make: Callable[..., Asking]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = make(Credentials(KEY, SECRET, base_url=f"http://127.0.0.1:{port}"), issue_wait=0)
    with pytest.raises(TokenIssueError) as caught:
        client.fetch_domestic_price("005930")
    assert SECRET not in all_that_shows(caught.value)


def test_a_certificate_that_is_not_trusted_is_told_with_what_to_set() -> None:
    class Untrusting(requests.Session):
        def request(self, *_: Any, **__: Any) -> Any:
            raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

    credentials = Credentials(KEY, SECRET, base_url="https://127.0.0.1:1")
    client = KisClient(credentials, tokens=NumberedTokens(), session=Untrusting())
    with pytest.raises(requests.exceptions.SSLError, match=r"REQUESTS_CA_BUNDLE and session="):
        client.fetch_domestic_price("005930")
