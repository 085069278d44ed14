"""Functions whose requests nobody sees are called again themselves, by the same card."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from types import MappingProxyType
from typing import Any

import pytest
import requests

from answers import EXPIRED, GOOD, PRICE
from kis_retry import (
    AccessToken,
    MemoryTokenStore,
    RateLimiter,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    install,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway
from outcomes import scripted, scripted_async
from sources import FAR, NumberedTokens

LIMITED = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
BUSY = {"rt_cd": "1", "msg_cd": "EGW00300", "msg1": ""}
PATIENT = RetryPolicy(transient_deadline=5)


@pytest.fixture
def tokens() -> NumberedTokens:
    return NumberedTokens()


def names(events: list[RefreshEvent]) -> list[str]:
    return [event.name for event in events]


# -- where the token is kept


def test_headers_are_rebound_in_the_callers_own_dict(tokens: NumberedTokens, events: list[RefreshEvent]) -> None:
    tokens.number = 2

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: str, headers: dict[str, str]) -> dict[str, str]:
        return tokens.answer(headers["Authorization"])

    headers = {"Authorization": "Bearer t1", "tr_id": "X"}
    assert fetch("005930", headers) == GOOD
    assert headers == {"Authorization": "Bearer t2", "tr_id": "X"}
    assert names(events) == ["token_expired", "token_refreshed", "call_retried", "call_recovered"]
    assert fetch("000660", headers=headers) == GOOD
    assert len(events) == 4


@pytest.mark.parametrize("name", ["authorization", "access_token", "token"])
@pytest.mark.parametrize(
    ("form", "expected"),
    [("t1", "t2"), ("Bearer t1", "Bearer t2"), ("bearer  t1 ", "bearer  t2 "), (AccessToken("t1", FAR), "t2")],
)
def test_a_parameter_is_rebound_in_its_own_form(tokens: NumberedTokens, name: str, form: Any, expected: str) -> None:
    tokens.number = 2
    seen: list[Any] = []

    def fetch(symbol: str, **given: Any) -> dict[str, str]:
        seen.append(given[name])
        return EXPIRED if len(seen) == 1 else GOOD

    assert refresh_on_expired_token(fetch, tokens=tokens)("005930", **{name: form}) == GOOD
    assert getattr(seen[1], "value", seen[1]) == expected
    assert type(seen[1]) is type(form)


@pytest.mark.parametrize(
    "headers", [{b"Authorization": b"Bearer t1"}, MappingProxyType({"authorization": "Bearer t1"})]
)
def test_headers_in_bytes_and_in_a_frozen_mapping_are_rebound(tokens: NumberedTokens, headers: Any) -> None:
    tokens.number = 2
    seen: list[Any] = []

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: Any) -> dict[str, str]:
        seen.extend(headers.values())
        return GOOD if len(seen) > 1 else EXPIRED

    fetch(headers)
    assert seen in ([b"Bearer t1", b"Bearer t2"], ["Bearer t1", "Bearer t2"])


@pytest.mark.parametrize("takes_self", [True, False])
def test_bind_is_called_once_for_a_token_and_an_object(tokens: NumberedTokens, takes_self: bool) -> None:
    bound: list[Any] = []

    with_self: Any = lambda self, token: bound.append((self, token.value))
    alone: Any = lambda token: bound.append(token.value)

    class Broker:
        @refresh_on_expired_token(tokens=tokens, bind=with_self if takes_self else alone)
        def fetch(self) -> dict[str, str]:
            return GOOD if bound else EXPIRED

    broker = Broker()
    assert broker.fetch() == GOOD
    assert bound == [(broker, "t2") if takes_self else "t2"]


def test_somebody_elses_token_beside_the_dead_one_is_never_overwritten(tokens: NumberedTokens) -> None:
    tokens.number = 2
    seen: list[Any] = []

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str], token: str) -> dict[str, str]:
        seen.append(token)
        return tokens.answer(headers["authorization"])

    assert fetch({"authorization": "Bearer t1"}, "xoxb-slack") == GOOD
    assert seen == ["xoxb-slack", "xoxb-slack"]


def test_an_empty_place_is_filled_for_the_repeat(tokens: NumberedTokens) -> None:
    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str]) -> dict[str, str]:
        return tokens.answer(headers.get("authorization", ""))

    assert fetch({}) == GOOD
    assert tokens.refreshed == []


def test_a_function_that_asks_its_manager_by_itself_is_called_again(gateway: KisGateway, manager: TokenManager) -> None:
    seen: list[str] = []

    @refresh_on_expired_token(tokens=manager)
    def fetch() -> dict[str, str]:
        seen.append(manager.headers("X")["authorization"])
        if len(seen) > 1:
            return GOOD
        gateway.expire()
        return EXPIRED

    assert fetch() == GOOD
    assert seen[0] != seen[1]


def test_a_function_that_would_go_out_with_the_same_dead_token_is_given_up_with_advice(
    manager: TokenManager, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    fetch = scripted(EXPIRED)
    decorated = refresh_on_expired_token(tokens=manager)(fetch)
    assert decorated() == EXPIRED
    assert decorated() == EXPIRED
    assert fetch.calls == 2
    assert [(event.name, event.msg_cd) for event in events] == [("call_given_up", "EGW00123")] * 2
    warnings = [record for record in caplog.records if "function_not_repeated" in record.message]
    assert len(warnings) == 1
    assert "bind=" in warnings[0].message
    assert refresh_on_expired_token(fetch)() == EXPIRED
    assert "pass tokens=" in caplog.text, "where there is no source"


# -- whose token


def test_the_source_is_the_argument_then_the_attribute_tokens_then_the_broker() -> None:
    class Broker:
        access_token = "Bearer t0"

        def __init__(self) -> None:
            self.tokens: Any = NumberedTokens("mine")
            self.forced: list[bool] = []

        def issue_access_token(self, force: bool = False) -> None:
            self.forced.append(force)
            self.access_token = "Bearer own"

    def fetch(broker: Broker) -> dict[str, str]:
        return EXPIRED if broker.access_token == "Bearer t0" else GOOD

    given, broker = NumberedTokens("given"), Broker()
    assert refresh_on_expired_token(tokens=given)(fetch)(broker) == GOOD
    assert (broker.access_token, broker.forced) == ("Bearer given1", [])
    broker = Broker()
    assert refresh_on_expired_token(fetch)(broker) == GOOD
    assert (broker.access_token, broker.forced) == ("Bearer mine1", [])
    broker.access_token, broker.tokens = "Bearer t0", ["no", "source"]
    assert refresh_on_expired_token(fetch)(broker) == GOOD
    assert broker.forced == [True]


def test_a_refresh_that_fails_hands_the_functions_own_answer_back(events: list[RefreshEvent]) -> None:
    tokens = NumberedTokens(error=TokenIssueError("no", code="EGW00103"))

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str]) -> dict[str, str]:
        return EXPIRED

    assert fetch(headers := {"authorization": "Bearer t1"}) == EXPIRED
    assert headers == {"authorization": "Bearer t1"}
    assert [(event.name, event.msg_cd) for event in events] == [
        ("token_expired", "EGW00123"),
        ("token_refresh_failed", "EGW00103"),
        ("call_given_up", "EGW00123"),
    ]


# -- how often


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_is_called_again_max_retries_times(tokens: NumberedTokens, retries: int) -> None:
    calls: list[str] = []

    @refresh_on_expired_token(tokens=tokens, policy=RetryPolicy(max_retries=retries))
    def fetch(token: str) -> dict[str, str]:
        calls.append(token)
        return EXPIRED

    assert fetch("t1") == EXPIRED
    assert len(calls) == 1 + retries
    assert len(set(calls)) == len(calls)


def test_an_error_that_carries_the_refusal_counts_and_the_last_one_is_raised(tokens: NumberedTokens) -> None:
    response = requests.Response()
    response.status_code, response._content = 500, b'{"rt_cd": "1", "msg_cd": "EGW00123"}'
    errors = [requests.HTTPError(response=response) for _ in range(2)]
    with pytest.raises(requests.HTTPError) as caught:
        refresh_on_expired_token(tokens=tokens)(scripted(*errors))(token="t1")
    assert caught.value is errors[1]


# -- failures that pass


def test_after_the_limit_any_function_is_called_again(events: list[RefreshEvent]) -> None:
    fetch = scripted(LIMITED, LIMITED, GOOD)
    assert retry_on_transient_error(policy=PATIENT)(fetch)() == GOOD
    told = [(event.name, event.msg_cd) for event in events]
    assert told == [("call_retried", "EGW00201")] * 2 + [("call_recovered", None)]


@pytest.mark.parametrize(("idempotent", "calls"), [(None, 1), (False, 1), (True, 2)])
def test_after_other_failures_only_where_it_is_said_to_be_a_read(idempotent: bool | None, calls: int) -> None:
    fetch = scripted(BUSY, GOOD)
    retry_on_transient_error(policy=PATIENT, idempotent=idempotent)(fetch)()
    assert fetch.calls == calls


@pytest.mark.parametrize(("method", "calls"), [("GET", 2), ("POST", 1)])
def test_an_error_that_carries_its_request_tells_whether_it_is_a_read(method: str, calls: int) -> None:
    error = requests.ConnectionError("dropped", request=requests.Request(method, "http://127.0.0.1/x"))
    fetch = scripted(error, GOOD)
    with contextlib.suppress(requests.ConnectionError):
        assert retry_on_transient_error(policy=PATIENT)(fetch)() == GOOD
    assert fetch.calls == calls


def test_a_deadline_of_zero_repeats_nothing(events: list[RefreshEvent]) -> None:
    fetch = scripted(LIMITED, GOOD)
    assert retry_on_transient_error(policy=RetryPolicy(transient_deadline=0))(fetch)() == LIMITED
    assert names(events) == ["call_given_up"]


@pytest.mark.parametrize("refresh_outside", [True, False])
def test_both_decorators_stack_in_either_order(tokens: NumberedTokens, refresh_outside: bool) -> None:
    fetch = scripted(LIMITED, EXPIRED, LIMITED, GOOD)
    refreshing = refresh_on_expired_token(tokens=tokens)
    repeating = retry_on_transient_error(policy=PATIENT)
    decorated = refreshing(repeating(fetch)) if refresh_outside else repeating(refreshing(fetch))
    assert decorated(token="t1") == GOOD
    assert fetch.calls == 4


def test_no_layer_around_one_that_could_not_help_tries_again(tokens: NumberedTokens) -> None:
    fetch = scripted(EXPIRED)
    refreshing = refresh_on_expired_token(tokens=tokens)
    assert refreshing(refreshing(fetch))(token="t1") == EXPIRED
    assert fetch.calls == 2


# -- coroutines


async def test_a_coroutine_function_is_awaited_again(tokens: NumberedTokens) -> None:
    fetch = scripted_async(LIMITED, EXPIRED, GOOD)
    decorated = retry_on_transient_error(policy=PATIENT)(refresh_on_expired_token(tokens=tokens)(fetch))
    assert inspect.iscoroutinefunction(decorated)
    assert await decorated(token="t1") == GOOD
    assert fetch.calls == 3


async def test_a_function_that_hands_on_a_coroutine_is_protected_until_that_is_done(tokens: NumberedTokens) -> None:
    fetch = scripted_async(EXPIRED, GOOD)
    decorated = refresh_on_expired_token(tokens=tokens)(lambda token: fetch(token=token))
    assert await decorated("t1") == GOOD


async def test_other_awaitables_come_back_as_they_are() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert refresh_on_expired_token(lambda: future)() is future


# -- how it is put on


def test_signature_docstring_and_name_are_kept() -> None:
    def fetch(symbol: str, *, headers: dict[str, str]) -> dict[str, Any]:
        """Fetch one."""
        return {}

    for decorate in (refresh_on_expired_token, refresh_on_expired_token(), retry_on_transient_error):
        decorated: Any = decorate(fetch)
        assert inspect.signature(decorated) == inspect.signature(fetch)
        assert (decorated.__doc__, decorated.__name__) == (fetch.__doc__, fetch.__name__)


def test_static_and_class_methods_are_decorated(tokens: NumberedTokens) -> None:
    class Api:
        @refresh_on_expired_token(tokens=tokens)
        @staticmethod
        def outside(token: str) -> dict[str, str]:
            return tokens.answer(f"Bearer {token}")

        inside = classmethod(refresh_on_expired_token(lambda cls, token: cls.outside(token), tokens=tokens))

    tokens.number = 2
    assert Api.outside("t1") == Api().outside("t1") == Api.inside("t1") == Api().inside("t1") == GOOD


class _Generating:
    def __call__(self) -> Any:
        yield 1


async def _async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (_Generating.__call__, "generator"),
        (_async_generator, "generator"),
        (_Generating(), "_Generating"),
        (_Generating, "protect"),
        (3, "int"),
        (NumberedTokens(), "tokens="),
    ],
)
def test_what_cannot_be_repeated_is_refused_where_it_is_given(wrong: Any, says: str) -> None:
    for decorate in (refresh_on_expired_token, retry_on_transient_error):
        with pytest.raises(TypeError, match=says):
            decorate(wrong)


@pytest.mark.parametrize(
    ("decorate", "option"),
    [
        (refresh_on_expired_token, {"tokens": TokenManager}),
        (refresh_on_expired_token, {"policy": 3}),
        (refresh_on_expired_token, {"bind": "headers"}),
        (retry_on_transient_error, {"limiter": 18}),
        (retry_on_transient_error, {"idempotent": "yes"}),
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused_by_its_keyword(decorate: Any, option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(option))}="):
        decorate(**option)


def test_switched_off_it_behaves_as_if_it_were_not_there(tokens: NumberedTokens, monkeypatch: Any) -> None:
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")
    fetch = scripted(EXPIRED)
    assert retry_on_transient_error(refresh_on_expired_token(tokens=tokens)(fetch))(token="t1") == EXPIRED
    assert (fetch.calls, tokens.refreshed) == (1, [])


def test_a_function_whose_requests_nobody_sees_takes_its_slots_itself(gateway: KisGateway) -> None:
    limiter = RateLimiter(gateway.credentials, rate=20, store=MemoryTokenStore())
    fetch = retry_on_transient_error(limiter=limiter)(lambda: time.monotonic())
    fetch()  # nobody knows yet
    times = [fetch() for _ in range(6)]
    assert times[-1] - times[0] > 0.8 * 5 / 20


@pytest.mark.parametrize("beside", ["nothing", "transient inside", "transient outside", "the process"])
def test_requests_that_are_only_noticed_are_not_changed_and_the_function_is_called_again(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent], beside: str
) -> None:
    def fetch(headers: dict[str, str]) -> Any:
        return requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()

    noticing = refresh_on_expired_token(tokens=manager, watch_transport=False)
    if beside == "the process":
        install(rate=0)
    inner = retry_on_transient_error(fetch) if beside == "transient inside" else fetch
    ask = retry_on_transient_error(noticing(inner)) if beside == "transient outside" else noticing(inner)
    headers = manager.headers("FHKST01010100")
    gateway.expire()
    assert ask(headers)["rt_cd"] == "0"
    assert headers["authorization"] == manager.authorization
    assert names(events) == ["token_expired", "token_refreshed", "call_retried", "call_recovered"]


def test_a_function_in_which_a_noticed_order_went_out_is_not_called_again(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    @refresh_on_expired_token(tokens=manager, watch_transport=False)
    def trade(headers: dict[str, str]) -> Any:
        requests.post(gateway.url + ORDER, json={"PDNO": "005930"}, headers=manager.headers("TTTC0012U"), timeout=5)
        return EXPIRED

    assert trade({"authorization": "Bearer dead"}) == EXPIRED
    assert len(gateway.orders) == 1
    assert names(events) == ["call_given_up"]
