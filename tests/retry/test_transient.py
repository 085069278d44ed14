"""`retry_on_transient_error`: how it is put on, whose outcome the caller gets, and until when a call is repeated."""

from __future__ import annotations

import inspect
import itertools
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from alarms import alarm_once
from answers import EXPIRED, GOOD, PRICE
from clocks import FakeClock
from kis_retry import (
    ConfigurationError,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    protect,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway
from outcomes import by_urllib, scripted
from sources import NumberedTokens

BUSY = {"rt_cd": "1", "msg_cd": "EGW00316", "msg1": "재 조회 수행 부탁드립니다"}
LIMITED = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}

Outcome = Any


def names(events: list[RefreshEvent]) -> list[str]:
    return [event.name for event in events]


# -- how it is put on

FORMS: dict[str, Callable[[Any], Any]] = {
    "bare": retry_on_transient_error,
    "with ()": retry_on_transient_error(),
    "with arguments": retry_on_transient_error(policy=RetryPolicy(), idempotent=None),
    "called with the function": lambda fn: retry_on_transient_error(fn, policy=RetryPolicy()),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_bare_with_parentheses_or_with_arguments(no_backoff: None, form: Callable[[Any], Any]) -> None:
    fetch = scripted(LIMITED, LIMITED, GOOD)
    assert form(fetch)("005930") == GOOD
    assert fetch.calls == 3


def test_methods_of_every_kind(no_backoff: None) -> None:
    fetch = scripted(LIMITED, GOOD, LIMITED, GOOD, LIMITED, GOOD)

    class Broker:
        @retry_on_transient_error
        def method(self, symbol: str) -> Any:
            return fetch(symbol)

        @retry_on_transient_error
        @staticmethod
        def static(symbol: str) -> Any:
            return fetch(symbol)

        @classmethod
        @retry_on_transient_error
        def of_class(cls, symbol: str) -> Any:
            return fetch(symbol)

    assert [call("005930") for call in (Broker().method, Broker.static, Broker.of_class)] == [GOOD] * 3
    assert fetch.calls == 6


def test_signature_and_docstring_are_kept() -> None:
    def fetch(symbol: str, *, country: str = "KR") -> dict[str, str]:
        """Ask for a price."""
        return {symbol: country}

    decorated = retry_on_transient_error(fetch)
    assert inspect.signature(decorated) == inspect.signature(fetch)
    assert (decorated.__name__, decorated.__doc__) == ("fetch", "Ask for a price.")


def test_what_cannot_be_repeated_is_refused() -> None:
    def pages() -> Any:
        yield GOOD

    wrong: Any
    for wrong in (pages, SimpleNamespace, "a text"):
        with pytest.raises(TypeError):
            retry_on_transient_error(wrong)


@pytest.mark.parametrize("arguments", [{"limiter": object()}, {"policy": "patient"}, {"idempotent": "yes"}])
def test_a_wrong_argument_is_refused_with_its_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(arguments))}= takes"):
        retry_on_transient_error(**arguments)


