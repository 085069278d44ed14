"""How a token request is sent, to the last option, and what the issuer learns beside the token."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from clocks import FakeClock, tokens_on
from kis_retry import Credentials, KisRetryError, TokenIssueError, TokenIssueLimited
from kis_retry.tokens import issuer as tokens_issuer
from kis_retry.tokens.issuer import TokenIssuer
from kis_retry.tokens.single_flight import SingleFlight
from patience import PATIENCE, until
from refreshes import token_until

if TYPE_CHECKING:
    from collections.abc import Iterator

GIVEN = Credentials("PSkey", "s3cr3t", base_url="https://kis.example:9443")
GOOD = {"access_token": "eyJ.abc.sig", "access_token_token_expired": "2026-11-24 09:00:00"}


@pytest.fixture(autouse=True)
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock(1_795_392_000.0)) as clock:  # 2026-11-23 00:00:00 UTC
        yield clock


class Session:
    """Of a user's, who answers every request alike."""

    def __init__(self, body: Any = GOOD, status: int = 200, headers: Any = None) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self._answer = SimpleNamespace(status_code=status, json=lambda: body, headers=headers)

    def post(self, url: str, **options: Any) -> Any:
        self.sent.append((url, options))
        return self._answer


def issuer_of(session: Any) -> TokenIssuer:
    return TokenIssuer(GIVEN, session)


@pytest.mark.parametrize(
    ("timeout", "connecting"), [(0.5, 0.5), (3, 3), (3.05, 3.05), (3.06, 3.05), (10, 3.05), (120, 3.05)]
)
def test_a_request_holds_what_kis_wants_and_connecting_takes_3_05_seconds_at_most(
    timeout: float, connecting: float
) -> None:
    session = Session()
    assert issuer_of(session).issue(timeout).value == "eyJ.abc.sig"
    options = {
        "json": {"grant_type": "client_credentials", "appkey": "PSkey", "appsecret": "s3cr3t"},
        "headers": {"Cache-Control": "no-store"},
        "timeout": (connecting, timeout),
        "allow_redirects": False,
    }
    assert session.sent == [("https://kis.example:9443/oauth2/tokenP", options)]


def test_a_revocation_holds_the_token_beside_the_keys() -> None:
    session = Session({})
    issuer_of(session).revoke(token_until(2_000, "m1"), 7)
    ((url, options),) = session.sent
    assert url == "https://kis.example:9443/oauth2/revokeP"
    assert options["json"] == {"appkey": "PSkey", "appsecret": "s3cr3t", "token": "m1"}
    assert options["timeout"] == (3.05, 7)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (199, {}, "HTTP 199, no error code"),
        (201, {}, "HTTP 201, no error code"),
        (500, None, "HTTP 500, no error code"),
        (500, ["EGW00105"], "HTTP 500, no error code"),
        (403, {"error_code": "EGW00105"}, "HTTP 403, EGW00105"),
        (403, {"msg_cd": "EGW00105"}, "HTTP 403, EGW00105"),
    ],
)
def test_every_status_but_200_leaves_a_token_unrevoked(status: int, body: Any, said: str) -> None:
    with pytest.raises(KisRetryError) as caught:
        issuer_of(Session(body, status)).revoke(token_until(2_000), 7)
    assert str(caught.value) == f"the token was not revoked: {said}"


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Mon, 23 Nov 2026 00:00:00 GMT", 0),
        ("Mon, 23 Nov 2026 00:00:01 GMT", 1),
        ("Sun, 22 Nov 2026 23:00:00 GMT", -3_600),
        ("Mon, 23 Nov 2026 09:00:00 +0900", 0),
        ("soon", None),
        ("", None),
        ("Mon, 23 Nov 99999999999 00:00:00 GMT", None),
    ],
)
def test_the_clock_of_kis_is_ahead_by_what_its_answer_says(date: str, ahead: float | None) -> None:
    issuer = issuer_of(Session(headers={"Date": date}))
    assert issuer.clock_ahead is None
    issuer.issue(7)
    assert issuer.clock_ahead == ahead


@pytest.mark.parametrize("headers", [None, {}, {"Date": None}, {"Date": 5}])
def test_an_answer_without_a_date_says_nothing_of_the_clock_any_more(headers: Any) -> None:
    issuer = issuer_of(Session(headers=headers))
    issuer.clock_ahead = 5.0
    issuer.issue(7)
    assert issuer.clock_ahead is None


def test_a_refusal_says_what_time_it_is_too() -> None:
    issuer = issuer_of(Session({"error_code": "EGW00133"}, 403, {"Date": "Mon, 23 Nov 2026 00:01:00 GMT"}))
    with pytest.raises(TokenIssueLimited):
        issuer.issue(7)
    assert issuer.clock_ahead == 60


@pytest.mark.parametrize("error", [ValueError, RecursionError])
def test_an_answer_that_cannot_be_read_is_no_object(error: type[Exception]) -> None:
    def unreadable() -> None:
        raise error

    session = Session()
    session._answer.json = unreadable
    with pytest.raises(TokenIssueError, match="without a JSON object"):
        issuer_of(session).issue(7)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [(requests.ConnectionError(), True), (requests.exceptions.InvalidURL(), False), (LookupError(), False)],
)
def test_what_a_session_raises_is_told_with_the_host_alone(error: Exception, retryable: bool) -> None:
    class Failing(Session):
        def post(self, url: str, **options: Any) -> Any:
            raise error

    with pytest.raises(TokenIssueError) as caught:
        issuer_of(Failing()).issue(7)
    name = type(error).__name__
    assert str(caught.value) == f"the token endpoint at kis.example:9443 could not be reached: {name}"
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("given", [True, False], ids=["a session of the user's", "its own"])
def test_a_request_that_does_not_end_is_given_up_and_the_next_one_is_not_sent_after_it(
    given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, over = threading.Event(), threading.Event()

    class Endless(Session):
        def post(self, url: str, **options: Any) -> Any:
            entered.set()
            assert over.wait(PATIENCE)
            return super().post(url, **options)

    def wait_in_vain(*_: object) -> bool:
        assert entered.wait(PATIENCE)
        return False

    endless = Endless()
    sessions = iter([endless, Session()])
    monkeypatch.setattr(requests, "Session", lambda: next(sessions))
    issuer = issuer_of(endless if given else None)
    with monkeypatch.context() as patch:
        patch.setattr(SingleFlight, "wait", wait_in_vain)
        with pytest.raises(TokenIssueError) as caught:
            issuer.issue(7)
    over.set()
    until(lambda: endless.sent)
    assert str(caught.value) == (
        "the token endpoint at kis.example:9443 could not be reached: no complete answer in time"
    )
    assert caught.value.retryable is True
    assert issuer.issue(7).value == "eyJ.abc.sig"
    assert len(endless.sent) == (2 if given else 1)


def test_one_session_of_its_own_carries_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [Session(), Session()]
    waiting = iter(sessions)
    monkeypatch.setattr(requests, "Session", lambda: next(waiting))
    issuer = issuer_of(None)
    issuer.issue(7)
    issuer.issue(7)
    assert [len(session.sent) for session in sessions] == [2, 0]
    issuer.after_fork()
    issuer.issue(7)
    assert [len(session.sent) for session in sessions] == [2, 1], "the connections of the first are the parent's"


def test_after_a_fork_a_given_session_goes_on_with_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    monkeypatch.setattr(tokens_issuer, "leave_connections_to_parent", left.append)
    session = Session()
    issuer_of(session).after_fork()
    issuer_of(None).after_fork()
    assert left == [session]
