"""What a client is made of where something is given, where nothing is, and where it is the wrong thing."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import httpx
import pytest
import requests

from clients import KINDS, Asking
from kis_retry import (
    AsyncKisClient,
    ConfigurationError,
    Credentials,
    MemoryTokenStore,
    RateLimiter,
    RetryPolicy,
    TokenManager,
)
from kis_retry.testing import KisGateway
from sources import NumberedTokens

CREDENTIALS = Credentials("key", "secret", base_url="http://127.0.0.1:1")


@pytest.fixture
def client_class(kind: str) -> type[Any]:
    return KINDS[kind]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"credentials": "key"}, ".* takes a Credentials as credentials, not str"),
        ({"credentials": Credentials}, ".* takes a Credentials as credentials, not the class Credentials"),
        ({"tokens": "eyJ0eXAi"}, "tokens= takes a TokenSource .*, not str"),
        ({"tokens": TokenManager}, "tokens= takes a TokenSource .*, not the class TokenManager"),
        ({"policy": {"max_retries": 1}}, "policy= takes a RetryPolicy, not dict"),
        ({"limiter": 18}, "limiter= takes a RateLimiter .*, not int"),
        ({"session": "http://proxy"}, r"session= takes an? (requests\.Session|httpx\.AsyncClient), not str"),
        ({"session": object()}, r"session= takes an? (requests\.Session|httpx\.AsyncClient), not object"),
    ],
)
def test_what_cannot_do_its_part_is_refused_at_once(arguments: dict[str, Any], why: str, client_class: Any) -> None:
    with pytest.raises(TypeError, match=f"^{why}$"):
        client_class(**{"credentials": CREDENTIALS, **arguments})


def test_the_session_of_the_other_kind_is_refused(client_class: Any, kind: str) -> None:
    with requests.Session() as session, pytest.raises(TypeError, match=r"session= takes an? .*, not "):
        client_class(CREDENTIALS, session=httpx.AsyncClient() if kind == "sync" else session)


@pytest.mark.parametrize("timeout", [None, 0, float("inf"), float("nan"), "3", True, [1, 2], (1,), (1, None), (0, 1)])
def test_a_timeout_is_seconds_or_seconds_to_connect_and_to_read(timeout: Any, client_class: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes seconds, or seconds to connect and to read"):
        client_class(CREDENTIALS, timeout=timeout)


def test_what_is_not_given_is_of_the_tokens_or_the_environment(
    client_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="KIS_APP_KEY"):
        client_class()
    monkeypatch.setenv("KIS_APP_KEY", "key-of-the-environment")
    monkeypatch.setenv("KIS_APP_SECRET", "secret")
    monkeypatch.setenv("KIS_RETRY_WAIT", "3")
    mine, others = RetryPolicy(wait=1), Credentials("another-key", "secret")
    tokens = TokenManager(others, store=MemoryTokenStore(), policy=RetryPolicy(wait=2))
    for given, key, wait in (
        ({"credentials": CREDENTIALS, "tokens": tokens, "policy": mine}, "key", 1),
        ({"tokens": tokens}, "another-key", 2),
        ({"tokens": NumberedTokens()}, "key-of-the-environment", 3),
        ({}, "key-of-the-environment", 3),
    ):
        made = client_class(**given)
        assert (made.credentials.app_key, made.policy.wait) == (key, wait)
    assert client_class(policy=mine).tokens.policy is mine, "what it makes for itself goes by it too"


def test_a_copy_for_another_process_has_what_was_given(client_class: Any) -> None:
    policy = RetryPolicy(wait=1)
    tokens = TokenManager(CREDENTIALS, store=MemoryTokenStore(), policy=policy)
    limiter = RateLimiter(CREDENTIALS, rate=5)
    made = client_class(CREDENTIALS, tokens=tokens, policy=policy, limiter=limiter, timeout=(1, 2))
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is client_class
    assert (copy.credentials, copy.policy, copy.limiter.rate, copy.timeout) == (CREDENTIALS, policy, 5, (1, 2))


def test_from_env_takes_credentials_store_and_policy(
    client_class: Any, gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = gateway.credentials
    values = {"APP_KEY": keys.app_key, "APP_SECRET": keys.app_secret, "BASE_URL": gateway.url, "TOKEN_STORE": "memory"}
    for name, value in {**values, "RETRY_MAX_RETRIES": "0"}.items():
        monkeypatch.setenv(f"KIS_{name}", value)
    clients = [Asking(client_class.from_env()) for _ in range(2)]
    assert [client.fetch_domestic_price("005930")["rt_cd"] for client in clients] == ["0", "0"]
    assert gateway.counts.token_requests == 1, "one memory for the process"
    gateway.expire()
    assert clients[0].fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    for client in clients:
        client.shut()


def test_without_httpx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match="AsyncKisClient needs httpx: pip install httpx"):
        AsyncKisClient(CREDENTIALS)
