"""One token request: what each answer to it means, and that no error of it holds a secret."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from kis_retry import (
    AccessToken,
    Credentials,
    MemoryTokenStore,
    RetryPolicy,
    TokenIssueError,
    TokenIssueLimited,
    TokenManager,
)
from kis_retry.testing import KisGateway
from kis_retry.tokens.issuer import read_answer

CERTIFICATE = Path(__file__).parent.parent / "stores" / "certificates" / "loopback.pem"
NOW = datetime(2026, 11, 23, 0, 0, 0, tzinfo=timezone.utc)
STAMP = "2026-11-24 09:00:00"
EXPIRY = datetime(2026, 11, 24, 0, 0, 0, tzinfo=timezone.utc)
VALUE = "eyJ0eXAiOiJKV1Qi.eyJzdWIiOiJ0b2tlbiJ9.c2lnbmF0dXJl"
GOOD = {"access_token": VALUE, "token_type": "Bearer", "expires_in": 86400, "access_token_token_expired": STAMP}


def answer(**changes: Any) -> dict[str, Any]:
    """A good answer with some entries changed; None takes one away."""
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not None}


def refused(status: int, body: object) -> TokenIssueError:
    with pytest.raises(TokenIssueError) as caught:
        read_answer(status, body, NOW)
    return caught.value


# --- a token


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_the_stamp_is_seoul_time_wherever_the_machine_stands(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        token = read_answer(200, GOOD, NOW)
    time.tzset()
    assert token == AccessToken(VALUE, EXPIRY)
    assert token.expires_at.utcoffset() == timedelta(hours=9)


@pytest.mark.parametrize(
    "stamp",
    [None, "soon", "2026-13-24 09:00:00", "2026-11-24T09:00:00+09:00", 5, [], "0001-01-01 00:00:00"],
)
def test_without_a_readable_stamp_expires_in_counts_from_now(stamp: Any) -> None:
    assert read_answer(200, answer(access_token_token_expired=stamp), NOW).expires_at == NOW + timedelta(days=1)


@pytest.mark.parametrize("expires_in", [None, "a day", 0, -1, [], float("nan"), float("inf"), 10**400])
def test_a_token_without_any_usable_expiry_is_an_error_that_says_so(expires_in: Any) -> None:
    error = refused(200, answer(access_token_token_expired=None, expires_in=expires_in))
    assert "neither access_token_token_expired nor expires_in" in str(error)
    assert (error.code, error.retryable) == (None, False)


@pytest.mark.parametrize("value", [f"Bearer {VALUE}", f"bearer {VALUE}", f" {VALUE}\n"])
def test_a_token_is_kept_without_its_scheme(value: str) -> None:
    assert read_answer(200, answer(access_token=value), NOW).value == VALUE


# --- a refusal


@pytest.mark.parametrize("status", [403, 500, 200])
def test_once_a_minute_is_an_error_of_its_own_and_too_many_calls_a_second_pass(status: int) -> None:
    error = refused(status, {"error_code": "EGW00133", "error_description": "접근토큰 발급 잠시 후 다시 시도하세요"})
    assert (type(error), error.code, error.retryable) == (TokenIssueLimited, "EGW00133", True)
    assert refused(status, {"rt_cd": "1", "msg_cd": "EGW00201"}).retryable


@pytest.mark.parametrize(
    ("code", "advice"), [("EGW00103", "KIS_APP_KEY"), ("EGW00105", "KIS_APP_SECRET"), ("EGW00115", "error code table")]
)
@pytest.mark.parametrize("status", [403, 500])
def test_a_verdict_of_kis_is_final_and_says_what_to_do(code: str, advice: str, status: int) -> None:
    error = refused(status, {"error_code": code, "error_description": "유효하지 않은 AppKey입니다."})
    assert type(error) is TokenIssueError
    assert (error.code, error.retryable) == (code, False)
    assert advice in str(error)
    assert f"({code}, HTTP {status})" in str(error)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(500, True), (503, True), (499, False), (429, True), (200, True), (400, False), (403, False), (302, False)],
)
@pytest.mark.parametrize("body", [{}, {"error_code": "eyJ.eyJ.sig"}, {"access_token": ""}])
def test_an_object_without_a_verdict_is_transient_where_the_server_failed(
    status: int, retryable: bool, body: dict[str, Any]
) -> None:
    error = refused(status, body)
    assert (error.code, error.retryable) == (None, retryable)
    assert f"HTTP {status} without a token" in str(error)


@pytest.mark.parametrize("body", [None, "<html>", [GOOD]])
@pytest.mark.parametrize("status", [200, 403])
def test_what_is_no_object_came_from_somebody_else_and_may_pass(status: int, body: object) -> None:
    error = refused(status, body)
    assert (error.code, error.retryable) == (None, True)


@pytest.mark.parametrize("value", [f"{VALUE}\r\nX-Evil: 1", f"{VALUE} {VALUE}", f"{VALUE}\0"])
def test_a_token_that_could_break_out_of_its_header_is_refused_and_not_shown(value: str) -> None:
    error = refused(200, answer(access_token=value))
    assert "something else than a token" in str(error)
    assert VALUE not in str(error)


# --- over the wire


def failure_of(credentials: Credentials, *, session: requests.Session | None = None, **policy: Any) -> TokenIssueError:
    """The one failure of one try, which shows no secret and has nothing behind it."""
    manager = TokenManager(
        credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=0, **policy), session=session
    )
    with pytest.raises(TokenIssueError) as caught:
        manager.token()
    error = caught.value
    said = f"{error!r} {error} {vars(error)}"
    assert credentials.app_key not in said
    assert credentials.app_secret not in said
    assert (error.__cause__, error.__context__) == (None, None)
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        shown = "" if "/tests/" in frame.f_code.co_filename else repr(list(frame.f_locals.values()))
        assert credentials.app_secret not in shown, "in a frame that error trackers show"
    return error


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda gateway: gateway.drop("tokens"), "could not be reached: the connection was dropped"),
        (lambda gateway: gateway.hang("tokens", seconds=30), "could not be reached: no answer in time"),
        (lambda gateway: gateway.close(), "could not be reached: the connection was refused"),
        (lambda gateway: gateway.fail(502, where="tokens"), "answered HTTP 502 without a JSON object"),
        (lambda gateway: gateway.fail(200, where="tokens", body=b"[" * 10_000), "without a JSON object"),
    ],
)
def test_what_passes_is_said_in_words(fault: Callable[[KisGateway], object], words: str, gateway: KisGateway) -> None:
    credentials = gateway.credentials
    fault(gateway)
    error = failure_of(credentials, issue_timeout=0.2 if "no answer" in words else 10)
    assert words in str(error)
    assert error.retryable
    gateway.heal()


@pytest.mark.parametrize("status", [200, 500, 502])
def test_a_proxy_that_echoes_the_request_does_not_get_it_into_an_error(status: int, gateway: KisGateway) -> None:
    given = gateway.credentials
    echo = json.dumps({"appkey": given.app_key, "appsecret": given.app_secret})
    for body in (f"<html>{echo}</html>", echo, f'{{"error_code": {echo}}}', ""):
        gateway.fail(status, 1, "tokens", body=body.encode())
        assert failure_of(given).retryable


def test_a_name_that_cannot_be_resolved_may_pass_and_an_address_that_is_none_is_final() -> None:
    error = failure_of(Credentials("PSkey-PSkey", "s3cr3t-s3cr3t", base_url="https://kis.invalid"))
    assert str(error).endswith("its name could not be resolved (DNS)")
    assert error.retryable
    error = failure_of(Credentials("PSkey-PSkey", "s3cr3t-s3cr3t", base_url="http://user:pass@127.0.0.1:port"))
    assert not error.retryable
    assert "pass" not in str(error)


def test_a_certificate_that_is_not_accepted_is_final_and_says_what_to_set(listen: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def shake_hands(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True):
            pass

    credentials = Credentials("PSkey-PSkey", "s3cr3t-s3cr3t", base_url=f"https://{listen(shake_hands)}")
    error = failure_of(credentials)
    assert not error.retryable
    assert "session=" in str(error)
    assert "REQUESTS_CA_BUNDLE" in str(error)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_is_none_is_named(
    content: str | None, listen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    url = f"https://{listen(lambda connection: connection.recv(1))}"
    error = failure_of(Credentials("PSkey-PSkey", "s3cr3t-s3cr3t", base_url=url))
    assert not error.retryable
    assert "REQUESTS_CA_BUNDLE" in str(error)


def test_a_session_whose_hook_raises_for_status_hides_no_verdict(gateway: KisGateway) -> None:
    with requests.Session() as session:
        session.hooks["response"].append(lambda response, **_: response.raise_for_status())
        gateway.refuse_tokens("EGW00105")
        assert failure_of(gateway.credentials, session=session).code == "EGW00105"


def test_a_redirect_is_not_followed_since_the_body_holds_the_secret(gateway: KisGateway) -> None:
    gateway.fail(307, where="tokens", headers={"Location": f"{gateway.url}/oauth2/elsewhere"})
    assert "HTTP 307" in str(failure_of(gateway.credentials))
    assert [request.path for request in gateway.received] == ["/oauth2/tokenP"]
