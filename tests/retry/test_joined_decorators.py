"""One decorator on top of the other is one wrapper with both causes: the same behaviour at half the cost."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest

from answers import GOOD
from clocks import FakeClock
from kis_retry import RefreshEvent, RetryPolicy, refresh_on_expired_token, retry_on_transient_error
from outcomes import scripted
from sources import NumberedTokens

LIMITED = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}

either_order = pytest.mark.parametrize("refresh_outside", [True, False])


def both(fetch: Any, refresh_outside: bool, between: Any = None, **options: Any) -> Any:
    refreshing = refresh_on_expired_token(tokens=options.pop("tokens"), policy=options.pop("refresh_policy", None))
    retrying = retry_on_transient_error(**options)
    inner, outer = (retrying, refreshing) if refresh_outside else (refreshing, retrying)
    decorated = inner(fetch)
    return outer(decorated if between is None else between(decorated))


def seconds(clock: FakeClock, call: Any) -> float:
    began = clock.now
    call()
    return clock.now - began


@either_order
def test_each_has_the_policy_that_it_was_given(clock: FakeClock, refresh_outside: bool) -> None:
    tokens = NumberedTokens()
    policies = {"refresh_policy": RetryPolicy(transient_deadline=500), "policy": RetryPolicy(transient_deadline=7)}
    fetch = both(scripted(LIMITED), refresh_outside, tokens=tokens, **policies)
    assert seconds(clock, lambda: fetch(headers={})) == pytest.approx(7)


@either_order
def test_the_deadline_is_not_taken_from_the_token_source(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, refresh_outside: bool
) -> None:
    class Tokens(NumberedTokens):
        policy = RetryPolicy(transient_deadline=500)

    monkeypatch.setenv("KIS_RETRY_TRANSIENT_DEADLINE", "9")
    fetch = both(scripted(LIMITED), refresh_outside, tokens=Tokens())
    assert seconds(clock, lambda: fetch(headers={})) == pytest.approx(9)


@either_order
@pytest.mark.parametrize("off", ["refresh_policy", "policy"])
def test_one_may_be_switched_off_without_the_other(no_backoff: None, refresh_outside: bool, off: str) -> None:
    tokens = NumberedTokens()
    left = [{"rt_cd": "1", "msg_cd": "EGW00123"} if off == "policy" else LIMITED]

    def fetch(headers: dict[str, str]) -> Any:
        return left.pop() if left else GOOD

    decorated = both(fetch, refresh_outside, tokens=tokens, **{off: RetryPolicy(enabled=False)})
    assert decorated(headers={"authorization": tokens.token().bearer}) == GOOD
    assert left == []


@either_order
def test_switched_off_in_the_environment_neither_does_anything(
    monkeypatch: pytest.MonkeyPatch, events: list[RefreshEvent], refresh_outside: bool
) -> None:
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")
    fetch = scripted(LIMITED)
    assert both(fetch, refresh_outside, tokens=NumberedTokens())(headers={}) is LIMITED
    assert (fetch.calls, events) == (1, [])


@either_order
def test_a_decorator_of_somebody_elses_in_between_is_called(no_backoff: None, refresh_outside: bool) -> None:
    calls: list[str] = []

    def counting(function: Any) -> Any:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append("call")
            return function(*args, **kwargs)

        return counted

    fetch = both(scripted(LIMITED, GOOD), refresh_outside, counting, tokens=NumberedTokens())
    assert fetch(headers={}) == GOOD
    assert calls


@either_order
def test_the_inner_one_stays_as_it_is(no_backoff: None, refresh_outside: bool) -> None:
    fetch = scripted(LIMITED, GOOD)
    if refresh_outside:
        inner: Any = retry_on_transient_error(fetch)
        refresh_on_expired_token(inner, tokens=NumberedTokens())
        assert inner() == GOOD
    else:
        inner = refresh_on_expired_token(fetch, tokens=NumberedTokens())
        retry_on_transient_error(inner)
        assert inner(headers={}) is LIMITED


@either_order
def test_idempotent_and_the_first_arguments_limiter_are_those_of_the_one_that_repeats(
    no_backoff: None, refresh_outside: bool
) -> None:
    asked: list[float | None] = []

    def acquire(timeout: float | None = None) -> bool:
        asked.append(timeout)
        return True

    owner = SimpleNamespace(
        limiter=SimpleNamespace(rate=18, acquire=acquire, acquire_async=acquire, report=asked.append),
        tokens=NumberedTokens(),
    )
    fetch = both(scripted(ConnectionError(), GOOD), refresh_outside, tokens=owner.tokens, idempotent=True)
    assert fetch(owner, headers={}) == GOOD
    assert len(asked) == 2


@pytest.mark.usefixtures("clock")
def test_two_that_refresh_are_none_that_repeats() -> None:
    fetch, tokens = scripted(LIMITED), NumberedTokens()
    twice = refresh_on_expired_token(refresh_on_expired_token(fetch, tokens=tokens), tokens=tokens)
    assert twice(headers={}) is LIMITED
    assert fetch.calls == 1
