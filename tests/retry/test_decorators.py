"""The decorator's contracts, on functions that a user writes."""

from __future__ import annotations

import functools
import inspect
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
import requests

from kis_retry import (
    AccessToken,
    KisClient,
    MemoryTokenStore,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    refresh_on_expired_token,
)
from kis_retry.testing import KisGateway
from sources import NumberedTokens

if TYPE_CHECKING:
    from kis_retry import RefreshEvent

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
EXPIRED = {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
GOOD = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다."}
FAR = datetime(2040, 1, 1, tzinfo=timezone.utc)


class Tokens:
    """A source of a user's own: numbered tokens, and a count of what it was asked."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.number = 1
        self.refreshed: list[str] = []
        self.fail = fail

    def token(self) -> AccessToken:
        return AccessToken(f"t{self.number}", FAR)

    def refresh(self, rejected: AccessToken) -> AccessToken:
        self.refreshed.append(rejected.value)
        if self.fail is not None:
            raise self.fail
        if rejected.value == f"t{self.number}":
            self.number += 1
        return self.token()


def accepts(tokens: Tokens, authorization: str | None) -> bool:
    """KIS, to whom the source's first token is dead."""
    return tokens.number > 1 and authorization == f"Bearer t{tokens.number}"


def test_bare_with_parentheses_and_with_arguments(gateway: KisGateway, manager: TokenManager) -> None:
    def fetch(source: TokenManager, symbol: str) -> dict[str, Any]:
        headers = source.headers("FHKST01010100")
        query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
        answer: dict[str, Any] = requests.get(gateway.url + PRICE, headers=headers, params=query, timeout=5).json()
        return answer

    class Broker:
        tokens = manager

        @refresh_on_expired_token
        def bare(self, symbol: str) -> dict[str, Any]:
            return fetch(self.tokens, symbol)

        @refresh_on_expired_token()
        def parentheses(self, symbol: str) -> dict[str, Any]:
            return fetch(self.tokens, symbol)

    with_arguments = refresh_on_expired_token(tokens=manager)(functools.partial(fetch, manager))
    broker = Broker()
    for call in (broker.bare, broker.parentheses, with_arguments):
        call("005930")
        gateway.expire()
        gateway.reset_counts()
        assert call("005930")["rt_cd"] == "0"
        assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)


def test_signature_docstring_and_name_are_kept() -> None:
    def fetch(symbol: str, *, headers: dict[str, str]) -> dict[str, Any]:
        """Fetch one."""
        return {}

    decorated = refresh_on_expired_token(tokens=Tokens())(fetch)
    assert inspect.signature(decorated) == inspect.signature(fetch)
    assert (decorated.__doc__, decorated.__name__) == (fetch.__doc__, fetch.__name__)


def test_static_and_class_methods_are_decorated_in_either_order() -> None:
    tokens = Tokens()

    class Api:
        @refresh_on_expired_token(tokens=tokens)
        @staticmethod
        def outside(headers: dict[str, str]) -> dict[str, str]:
            return GOOD if accepts(tokens, headers["authorization"]) else EXPIRED

        @classmethod
        @refresh_on_expired_token(tokens=tokens)
        def inside(cls, headers: dict[str, str]) -> dict[str, str]:
            return GOOD if accepts(tokens, headers["authorization"]) else EXPIRED

    assert Api.outside({}) == GOOD
    assert Api().inside({}) == GOOD


def test_what_cannot_be_repeated_is_refused_when_decorated() -> None:
    def generator() -> Any:
        yield 1

    async def async_generator() -> Any:
        yield 1

    class Thing:
        pass

    class Generating:
        def __call__(self) -> Any:
            yield 1

    class GeneratingAsync:
        async def __call__(self) -> Any:
            yield 1

    for wrong, says in (
        (generator, "generator"),
        (async_generator, "generator"),
        (functools.partial(generator), "generator"),
        (Generating(), "generator"),
        (GeneratingAsync(), "generator"),
        (Thing, "protect"),
        (3, "int"),
        (property(lambda self: 1), "property"),
    ):
        with pytest.raises(TypeError, match=says):
            refresh_on_expired_token(wrong)  # type: ignore[type-var]  # what is tested


@pytest.mark.parametrize("option", [{"tokens": object()}, {"policy": 3}, {"bind": "headers"}])
def test_an_option_of_the_wrong_kind_is_refused_when_decorated(option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(option))}="):
        refresh_on_expired_token(**option)(lambda: None)


def test_without_a_source_the_error_says_what_to_pass_and_nothing_is_called() -> None:
    called: list[str] = []
    fetch = refresh_on_expired_token(lambda symbol: called.append(symbol))
    with pytest.raises(TypeError, match="tokens="):
        fetch("005930")
    assert not called