def test_bounds_come_from_the_first_argument_or_from_the_environment(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_RETRY_TRANSIENT_DEADLINE", "5")
    started = clock.now
    assert retry_on_transient_error(scripted(LIMITED))("005930") == LIMITED
    assert clock.now - started == pytest.approx(5)
    started = clock.now
    owner = SimpleNamespace(policy=RetryPolicy(transient_deadline=9))
    assert retry_on_transient_error(scripted(LIMITED))(owner) == LIMITED
    assert clock.now - started == pytest.approx(9)


def test_a_bad_deadline_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_TRANSIENT_DEADLINE", "for ever")
    with pytest.raises(ConfigurationError, match="KIS_RETRY_TRANSIENT_DEADLINE='for ever'"):
        retry_on_transient_error(scripted(GOOD))()


@pytest.mark.parametrize("policy", [RetryPolicy(transient_deadline=0), RetryPolicy(enabled=False)])
def test_switched_off_the_first_outcome_stands(policy: RetryPolicy, events: list[RefreshEvent]) -> None:
    fetch = scripted(LIMITED, GOOD)
    assert retry_on_transient_error(fetch, policy=policy)() == LIMITED
    assert (fetch.calls, events) == (1, [])


# -- whose outcome, and until when


@pytest.mark.parametrize(
    ("outcome", "deadline"),
    [
        (LIMITED, 0.5),
        (LIMITED, 60),
        (requests.ConnectionError("dropped"), 60),
        (requests.ConnectionError("dropped"), 3_600),  # more repeats than a float has powers of two
    ],
)
def test_at_the_deadline_the_last_outcome_is_handed_back(
    clock: FakeClock, events: list[RefreshEvent], outcome: Outcome, deadline: float
) -> None:
    started = clock.now
    fetch = retry_on_transient_error(
        scripted(outcome), policy=RetryPolicy(transient_deadline=deadline), idempotent=True
    )
    if isinstance(outcome, dict):
        assert fetch() is outcome
    else:
        with pytest.raises(requests.ConnectionError) as raised:
            fetch()
        assert raised.value is outcome
    assert clock.now - started == pytest.approx(deadline)
    assert names(events)[-1] == "call_given_up"
    assert set(names(events)[:-1]) == {"call_retried"}
    assert len(clock.slept) <= 20 + deadline  # backing off makes them few


def test_the_outcome_is_the_last_one_not_the_first(clock: FakeClock) -> None:
    last = {**BUSY, "attempt": "the last"}
    fetch = retry_on_transient_error(scripted(LIMITED, last), idempotent=True)
    assert fetch() is last


@pytest.mark.parametrize("leaving", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_what_is_no_exception_passes(leaving: BaseException, events: list[RefreshEvent]) -> None:
    fetch = scripted(leaving)
    with pytest.raises(type(leaving)):
        retry_on_transient_error(fetch, idempotent=True)()
    assert (fetch.calls, events) == (1, [])


@pytest.mark.parametrize("failure", [ValueError("no such symbol"), KeyError("output"), OSError("disk full")])
def test_any_other_exception_passes(failure: Exception, events: list[RefreshEvent]) -> None:
    fetch = scripted(failure)
    with pytest.raises(type(failure)):
        retry_on_transient_error(fetch, idempotent=True)()
    assert (fetch.calls, events) == (1, [])


def test_the_token_that_expired_is_not_its_business(events: list[RefreshEvent]) -> None:
    fetch = scripted(EXPIRED)
    assert retry_on_transient_error(fetch, idempotent=True)() == EXPIRED
    assert (fetch.calls, events) == (1, [])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_time_limit_of_the_users_own_ends_the_call(gateway: KisGateway, manager: TokenManager) -> None:
    class OutOfTimeError(TimeoutError):
        pass

    def out_of_time(*_: object) -> None:
        raise OutOfTimeError

    gateway.hang("calls", seconds=20)
    headers = manager.headers("FHKST01010100")
    before = signal.signal(signal.SIGALRM, out_of_time)
    expected = pytest.raises((OutOfTimeError, requests.Timeout, requests.ConnectionError))
    try:
        with expected, alarm_once(lambda: gateway.counts.calls == 1):
            retry_on_transient_error(lambda: requests.get(gateway.url + PRICE, headers=headers, timeout=9))()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert gateway.counts.calls == 1


# -- where nothing can be seen of the requests


@pytest.mark.parametrize(("idempotent", "repeated"), [(None, False), (False, False), (True, True)])
def test_what_nobody_answered_is_repeated_unseen_only_where_that_is_allowed(
    gateway: KisGateway, no_backoff: None, events: list[RefreshEvent], idempotent: bool | None, repeated: bool
) -> None:
    gateway.fail(503, 2)
    fetch = retry_on_transient_error(by_urllib, idempotent=idempotent)
    with pytest.raises(urllib.error.HTTPError) as raised:
        fetch(gateway.url + PRICE)
    assert raised.value.code == (500 if repeated else 503)  # the third time KIS's own: there is no token
    assert gateway.counts.calls == (3 if repeated else 1)
    assert names(events) == (["call_retried"] * 2 if repeated else ["call_given_up"])


@pytest.mark.parametrize(("idempotent", "repeated"), [(None, True), (False, False), (True, True)])
def test_an_unseen_refusal_for_the_rate_is_repeated_unless_that_is_forbidden(
    no_backoff: None, idempotent: bool | None, repeated: bool
) -> None:
    fetch = scripted(LIMITED, GOOD)
    assert retry_on_transient_error(fetch, idempotent=idempotent)() == (GOOD if repeated else LIMITED)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("carrier", ["response", "exception"])
def test_a_read_is_known_by_the_request_that_the_outcome_carries(no_backoff: None, method: str, carrier: str) -> None:
    failed = requests.Response()
    failed.status_code = 503
    failed._content = b"<html>"
    failed.request = requests.Request(method, "https://example.invalid/").prepare()
    outcome = failed if carrier == "response" else requests.HTTPError(response=failed)
    fetch = scripted(outcome, GOOD)
    decorated = retry_on_transient_error(fetch)
    if method in {"GET", "HEAD"}:
        assert decorated() == GOOD
    elif carrier == "response":
        assert decorated() is failed
    else:
        with pytest.raises(requests.HTTPError):
            decorated()


# -- the other decorator, and one inside the other


def both(fetch: Any, tokens: Any, order: str) -> Any:
    refreshing = refresh_on_expired_token(tokens=tokens)
    if order == "refresh outside":
        return refreshing(retry_on_transient_error(fetch, idempotent=True))
    return retry_on_transient_error(refreshing(fetch), idempotent=True)


either_order = pytest.mark.parametrize("order", ["refresh outside", "retry outside"])


@either_order
@pytest.mark.parametrize("troubles", sorted(set(itertools.permutations(["expired", "dropped", "dropped", "limited"]))))
def test_beside_the_other_decorator_each_has_a_budget_of_its_own(
    no_backoff: None, events: list[RefreshEvent], order: str, troubles: tuple[str, ...]
) -> None:
    tokens = NumberedTokens()
    left = list(troubles)

    def fetch(headers: dict[str, str]) -> Any:
        trouble = left.pop(0) if left else "none"
        if trouble == "dropped":
            raise requests.ConnectionError("dropped")
        if trouble == "expired":
            tokens.number += 1
        return LIMITED if trouble == "limited" else tokens.answer(headers["authorization"])

    assert both(fetch, tokens, order)({"authorization": tokens.token().bearer}) == GOOD
    assert left == []
    assert names(events).count("call_retried") == 3
    assert names(events).count("token_expired") == 1
    assert "call_given_up" not in names(events)


@either_order
def test_over_real_http_an_expiry_and_drops_in_one_call(
    gateway: KisGateway, manager: TokenManager, no_backoff: None, order: str
) -> None:
    def fetch(headers: dict[str, str]) -> Any:
        return requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()

    headers = manager.headers("FHKST01010100")
    gateway.drop("calls", 2)
    gateway.expire_at(2)
    assert both(fetch, manager, order)(headers)["rt_cd"] == "0"
    assert gateway.counts.tokens_issued == 2


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("outcome", [LIMITED, requests.ConnectionError("dropped")], ids=["answer", "exception"])
def test_the_innermost_handles_it_and_layers_do_not_multiply(
    clock: FakeClock, events: list[RefreshEvent], depth: int, outcome: Outcome
) -> None:
    fetch = layered = scripted(outcome)
    for _ in range(depth):
        layered = retry_on_transient_error(layered, idempotent=True)
    started = clock.now
    if isinstance(outcome, dict):
        assert layered() is outcome
    else:
        with pytest.raises(requests.ConnectionError):
            layered()
    assert clock.now - started == pytest.approx(60)
    assert names(events).count("call_given_up") == 1
    assert names(events).count("call_retried") == fetch.calls - 1


# -- answers that the function swallows


def test_a_refusal_that_a_library_swallows_counts_under_protect(
    gateway: KisGateway, manager: TokenManager, no_backoff: None, events: list[RefreshEvent]
) -> None:
    class Library:
        def __init__(self) -> None:
            self.headers = manager.headers("FHKST01010100")

        def fetch_price(self, symbol: str) -> Any:
            try:
                answer = requests.get(gateway.url + PRICE, params={"FID_INPUT_ISCD": symbol}, headers=self.headers)
            except requests.RequestException:
                print("no connection")
                return None
            return answer.json().get("output") if "json" in answer.headers["content-type"] else None

    library = protect(Library(), tokens=manager)
    gateway.refuse_calls("EGW00201", 2)
    gateway.drop("calls", 2)
    gateway.fail(503, 1)
    gateway.refuse_calls("OPSQ1002", 1)
    gateway.expire_at(8)
    assert library.fetch_price("005930") is not None
    retried = [event.msg_cd or event.error for event in events if event.name == "call_retried"]
    assert sorted(map(str, retried)) == ["ConnectionError"] * 2 + ["EGW00201"] * 2 + ["HTTPError", "OPSQ1002"]
    assert names(events)[-1] == "call_recovered"


def test_a_function_that_recovered_by_itself_is_left_alone(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    headers = manager.headers("FHKST01010100")

    @retry_on_transient_error
    def fetch() -> Any:
        while True:
            answer = requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()
            if answer["rt_cd"] == "0":
                return answer["output"]

    gateway.refuse_calls("EGW00201", 2)
    assert fetch()
    assert (gateway.counts.calls, events) == (3, [])


# -- what is told


def test_events_say_why_how_long_and_which_function(no_backoff: None, events: list[RefreshEvent]) -> None:
    fetch = scripted(LIMITED, requests.ReadTimeout("slow"), GOOD)

    @retry_on_transient_error(idempotent=True)
    def nightly() -> Any:
        return fetch()

    assert nightly() == GOOD
    assert names(events) == ["call_retried", "call_retried", "call_recovered"]
    assert [(event.msg_cd, event.error) for event in events[:2]] == [("EGW00201", None), (None, "ReadTimeout")]
    assert all(event.elapsed is not None and event.elapsed >= 0 for event in events)
    assert {str(event.callable).rpartition(".")[2] for event in events} == {"nightly"}
    assert [event.attempt for event in events] == [1, 2, 3]


def test_giving_up_is_told_with_the_code_and_how_long_it_took(clock: FakeClock, events: list[RefreshEvent]) -> None:
    retry_on_transient_error(scripted(BUSY), policy=RetryPolicy(transient_deadline=3), idempotent=True)()
    assert (events[-1].name, events[-1].msg_cd) == ("call_given_up", "EGW00316")
    assert events[-1].elapsed == pytest.approx(3)
    assert sum(event.elapsed or 0 for event in events[:-1]) == pytest.approx(3)
