"""How the decorators are put on: which function of the user's runs, and what is refused."""

from __future__ import annotations

import functools
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from answers import EXPIRED, GOOD
from calls import Slots
from kis_retry import RefreshEvent, RetryPolicy, refresh_on_expired_token, retry_on_transient_error
from kis_retry.retry.decoration import Options
from kis_retry.retry.engine import decorate, decoration_of
from outcomes import scripted
from sources import NumberedTokens

DECORATORS = [refresh_on_expired_token, retry_on_transient_error]


@pytest.mark.parametrize("decorator", DECORATORS)
def test_all_but_the_function_is_given_by_name(decorator: Any) -> None:
    kinds = [parameter.kind for parameter in inspect.signature(decorator).parameters.values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] + [inspect.Parameter.KEYWORD_ONLY] * (len(kinds) - 1)
    assert decorator(fn=scripted(GOOD), policy=RetryPolicy()) is not None
    with pytest.raises(TypeError):
        decorator(scripted(GOOD), None)


def test_what_is_not_given_is_watched_refreshed_and_repeated_as_the_policy_says() -> None:
    refreshing = decoration_of(refresh_on_expired_token(scripted(GOOD)))
    repeating = decoration_of(retry_on_transient_error(scripted(GOOD)))
    assert refreshing is not None
    assert repeating is not None
    assert refreshing.options == Options(refreshes=True)
    assert repeating.options == Options(repeats=True)
    assert refreshing.options.watch_transport


def test_each_option_reaches_the_decoration() -> None:
    tokens, policy, slots = NumberedTokens(), RetryPolicy(), Slots()
    bind = lambda token: None
    refreshing = decoration_of(
        refresh_on_expired_token(scripted(GOOD), tokens=tokens, policy=policy, bind=bind, watch_transport=False)
    )
    repeating = decoration_of(retry_on_transient_error(scripted(GOOD), limiter=slots, policy=policy, idempotent=False))
    assert refreshing is not None
    assert repeating is not None
    expected = Options(refreshes=True, tokens=tokens, policy=policy, bind=bind, watch_transport=False)
    assert refreshing.options == expected
    assert repeating.options == Options(repeats=True, limiter=slots, policy=policy, idempotent=False)


# What is refused.


class Called:
    def __call__(self) -> None: ...


@pytest.mark.parametrize("decorator", DECORATORS)
def test_what_is_refused_is_named(decorator: Any) -> None:
    def pages() -> Any:
        yield 1

    class Broker:
        def __call__(self) -> Any:
            yield 1

    wrong: list[tuple[Any, str]] = [
        (Broker, r"Broker is a class: use protect\(.*Broker\) to decorate its methods$"),
        (pages, r"pages is a generator function: decorate the function that makes one call of it$"),
        (Broker(), r"^'Broker' is a generator function"),
        (5, r"^a decorator of kis_retry takes a function, not int$"),
    ]
    for value, says in wrong:
        with pytest.raises(TypeError, match=says):
            decorator(value)
    decorator(Called())


# Which function runs.


def test_one_on_top_of_the_other_is_one_and_beneath_another_ones_wrapper_it_is_two() -> None:
    fetch = scripted(GOOD)
    inner = retry_on_transient_error(fetch)
    joined = decoration_of(refresh_on_expired_token(inner, tokens=NumberedTokens()))
    wrapped = functools.wraps(inner)(lambda: inner())
    apart = decoration_of(refresh_on_expired_token(wrapped, tokens=NumberedTokens()))
    assert joined is not None
    assert apart is not None
    assert joined.function is fetch
    assert (joined.options.refreshes, joined.options.repeats) == (True, True)
    assert apart.function is wrapped
    assert (apart.options.refreshes, apart.options.repeats) == (True, False)
    assert decoration_of(fetch) is None
    assert decoration_of(SimpleNamespace(__kis_retry_decoration__="none of ours")) is None


def test_static_and_class_methods_stay_what_they_are() -> None:
    for kind in (staticmethod, classmethod):
        decorated = decorate(kind(scripted(GOOD)), Options(repeats=True))
        assert type(decorated) is kind
        assert decoration_of(decorated.__func__) is not None


# What comes back.


def test_who_recovered_after_the_function_gave_up_on_a_call_within_is_not_told_twice(
    no_backoff: None, events: list[RefreshEvent]
) -> None:
    answers = iter([EXPIRED, EXPIRED])
    inner = refresh_on_expired_token(lambda headers: next(answers), tokens=NumberedTokens())

    @refresh_on_expired_token(tokens=NumberedTokens())
    def outer() -> Any:
        return inner({})

    assert outer() == EXPIRED
    told = [event.name for event in events]
    assert told == ["token_expired", "token_refreshed", "token_expired", "call_given_up"]