def test_the_source_is_the_argument_then_the_first_arguments_tokens_then_the_broker() -> None:
    class Broker:
        access_token = "Bearer t0"

        def __init__(self) -> None:
            self.tokens: Any = Tokens()
            self.issued = 0

        def issue_access_token(self, force: bool = False) -> None:
            assert force
            self.issued += 1
            self.access_token = "Bearer own"

    def fetch(broker: Broker) -> dict[str, str]:
        return EXPIRED if broker.access_token == "Bearer t0" else GOOD

    mine = Tokens()
    broker = Broker()
    assert refresh_on_expired_token(tokens=mine)(fetch)(broker) == GOOD
    assert (len(mine.refreshed), broker.tokens.refreshed, broker.issued) == (1, [], 0)

    broker = Broker()
    assert refresh_on_expired_token(fetch)(broker) == GOOD
    assert (len(broker.tokens.refreshed), broker.issued) == (1, 0)

    broker = Broker()
    broker.tokens = ["no", "source"]
    assert refresh_on_expired_token(fetch)(broker) == GOOD
    assert broker.issued == 1


def test_a_broker_that_takes_no_force_is_asked_without() -> None:
    class Broker:
        access_token = "Bearer t0"

        def issue_access_token(self) -> None:
            self.access_token = "Bearer t1"

        @refresh_on_expired_token
        def fetch(self) -> dict[str, str]:
            return EXPIRED if self.access_token == "Bearer t0" else GOOD

    assert Broker().fetch() == GOOD


def test_a_broker_that_takes_whatever_option_is_asked_to_force() -> None:
    class Broker:
        access_token = "Bearer t0"

        def issue_access_token(self, **options: bool) -> None:
            assert options == {"force": True}
            self.access_token = "Bearer t1"

        @refresh_on_expired_token
        def fetch(self) -> dict[str, str]:
            return EXPIRED if self.access_token == "Bearer t0" else GOOD

    assert Broker().fetch() == GOOD


def test_a_dead_token_in_the_headers_is_replaced_before_the_call_whatever_its_letters() -> None:
    tokens = NumberedTokens()
    tokens.number = 9
    sent: list[str] = []

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str]) -> dict[str, str]:
        sent.append(headers["authorization"])
        return EXPIRED if sent[-1] == "Bearer t9" else GOOD

    for _ in range(2):
        assert fetch({"authorization": "Bearer t9"}) == GOOD
    assert sent == ["Bearer t9", "Bearer t10", "Bearer t10"]


def test_the_entry_is_filled_in_the_callers_own_headers_and_right_for_the_next_call() -> None:
    tokens = Tokens()

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: str, headers: dict[str, str]) -> dict[str, str]:
        return EXPIRED if headers["Authorization"] == "Bearer old" else GOOD

    headers = {"Authorization": "Bearer old", "tr_id": "X"}
    assert fetch("005930", headers) == GOOD
    assert headers == {"Authorization": "Bearer t1", "tr_id": "X"}
    tokens.refreshed.clear()
    assert fetch("000660", headers=headers) == GOOD
    assert not tokens.refreshed


HEADERS: dict[str, str] = {"tr_id": "X"}


def test_headers_left_to_their_default_count() -> None:
    tokens = Tokens()

    @refresh_on_expired_token(tokens=tokens)
    def fetch(symbol: str, headers: dict[str, str] = HEADERS) -> dict[str, str]:
        return GOOD if accepts(tokens, headers.get("authorization")) else EXPIRED

    assert fetch("005930") == GOOD
    assert HEADERS == {"tr_id": "X", "authorization": "Bearer t2"}


def test_a_superseded_token_of_the_source_is_replaced_before_kis_sees_it(
    gateway: KisGateway, manager: TokenManager
) -> None:
    @refresh_on_expired_token(tokens=manager)
    def fetch(headers: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()
        return answer

    headers = manager.headers("FHKST01010100")
    gateway.expire()
    manager.refresh(manager.token())
    assert fetch(headers)["rt_cd"] == "0"
    assert gateway.counts.refused == 0
    assert headers["authorization"] == manager.authorization


def test_a_token_that_the_source_never_handed_out_is_left_alone_and_nothing_is_issued_beside_it(
    gateway: KisGateway, manager: TokenManager
) -> None:
    @refresh_on_expired_token(tokens=manager)
    def fetch(headers: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()
        return answer

    own = f"Bearer {gateway.issue_elsewhere()['access_token']}"
    headers = {"authorization": own, "tr_id": "FHKST01010100"}
    assert fetch(headers)["rt_cd"] == "0"
    assert headers["authorization"] == own
    assert gateway.counts.token_requests == 0
    gateway.expire()
    assert fetch(headers)["rt_cd"] == "0"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)


def test_a_place_that_somebody_renewed_meanwhile_is_used_and_nothing_is_issued() -> None:
    tokens = Tokens()
    headers = {"authorization": "Bearer old"}
    seen: list[str] = []

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str]) -> dict[str, str]:
        seen.append(headers["authorization"])
        if len(seen) == 1:
            headers["authorization"] = "Bearer renewed"  # another thread, while the call was under way
            return EXPIRED
        return GOOD

    assert fetch(headers) == GOOD
    assert seen == ["Bearer old", "Bearer renewed"]
    assert not tokens.refreshed


