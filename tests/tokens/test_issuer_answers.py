"""One token request: what each answer to it means, and that no error of it holds a secret."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests
import responses
from hypothesis import given, settings
from hypothesis import strategies as st

from kis_retry import AccessToken, Credentials, KisRetryError, TokenIssueError, TokenIssueLimited
from kis_retry.testing import KisGateway
from kis_retry.tokens.issuer import SEOUL, TokenIssuer, read_answer

NOW = datetime(2026, 11, 23, 0, 0, 0, tzinfo=timezone.utc)
STAMP = "2026-11-24 09:00:00"
EXPIRY = datetime(2026, 11, 24, 0, 0, 0, tzinfo=timezone.utc)
VALUE = "eyJ0eXAiOiJKV1Qi.eyJzdWIiOiJ0b2tlbiJ9.c2lnbmF0dXJl"
GOOD = {
    "access_token": VALUE,
    "token_type": "Bearer",
    "expires_in": 86400,
    "access_token_token_expired": STAMP,
}


def answer(**changes: Any) -> dict[str, Any]:
    """A good answer with some entries changed; None takes one away."""
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not None}


def refused(status: int, body: object) -> TokenIssueError:
    with pytest.raises(TokenIssueError) as caught:
        read_answer(status, body, NOW)
    return caught.value


# -- a token


def test_a_good_answer_is_a_token_with_its_expiry() -> None:
    assert read_answer(200, GOOD, NOW) == AccessToken(VALUE, EXPIRY)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Seoul"])
def _machine_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_machine_zone")
def test_the_stamp_is_seoul_time_wherever_the_machine_stands() -> None:
    token = read_answer(200, GOOD, NOW)
    assert token.expires_at == EXPIRY
    assert token.expires == 1795478400.0
    assert token.expires_at.utcoffset() == timedelta(hours=9) == SEOUL.utcoffset(None)


@pytest.mark.usefixtures("_machine_zone")
def test_a_token_over_the_wire_expires_when_kis_says_wherever_the_machine_stands() -> None:
    with KisGateway(lifetime=86_400) as gateway:
        token = TokenIssuer(gateway.credentials).issue(5)
    assert abs(token.expires - time.time() - 86_400) < 60


def test_the_stamp_counts_before_expires_in() -> None:
    assert read_answer(200, answer(expires_in=5), NOW).expires_at == EXPIRY


@pytest.mark.parametrize(
    "stamp", [None, "", "soon", "2026-13-24 09:00:00", "2026-11-24", "2026-11-24T09:00:00+09:00", 5, []]
)
def test_without_a_readable_stamp_expires_in_counts_from_now(stamp: Any) -> None:
    assert read_answer(200, answer(access_token_token_expired=stamp), NOW).expires_at == NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("expires_in", "seconds"), [(86400, 86400), ("86400", 86400), (7_776_000, 7_776_000), (0.5, 0.5)]
)
def test_expires_in_is_seconds_as_a_number_or_a_text(expires_in: Any, seconds: float) -> None:
    token = read_answer(200, answer(access_token_token_expired=None, expires_in=expires_in), NOW)
    assert token.expires_at == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "expires_in", [None, "", "a day", 0, -1, [], {}, float("nan"), float("inf"), "1e999", 10**400, 1e15]
)
def test_a_token_without_any_usable_expiry_is_an_error_that_says_so(expires_in: Any) -> None:
    error = refused(200, answer(access_token_token_expired=None, expires_in=expires_in))
    assert "neither access_token_token_expired nor expires_in" in str(error)
    assert (error.code, error.retryable) == (None, False)


@pytest.mark.parametrize("value", [f"Bearer {VALUE}", f"bearer {VALUE}", f" {VALUE}\n"])
def test_a_token_is_kept_without_its_scheme(value: str) -> None:
    assert read_answer(200, answer(access_token=value), NOW).value == VALUE


# -- a refusal


@pytest.mark.parametrize("status", [403, 500, 200])
def test_once_a_minute_is_an_error_of_its_own(status: int) -> None:
    body = {"error_code": "EGW00133", "error_description": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)"}
    error = refused(status, body)
    assert type(error) is TokenIssueLimited
    assert (error.code, error.retryable) == ("EGW00133", True)
    assert "one token a minute" in str(error)


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


@pytest.mark.parametrize("field", ["error_code", "msg_cd"])
def test_too_many_calls_a_second_pass_by_themselves(field: str) -> None:
    error = refused(500, {"rt_cd": "1", field: "EGW00201"})
    assert (error.code, error.retryable) == ("EGW00201", True)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (500, True),
        (502, True),
        (503, True),
        (599, True),
        (499, False),
        (429, True),
        (200, True),
        (400, False),
        (403, False),
        (404, False),
        (302, False),
    ],
)
@pytest.mark.parametrize("body", [{}, {"message": "Internal Server Error"}, {"error_code": None}, {"error_code": 133}])
def test_an_object_without_a_verdict_is_transient_where_the_server_failed(
    status: int, retryable: bool, body: dict[str, Any]
) -> None:
    error = refused(status, body)
    assert (error.code, error.retryable) == (None, retryable)
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize("body", [None, "", "<html>", [], [GOOD], 5, True, b"{}"])
@pytest.mark.parametrize("status", [200, 403, 502])
def test_what_is_no_object_came_from_somebody_else_and_may_pass(status: int, body: object) -> None:
    error = refused(status, body)
    assert (error.code, error.retryable) == (None, True)
    assert f"HTTP {status} without a JSON object" in str(error)


@pytest.mark.parametrize("value", ["", "  ", "Bearer ", 5, [VALUE], {"value": VALUE}, True])
def test_an_answer_whose_token_is_empty_or_no_text_is_none(value: Any) -> None:
    error = refused(200, answer(access_token=value))
    assert "HTTP 200 without a token" in str(error)
    assert VALUE not in str(error)


@pytest.mark.parametrize("value", [f"{VALUE}\r\nX-Evil: 1", f"{VALUE} {VALUE}", f"{VALUE}\0"])
def test_a_token_that_could_break_out_of_its_header_is_refused_and_not_shown(value: str) -> None:
    error = refused(200, answer(access_token=value))
    assert "something else than a token" in str(error)
    assert VALUE not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize("status", [199, 201, 302, 400, 403, 500])
def test_a_token_with_another_status_than_200_is_not_taken(status: int) -> None:
    assert VALUE not in str(refused(status, GOOD))


@pytest.mark.parametrize("code", ["x" * 17, "EGW-00133", "eyJ.eyJ.sig", "EGW 00133", "", ["EGW00133"], {"a": 1}])
def test_a_code_that_does_not_look_like_one_is_not_repeated(code: Any) -> None:
    error = refused(403, {"error_code": code})
    assert error.code is None
    assert not isinstance(code, str) or not code or code not in str(error)


@pytest.mark.parametrize("code", ["EGW00133", "E" * 16])
def test_a_code_of_16_letters_and_digits_looks_like_one(code: str) -> None:
    assert refused(403, {"error_code": code}).code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
LIKELY = st.sampled_from([*GOOD.values(), "EGW00133", "EGW00103", "0", 0, -1, 1e300, 10**20])
STAMPS = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)).map(lambda when: when.strftime("%Y-%m-%d %H:%M:%S"))
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "access_token": st.text(st.characters(codec="ascii")) | JSON | LIKELY,
        "expires_in": JSON | LIKELY,
        "access_token_token_expired": STAMPS | JSON | LIKELY,
        "error_code": JSON | LIKELY,
        "msg_cd": JSON | LIKELY,
    },
)


@settings(max_examples=100, deadline=None, database=None)
@given(st.sampled_from([200, 200, 403, 429, 500]) | st.integers(100, 599), OBJECTS | JSON)
def test_every_answer_is_a_token_or_a_token_issue_error(status: int, body: Any) -> None:
    try:
        token = read_answer(status, body, NOW)
    except TokenIssueError:
        return
    assert status == 200
    assert body["access_token"].strip().endswith(token.value)
    assert token.expires_at.tzinfo is not None


# -- over the wire


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and everything that stands behind it, shown in a traceback or not."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__, *(a for a in found.args if isinstance(a, BaseException))]


def texts(value: object, depth: int = 4) -> Iterator[str]:
    """All that an error tracker could write down of an object: its texts, and those of its attributes."""
    yield repr(value)
    yield str(value)
    if depth:
        inner = list(value) if isinstance(value, (tuple, list)) else [*getattr(value, "__dict__", {}).values()]
        if isinstance(value, dict):
            inner = [*value, *value.values()]
        for part in inner:
            yield from texts(part, depth - 1)


def leaks(error: BaseException, *secrets: str) -> list[str]:
    """The secrets that can be read in an error or behind it."""
    said = "\n".join(text for link in chain(error) for text in texts(link))
    return [secret for secret in secrets if secret in said]


def test_the_search_for_leaks_finds_what_requests_puts_into_its_errors() -> None:
    def careless() -> None:
        try:
            requests.post("http://127.0.0.1:1/oauth2/tokenP", json={"appsecret": "s3cr3t-s3cr3t"}, timeout=1)
        except requests.ConnectionError as error:
            raise TokenIssueError("no") from error

    with pytest.raises(TokenIssueError) as caught:
        careless()
    assert leaks(caught.value, "s3cr3t-s3cr3t", "absent") == ["s3cr3t-s3cr3t"]


def failure_of(gateway: KisGateway, timeout: float = 5) -> TokenIssueError:
    credentials = gateway.credentials
    with pytest.raises(TokenIssueError) as caught:
        TokenIssuer(credentials).issue(timeout)
    assert leaks(caught.value, credentials.app_key, credentials.app_secret) == []
    assert list(chain(caught.value)) == [caught.value]
    return caught.value


def test_a_token_is_issued_over_the_wire(gateway: KisGateway) -> None:
    token = TokenIssuer(gateway.credentials).issue(5)
    assert token.value == gateway.current_token
    assert gateway.counts == {**dict.fromkeys(gateway.counts, 0), "token_requests": 1, "tokens_issued": 1}


@pytest.mark.parametrize(
    ("code", "status", "retryable"), [("EGW00103", 403, False), ("EGW00133", 403, True), (None, 500, True)]
)
def test_a_refusal_over_the_wire_is_one_request_and_one_error(
    gateway: KisGateway, code: str | None, status: int, retryable: bool
) -> None:
    gateway.refuse_tokens(code=code, status=status)
    error = failure_of(gateway)
    assert (error.code, error.retryable) == (code, retryable)
    assert gateway.counts.token_requests == 1


def test_a_wrong_secret_is_named_and_not_shown(gateway: KisGateway) -> None:
    wrong = Credentials(gateway.credentials.app_key, "wr0ng-s3cr3t", base_url=gateway.url)
    with pytest.raises(TokenIssueError, match="KIS_APP_SECRET") as caught:
        TokenIssuer(wrong).issue(5)
    assert leaks(caught.value, wrong.app_key, wrong.app_secret) == []


def test_a_dropped_connection_is_transient(gateway: KisGateway) -> None:
    gateway.drop("tokens")
    error = failure_of(gateway)
    assert (error.code, error.retryable) == (None, True)
    assert str(error).endswith("could not be reached: the connection was dropped")


def test_an_answer_that_does_not_come_is_given_up_after_the_timeout(gateway: KisGateway) -> None:
    gateway.hang("tokens", seconds=30)
    began = time.monotonic()
    error = failure_of(gateway, timeout=0.1)
    assert error.retryable
    assert "could not be reached: no " in str(error)
    assert time.monotonic() - began < 10


def test_a_host_that_is_not_there_is_transient(gateway: KisGateway) -> None:
    credentials = gateway.credentials
    gateway.close()
    with pytest.raises(TokenIssueError, match="could not be reached") as caught:
        TokenIssuer(credentials).issue(5)
    assert caught.value.retryable
    assert leaks(caught.value, credentials.app_key, credentials.app_secret) == []


def test_an_address_that_cannot_be_one_is_final() -> None:
    credentials = Credentials("PSkey-PSkey", "s3cr3t-s3cr3t", base_url="http://127.0.0.1:port")
    with pytest.raises(TokenIssueError, match="could not be reached") as caught:
        TokenIssuer(credentials).issue(5)
    assert not caught.value.retryable
    assert leaks(caught.value, "PSkey-PSkey", "s3cr3t-s3cr3t") == []


@pytest.mark.parametrize("status", [200, 500, 502])
def test_a_proxy_that_echoes_the_request_does_not_get_it_into_an_error(gateway: KisGateway, status: int) -> None:
    echo = json.dumps({"appkey": gateway.credentials.app_key, "appsecret": gateway.credentials.app_secret})
    for body in (f"<html>{echo}</html>", echo, f'{{"error_code": {echo}}}', echo[:-1], ""):
        gateway.garble("tokens", 1, body.encode(), status)
        assert failure_of(gateway).retryable


def test_half_an_answer_is_an_error_that_shows_nothing_of_it(gateway: KisGateway) -> None:
    gateway.garble("tokens", 1, json.dumps(GOOD)[:-2].encode(), 200)
    assert leaks(failure_of(gateway), VALUE) == []


@responses.activate
def test_a_redirect_is_not_followed_since_the_body_holds_the_secret() -> None:
    credentials = Credentials("PSkey-PSkey", "s3cr3t-s3cr3t", base_url="https://kis.example")
    elsewhere = responses.post("https://elsewhere.example/oauth2/tokenP", json=GOOD)
    responses.post(
        "https://kis.example/oauth2/tokenP", status=307, headers={"Location": "https://elsewhere.example/oauth2/tokenP"}
    )
    with pytest.raises(TokenIssueError):
        TokenIssuer(credentials).issue(5)
    assert elsewhere.call_count == 0


def test_a_given_session_carries_the_request(gateway: KisGateway) -> None:
    seen: list[str] = []

    class Listening(requests.Session):
        def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
            seen.append(f"{method} {url} {kwargs['timeout']} {kwargs['allow_redirects']}")
            return super().request(method, url, *args, **kwargs)

    with Listening() as session:
        TokenIssuer(gateway.credentials, session).issue(2)
    assert seen == [f"POST {gateway.url}/oauth2/tokenP (2, 2) False"]


@pytest.mark.parametrize(
    "error",
    [TokenIssueError("no", code="EGW00105"), TokenIssueLimited("wait", code="EGW00133", retryable=True)],
)
def test_an_error_travels_to_and_from_workers_whole(error: TokenIssueError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert (str(arrived), arrived.code, arrived.retryable) == (str(error), error.code, error.retryable)


# -- revoking


def test_a_revoked_token_is_unknown_to_kis(gateway: KisGateway) -> None:
    issuer = TokenIssuer(gateway.credentials)
    token = issuer.issue(5)
    issuer.revoke(token, 5)
    headers = {"authorization": token.bearer}
    refusal = requests.get(f"{gateway.url}/uapi/domestic-stock/v1/quotations/inquire-price", headers=headers, timeout=5)
    assert refusal.json()["msg_cd"] == "EGW00121"


def test_a_revocation_that_kis_does_not_confirm_is_an_error_without_a_secret(gateway: KisGateway) -> None:
    wrong = Credentials(gateway.credentials.app_key, "wr0ng-s3cr3t", base_url=gateway.url)
    token = TokenIssuer(gateway.credentials).issue(5)
    with pytest.raises(KisRetryError, match=r"not revoked: HTTP 403, EGW00105") as caught:
        TokenIssuer(wrong).revoke(token, 5)
    assert leaks(caught.value, wrong.app_key, wrong.app_secret, token.value) == []


def test_a_revocation_that_does_not_arrive_is_an_error_without_a_secret(gateway: KisGateway) -> None:
    credentials = gateway.credentials
    token = TokenIssuer(credentials).issue(5)
    gateway.close()
    with pytest.raises(KisRetryError, match="could not be reached") as caught:
        TokenIssuer(credentials).revoke(token, 5)
    assert leaks(caught.value, credentials.app_key, credentials.app_secret, token.value) == []


def test_a_stamp_out_of_this_world_is_no_stamp() -> None:
    body = {"access_token": "x", "access_token_token_expired": "0001-01-01 00:00:00", "expires_in": 86400}
    token = read_answer(200, body, EXPIRY)
    assert token.expires_at == EXPIRY + timedelta(days=1)


def test_an_answer_nested_too_deep_is_no_json_object() -> None:
    with KisGateway() as gateway:
        gateway.garble("tokens", body=b"[" * 200_000, status=200)
        with pytest.raises(TokenIssueError, match="without a JSON object"):
            TokenIssuer(gateway.credentials).issue(5)
