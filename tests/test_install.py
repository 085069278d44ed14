"""`install` and `uninstall`: every request to KIS of this process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from answers import PRICE
from kis_retry import (
    ConfigurationError,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    install,
    refresh_on_expired_token,
    uninstall,
)
from kis_retry.testing import KisGateway

QUERY = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}


def headers_of(gateway: KisGateway, token: str | None = None) -> dict[str, str]:
    who = gateway.credentials
    value = token or gateway.issue_elsewhere()["access_token"]
    return {"authorization": f"Bearer {value}", "appkey": who.app_key, "appsecret": who.app_secret, "tr_id": "X"}


def price(gateway: KisGateway, headers: dict[str, str]) -> Any:
    return requests.get(gateway.url + PRICE, params=QUERY, headers=headers, timeout=5).json()


def test_any_request_of_any_thread_is_renewed_and_repeated(gateway: KisGateway) -> None:
    headers = headers_of(gateway)
    install(rate=0)
    gateway.expire()
    gateway.refuse_calls("EGW00201", 5)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: price(gateway, headers), range(24)))
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 24
    assert gateway.counts.token_requests == 1
    assert headers["authorization"] != f"Bearer {gateway.current_token}"  # a request is protected, not its caller


def test_without_a_pace_too_many_calls_a_second_are_no_storm(gateway: KisGateway) -> None:
    headers = headers_of(gateway)
    install(rate=0, policy=RetryPolicy(transient_deadline=0.5))
    gateway.refuse_calls("EGW00201")
    assert price(gateway, headers)["msg_cd"] == "EGW00201"
    assert gateway.counts.calls <= 11


def test_uninstall_ends_it(gateway: KisGateway) -> None:
    install()
    uninstall()
    headers = headers_of(gateway)
    gateway.expire()
    assert price(gateway, headers)["msg_cd"] == "EGW00123"
    uninstall()


def test_it_is_paced_for_each_app_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    with KisGateway() as one, KisGateway() as other:
        install(rate=20)
        wants = [(gateway, headers_of(gateway)) for gateway in (one, other) for _ in range(10)]
        began = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda want: price(*want), wants))
        assert 0.9 * 9 / 20 < time.monotonic() - began < 19 / 20
        for gateway in (one, other):
            arrivals = gateway.arrivals
            assert arrivals[-1] - arrivals[0] > 0.8 * 9 / 20


def test_the_given_sources_are_used_for_their_accounts(gateway: KisGateway) -> None:
    mine = TokenManager(gateway.credentials, store=MemoryTokenStore())
    with KisGateway() as other:
        theirs = TokenManager(other.credentials, store=MemoryTokenStore())
        install(tokens=[mine, theirs], rate=0)
        for each, manager in ((gateway, mine), (other, theirs)):
            headers = {"authorization": f"Bearer {manager.token().value}", "tr_id": "X"}  # no key, no secret
            each.expire()
            assert price(each, headers)["rt_cd"] == "0"
            assert manager.token().value == each.current_token


def test_a_decorated_function_keeps_its_own_rules_and_has_the_process_for_the_rest(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    install(rate=0, policy=RetryPolicy(max_retries=0))

    @refresh_on_expired_token(tokens=manager)
    def fetch() -> Any:
        return price(gateway, headers)

    headers = headers_of(gateway, manager.token().value)
    gateway.expire()
    assert price(gateway, headers)["rt_cd"] == "1"
    assert fetch()["rt_cd"] == "0"
    gateway.refuse_calls("EGW00201", 1)
    assert fetch()["rt_cd"] == "0"
    assert {event.callable for event in events} == {None, fetch.__qualname__}


def test_a_refusal_of_which_nobody_knows_whose_it_is_passes_with_one_warning(
    gateway: KisGateway, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    install(rate=0)
    for _ in range(2):
        assert price(gateway, {"authorization": "Bearer dead", "tr_id": "X"})["msg_cd"] == "EGW00121"
    assert [event.name for event in events] == ["call_given_up"] * 2
    assert len([record for record in caplog.records if "account_unknown" in record.message]) == 1


@pytest.mark.parametrize("wrong", [{"tokens": 3}, {"tokens": TokenManager}, {"tokens": [object()]}, {"policy": 3}])
def test_an_argument_of_the_wrong_kind_is_refused_by_its_keyword(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(wrong))}="):
        install(**wrong)


@pytest.mark.parametrize("rate", [-1, 5000, float("nan"), "18"])
def test_a_rate_that_cannot_be_used_is_refused(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match="rate="):
        install(rate=rate)


def test_a_bad_setting_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RATE_LIMIT", "fast")
    with pytest.raises(ConfigurationError, match="KIS_RATE_LIMIT"):
        install()


def test_switched_off_it_does_nothing_and_ends_what_was_installed(
    gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(rate=0)
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")
    install()
    assert price(gateway, {"authorization": "Bearer dead"})["rt_cd"] == "1"