def test_bind_puts_the_token_where_the_code_keeps_it() -> None:
    tokens = Tokens()
    base = {"authorization": "Bearer old"}

    @refresh_on_expired_token(tokens=tokens, bind=lambda token: base.update(authorization=token.bearer))
    def fetch() -> dict[str, str]:
        return EXPIRED if base["authorization"] == "Bearer old" else GOOD

    assert fetch() == GOOD
    assert base["authorization"].startswith("Bearer t")


def test_bind_after_a_refusal_of_the_sources_own_token_gets_a_new_one(
    gateway: KisGateway, manager: TokenManager
) -> None:
    base = {"authorization": manager.authorization, "tr_id": "FHKST01010100"}

    @refresh_on_expired_token(tokens=manager, bind=lambda token: base.update(authorization=token.bearer))
    def fetch() -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(gateway.url + PRICE, headers=base, timeout=5).json()
        return answer

    gateway.expire()
    assert fetch()["rt_cd"] == "0"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 2)


@pytest.mark.parametrize("form", ["Bearer old", "old", "bearer old"])
@pytest.mark.parametrize("name", ["token", "access_token", "authorization"])
def test_a_token_argument_keeps_its_form(name: str, form: str) -> None:
    tokens = Tokens()
    seen: list[str] = []

    def fetch(symbol: str, **given: str) -> dict[str, str]:
        seen.append(given[name])
        return EXPIRED if given[name] == form else GOOD

    assert refresh_on_expired_token(tokens=tokens)(fetch)("005930", **{name: form}) == GOOD
    assert seen == [form, form.replace("old", "t2") if tokens.number == 2 else form.replace("old", "t1")]


@pytest.mark.parametrize("status", [500, 200])
def test_a_response_is_judged_by_its_body_whatever_its_status(status: int) -> None:
    with KisGateway(expired_status=status) as gateway:
        manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())

        @refresh_on_expired_token(tokens=manager)
        def fetch() -> requests.Response:
            return requests.get(gateway.url + PRICE, headers=manager.headers("FHKST01010100"), timeout=5)

        manager.token()
        gateway.expire()
        assert fetch().json()["rt_cd"] == "0"


def test_raise_for_status_before_json_is_recognised(gateway: KisGateway) -> None:
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=0))

    @refresh_on_expired_token(tokens=manager)
    def fetch() -> dict[str, Any]:
        response = requests.get(gateway.url + PRICE, headers=manager.headers("FHKST01010100"), timeout=5)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    manager.token()
    gateway.expire()
    assert fetch()["rt_cd"] == "0"
    gateway.refuse_calls()
    with pytest.raises(requests.HTTPError) as caught:
        fetch()
    assert caught.value.response.json()["msg_cd"] == "EGW00123"
    assert caught.value.__context__ is None


def test_another_exception_passes_through_and_is_not_repeated() -> None:
    calls: list[int] = []

    @refresh_on_expired_token(tokens=Tokens())
    def fetch() -> None:
        calls.append(1)
        raise requests.Timeout

    with pytest.raises(requests.Timeout):
        fetch()
    assert calls == [1]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("attempt", [1, 2])
def test_what_is_no_exception_passes_straight_through(kind: type[BaseException], attempt: int) -> None:
    calls: list[int] = []

    @refresh_on_expired_token(tokens=Tokens())
    def fetch() -> dict[str, str]:
        calls.append(1)
        if len(calls) == attempt:
            raise kind
        return EXPIRED

    with pytest.raises(kind):
        fetch()
    assert len(calls) == attempt


def test_when_the_refresh_fails_the_original_answer_comes_back(events: list[RefreshEvent]) -> None:
    tokens = Tokens(fail=RuntimeError("no token, and the text holds a secret"))
    calls: list[int] = []

    @refresh_on_expired_token(tokens=tokens)
    def fetch() -> dict[str, str]:
        calls.append(1)
        return EXPIRED

    assert fetch() is EXPIRED
    assert calls == [1]
    assert [event.name for event in events] == ["token_expired", "token_refresh_failed", "call_given_up"]
    assert events[1].error == "RuntimeError"


