"""A library's own token request and its own repeats, one at a time: who answers, with what, and what is told."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone
from typing import Any

import pytest

from calls import HOST, KEY, KnownTokens, refreshing, refuse, repeating, seen
from causes import Source, unplaced
from clocks import FakeClock
from kis_retry import AccessToken, RefreshEvent, RetryPolicy
from kis_retry.context import Sighting
from kis_retry.retry import self_refresh
from sources import NumberedTokens

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
ASKED = {"grant_type": "client_credentials", "appkey": KEY, "appsecret": "secret"}
NOON = datetime(2026, 11, 24, 3, tzinfo=timezone.utc)
"""In Seoul."""


def answer(call: Any, body: Any = None, **request: Any) -> Any:
    return self_refresh.answer_to(call, token_request(**request), json.dumps(ASKED) if body is None else body)


def answer_async(call: Any, body: Any = None, **request: Any) -> Any:
    body = json.dumps(ASKED) if body is None else body
    return asyncio.run(self_refresh.answer_to_async(call, token_request(**request), body))


def renew(call: Any, sighting: Sighting) -> None:
    self_refresh.renew(call, sighting)


def renew_async(call: Any, sighting: Sighting) -> None:
    asyncio.run(self_refresh.renew_async(call, sighting))


every_answer = pytest.mark.parametrize("ask", [answer, answer_async])
every_renewal = pytest.mark.parametrize("renewing", [renew, renew_async])


def token_request(method: str = "POST", path: str = "/oauth2/tokenP", host: str = HOST) -> Sighting:
    return seen(None, method=method, path=path, host=host, key=None)


def value_of(found: Any) -> Any:
    return json.loads(found.body)["access_token"] if found is not None else None


# Who answers a token request.


@every_answer
@pytest.mark.parametrize(
    ("method", "path", "answered"),
    [
        ("POST", "/oauth2/tokenP", True),
        ("GET", "/oauth2/tokenP", False),
        ("PUT", "/oauth2/tokenP", False),
        ("POST", "/oauth2/revokeP", False),
        ("POST", "/uapi/tokenP", False),
        ("POST", "/kis/oauth2/tokenP", True),
    ],
)
def test_the_source_answers_requests_for_a_token_and_no_others(
    source: Source, ask: Any, method: str, path: str, answered: bool
) -> None:
    assert value_of(ask(unplaced(source)._call, method=method, path=path)) == ("t1" if answered else None)


@every_answer
@pytest.mark.parametrize(
    "body",
    [
        *(json.dumps({**ASKED, "appsecret": secret}) for secret in ("another", "their", "")),
        *(json.dumps({**ASKED, "appkey": key}) for key in ("PSother", "PSa", "")),
        json.dumps({**ASKED, "appsecret": None}),
        json.dumps([ASKED]),
        "not JSON",
        iter([json.dumps(ASKED)]),
    ],
)
def test_somebody_without_key_and_secret_is_left_to_kis(source: Source, ask: Any, body: Any) -> None:
    assert ask(unplaced(source)._call, body) is None
    assert value_of(ask(unplaced(source)._call, json.dumps(ASKED).encode())) == "t1"


@every_answer
def test_a_request_to_another_host_is_too_and_so_is_that_of_an_unknown_account(source: Source, ask: Any) -> None:
    assert ask(unplaced(source)._call, host="proxy.example") is None
    assert ask(refreshing(NumberedTokens())) is None
    assert ask(repeating()) is None


@every_answer
def test_a_source_without_a_secret_answers_nobody(ask: Any) -> None:
    class Without(NumberedTokens):
        class credentials:
            base_url, app_key, app_secret = f"https://{HOST}", KEY, None

    assert ask(refreshing(Without()), json.dumps({**ASKED, "appsecret": None})) is None


@every_answer
def test_switched_off_the_library_is_on_its_own(source: Source, ask: Any) -> None:
    assert ask(unplaced(source, policy=RetryPolicy(max_retries=0))._call) is None


# With which token.


@every_answer
def test_without_a_refusal_it_is_the_current_one_and_nothing_is_told(
    source: Source, events: list[RefreshEvent], ask: Any
) -> None:
    source.before = lambda: pytest.fail("it was refreshed")
    assert value_of(ask(unplaced(source)._call)) == "t1"
    assert events == []


@every_answer
def test_after_a_refusal_it_is_another_one(source: Source, events: list[RefreshEvent], ask: Any) -> None:
    call = unplaced(source)._call
    refuse(call, seen("t1"))
    assert value_of(ask(call)) == "t2"
    assert [(event.name, event.attempt) for event in events] == [("token_refreshed", 1)]
    assert call.token_expired.replaced_with == "t2"
    assert ask(call) is None, "a second time it is KIS who says what there is"


@every_answer
def test_of_two_calls_around_the_one_that_was_refused_answers(ask: Any) -> None:
    outer_source, inner_source = Source(KnownTokens("outer-")), Source(KnownTokens("inner-"))
    outer = unplaced(outer_source)._call
    inner = unplaced(inner_source, around=outer)._call
    assert value_of(ask(inner)) == "inner-1"
    refuse(outer, seen("outer-1"))
    assert value_of(ask(inner)) == "outer-2"


@every_answer
def test_without_a_refusal_it_is_the_innermost_of_them_or_none(ask: Any) -> None:
    outer = unplaced(Source(KnownTokens("outer-")))._call
    inner = unplaced(Source(KnownTokens("inner-")), around=outer)._call
    inner.token_expired.replaced_with = "x"
    assert ask(inner) is None


@every_answer
def test_of_two_that_were_refused_the_first_that_may_renew_answers(ask: Any) -> None:
    outer_source, inner_source = Source(KnownTokens("outer-")), Source(KnownTokens("inner-"))
    outer = unplaced(outer_source)._call
    inner = unplaced(inner_source, around=outer)._call
    refuse(inner, seen("x"))
    inner.token_expired.replaced_with = "x"
    assert value_of(ask(inner)) == "outer-1"


# What it says.


@every_answer
@pytest.mark.parametrize(
    ("lives", "stamp", "left"),
    [(86_400, "2026-11-25 12:00:00", 86_400), (90.9, "2026-11-24 12:01:30", 90), (0.5, "2026-11-24 12:00:00", 0)],
)
def test_it_says_what_kis_would_with_the_seconds_that_are_left(
    monkeypatch: pytest.MonkeyPatch, ask: Any, lives: float, stamp: str, left: int
) -> None:
    clock = FakeClock(NOON.timestamp())
    monkeypatch.setattr("kis_retry.retry.self_refresh.time", clock)

    class Tokens(KnownTokens):
        def token(self) -> AccessToken:
            return AccessToken("t1", datetime.fromtimestamp(clock.now + lives, timezone.utc))

    found = ask(unplaced(Source(Tokens()))._call)
    assert found.status == 200
    assert json.loads(found.body) == {
        "access_token": "t1",
        "access_token_token_expired": stamp,
        "token_type": "Bearer",
        "expires_in": left,
    }


@every_answer
def test_a_token_that_has_died_since_has_no_seconds_left(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    monkeypatch.setattr("kis_retry.retry.self_refresh.time", FakeClock(NOON.timestamp()))

    class Tokens(KnownTokens):
        def token(self) -> AccessToken:
            return AccessToken("t1", datetime.fromtimestamp(NOON.timestamp() - 90, timezone.utc))

    assert json.loads(ask(unplaced(Source(Tokens()))._call).body)["expires_in"] == 0


class RefusedError(Exception):
    """As KIS refuses to issue a token."""

    code = "EGW00103"


@every_answer
@pytest.mark.parametrize("error", [RefusedError("유효하지 않은 AppKey입니다."), ConnectionError("nobody answers")])
def test_what_kis_said_to_the_refresh_is_said_and_where_nobody_answered_kis_is_asked(
    source: Source, now: FakeClock, events: list[RefreshEvent], ask: Any, error: Exception
) -> None:
    def fail() -> None:
        now.pass_by(5)
        raise error

    source.before = fail
    call = unplaced(source)._call
    refuse(call, seen("t1"))
    found = ask(call)
    if isinstance(error, RefusedError):
        assert found.status == 403
        assert json.loads(found.body) == {"error_code": "EGW00103", "error_description": "유효하지 않은 AppKey입니다."}
        assert "유효하지" in found.body.decode()
    else:
        assert found is None
    (event,) = events
    assert (event.name, event.error, event.elapsed) == ("token_refresh_failed", type(error).__name__, 5.0)
    assert call.token_expired.replaced_with == "t1", "it is not asked again in this attempt"


@every_answer
def test_a_first_token_that_cannot_be_had_is_not_told_before_kis_has_refused(
    events: list[RefreshEvent], ask: Any
) -> None:
    class Tokens(KnownTokens):
        def token(self) -> AccessToken:
            raise RefusedError("no")

    call = unplaced(Source(Tokens()))._call
    assert ask(call).status == 403
    assert (events, call.token_expired.replaced_with) == ([], None)


# A request that is about to leave with a dead token.


@every_renewal
def test_another_token_is_asked_for_before_the_same_request_leaves_again(
    source: Source, now: FakeClock, events: list[RefreshEvent], renewing: Any
) -> None:
    source.before = lambda: now.pass_by(5)
    call = unplaced(source)._call
    renewing(call, seen("t1"))
    assert events == [], "its token is good"
    refuse(call, seen("t1"))
    renewing(call, seen("t1"))
    assert [(event.name, event.elapsed) for event in events] == [("token_refreshed", 5.0)]
    assert call.token_expired.replaced_with == "t2"


@every_renewal
def test_no_token_is_asked_for_on_behalf_of_an_order_that_has_to_wait(source: Source, renewing: Any) -> None:
    source.before = lambda: pytest.fail("it was refreshed")
    call = unplaced(source)._call
    refuse(call, seen("t1"))
    renewing(call, seen("t1", method="POST", path=ORDER))


@every_renewal
@pytest.mark.parametrize("switched_off", [True, False])
def test_the_innermost_call_that_knows_a_token_to_be_dead_renews_it_if_it_may(
    source: Source, renewing: Any, switched_off: bool
) -> None:
    outer_source = Source(KnownTokens())
    outer_source.before = lambda: pytest.fail("the outer one was refreshed")
    outer = unplaced(outer_source)._call
    inner = unplaced(source, around=outer, policy=RetryPolicy(max_retries=0 if switched_off else 1))._call
    refuse(inner, seen("t1"))
    renewing(inner, seen("t1"))
    assert source.issued("t2") is not switched_off


@every_renewal
def test_a_renewal_that_fails_lets_the_request_leave_as_it_is(
    source: Source, events: list[RefreshEvent], renewing: Any
) -> None:
    def fail() -> None:
        raise LookupError

    source.before = fail
    call = unplaced(source)._call
    refuse(call, seen("t1"))
    for _ in range(2):
        renewing(call, seen("t1"))
    assert [event.name for event in events] == ["token_refresh_failed"]