def test_when_bind_fails_the_original_answer_comes_back(events: list[RefreshEvent]) -> None:
    def bind(token: AccessToken) -> None:
        raise LookupError

    assert refresh_on_expired_token(tokens=Tokens(), bind=bind)(lambda: EXPIRED)() is EXPIRED
    assert events[1].error == "bind:LookupError"


def test_the_last_answer_of_all_attempts_comes_back() -> None:
    tokens = Tokens()
    answers = iter([{**EXPIRED, "n": n} for n in range(9)])
    fetch = refresh_on_expired_token(tokens=tokens, policy=RetryPolicy(max_retries=3))(lambda: next(answers))
    assert fetch() == {**EXPIRED, "n": 3}
    assert len(tokens.refreshed) == 3


def test_the_wait_of_the_policy_lies_between_refresh_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    tokens = Tokens()
    fetch = refresh_on_expired_token(tokens=tokens, policy=RetryPolicy(wait=2.5))(
        lambda: GOOD if tokens.refreshed else EXPIRED
    )
    assert fetch() == GOOD
    assert slept == [2.5]


def test_switched_off_by_the_environment_functions_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")
    headers: dict[str, str] = {}
    tokens = Tokens()
    assert refresh_on_expired_token(tokens=tokens)(lambda headers: EXPIRED)(headers) is EXPIRED
    assert refresh_on_expired_token(lambda symbol: EXPIRED)("005930") is EXPIRED  # no source, and none needed
    assert (headers, tokens.refreshed) == ({}, [])


def test_codes_of_the_policy_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_EXPIRED_CODES", "EGW00121")
    tokens = Tokens()
    assert refresh_on_expired_token(tokens=tokens)(lambda: EXPIRED)() is EXPIRED
    assert not tokens.refreshed


def test_nested_three_deep_and_dead_for_ever_one_issue_and_one_repeat(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    @refresh_on_expired_token(tokens=manager)
    def inner() -> dict[str, Any]:
        headers = manager.headers("FHKST01010100")
        answer: dict[str, Any] = requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()
        return answer

    @refresh_on_expired_token(tokens=manager)
    def middle() -> dict[str, Any]:
        return inner()

    @refresh_on_expired_token(tokens=manager)
    def outer() -> dict[str, Any]:
        return middle()

    assert outer()["rt_cd"] == "0"
    gateway.expire()
    gateway.refuse_calls()
    gateway.reset_counts()
    assert outer()["msg_cd"] == "EGW00123"
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)
    assert [event.name for event in events][-4:] == [
        "token_expired",
        "token_refreshed",
        "token_expired",
        "call_given_up",
    ]
    gateway.heal()
    gateway.expire()
    gateway.reset_counts()
    assert outer()["rt_cd"] == "0"
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)


def test_the_story_of_one_expiry(gateway: KisGateway, client: KisClient, events: list[RefreshEvent]) -> None:
    client.fetch_domestic_price("005930")
    assert not events  # a first token refreshes nothing
    old = client.tokens.token().fingerprint
    gateway.expire()
    client.fetch_domestic_price("005930")
    expired, refreshed, recovered = events
    new = client.tokens.token()
    assert (expired.name, expired.token, expired.msg_cd, expired.attempt) == ("token_expired", old, "EGW00123", 1)
    assert expired.callable == "KisClient.fetch_domestic_price"
    assert (refreshed.name, refreshed.token, refreshed.previous_token) == ("token_refreshed", new.fingerprint, old)
    assert (refreshed.source, refreshed.expires_at) == ("issued", new.expires_at)
    assert (recovered.name, recovered.attempt) == ("call_recovered", 2)


def test_the_same_token_handed_out_again_is_used_once_more_and_said(events: list[RefreshEvent]) -> None:
    with KisGateway(issue_interval=0) as gateway:
        client = KisClient(tokens=TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy()))
        token = client.tokens.token()
        gateway.refuse_calls(1)  # a hiccup: the token is good
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        assert events[1].name == "token_refreshed"
        assert events[1].token == events[1].previous_token == token.fingerprint
        gateway.refuse_calls()
        gateway.reset_counts()
        assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
        assert (gateway.counts.calls, gateway.counts.token_requests) == (2, 1)


def test_a_first_token_that_cannot_be_had_is_an_error_where_there_is_none_to_try(gateway: KisGateway) -> None:
    gateway.refuse_tokens(code="EGW00103")
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    fetch = refresh_on_expired_token(tokens=manager)(lambda headers: EXPIRED)
    with pytest.raises(TokenIssueError):
        fetch({})
    assert fetch({"authorization": "Bearer own"}) is EXPIRED  # there is one to try
