"""What a client is made of where something is given, where nothing is, and where it is the wrong thing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from clients import KINDS, Asking
from kis_retry import ConfigurationError, Credentials, MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager
from kis_retry.testing import KisGateway
from sources import NumberedTokens

CREDENTIALS = Credentials("key", "secret", base_url="http://127.0.0.1:1")


@pytest.fixture
def client_class(kind: str) -> type[Any]:
    return KINDS[kind]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"credentials": "key"}, r"credentials= takes Credentials \(Credentials\.from_env\(\)\), not str"),
        ({"credentials": Credentials}, "credentials= takes Credentials .*, not the class Credentials"),
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


@pytest.mark.parametrize(
    "timeout",
    [None, 0, -1.0, float("inf"), float("nan"), "3", True, [1, 2], (), (1,), (1, 2, 3), (1, None), (0, 1), (1, True)],
)
def test_a_timeout_is_seconds_or_seconds_to_connect_and_to_read(timeout: Any, client_class: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes seconds, or seconds to connect and to read"):
        client_class(CREDENTIALS, timeout=timeout)


def test_credentials_are_those_given_or_those_of_the_tokens_or_the_environments(
    client_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="KIS_APP_KEY"):
        client_class()
    others = Credentials("another-key", "secret")
    tokens = TokenManager(others, store=MemoryTokenStore())
    monkeypatch.setenv("KIS_APP_KEY", "key-of-the-environment")
    monkeypatch.setenv("KIS_APP_SECRET", "secret")
    assert client_class(CREDENTIALS, tokens=tokens).credentials is CREDENTIALS
    assert client_class(tokens=tokens).credentials is others
    assert client_class(tokens=NumberedTokens()).credentials.app_key == "key-of-the-environment"
    assert client_class().credentials.app_key == "key-of-the-environment"


def test_the_policy_is_the_one_given_or_that_of_the_tokens_or_the_environments(
    client_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = RetryPolicy(wait=1), RetryPolicy(wait=2)
    monkeypatch.setenv("KIS_RETRY_WAIT", "3")
    tokens = TokenManager(CREDENTIALS, store=MemoryTokenStore(), policy=theirs)
    assert client_class(tokens=tokens, policy=mine).policy is mine
    assert client_class(tokens=tokens).policy is theirs
    assert client_class(CREDENTIALS, tokens=NumberedTokens()).policy == RetryPolicy(wait=3)
    assert client_class(CREDENTIALS, policy=mine).tokens.policy is mine, "what it makes for itself goes by it too"


def test_a_copy_for_another_process_has_what_was_given(client_class: Any) -> None:
    policy = RetryPolicy(wait=1)
    tokens = TokenManager(CREDENTIALS, store=MemoryTokenStore(), policy=policy)
    limiter = RateLimiter(CREDENTIALS, rate=5)
    made = client_class(CREDENTIALS, tokens=tokens, policy=policy, limiter=limiter, timeout=(1, 2))
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is client_class
    assert (copy.credentials, copy.policy, copy.limiter.rate, copy.timeout) == (CREDENTIALS, policy, 5, (1, 2))


def test_from_env_takes_credentials_store_and_policy(
    kind: str, client_class: Any, gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "KIS_APP_KEY": gateway.credentials.app_key,
        "KIS_APP_SECRET": gateway.credentials.app_secret,
        "KIS_BASE_URL": gateway.url,
        "KIS_TOKEN_STORE": "memory",
        "KIS_RETRY_MAX_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    first, second = Asking(client_class.from_env()), Asking(client_class.from_env())
    assert first.fetch_domestic_price("005930")["rt_cd"] == "0"
    assert second.fetch_domestic_price("005930")["rt_cd"] == "0"
    assert gateway.counts.token_requests == 1, "one memory for the process"
    gateway.expire()
    assert first.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    first.shut()
    second.shut()


def test_a_repr_shows_no_secret(client: Asking, gateway: KisGateway) -> None:
    client.fetch_domestic_price("005930")
    made = client.client
    shown = f"{made!r} {made.tokens!r} {made.limiter!r} {made.credentials!r}"
    assert shown.startswith(type(made).__name__)
    for secret in (gateway.credentials.app_key, gateway.credentials.app_secret, str(gateway.current_token)):
        assert secret not in shown


@pytest.mark.one_python
def test_without_httpx_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text("raise ImportError('not installed')\n", "utf-8")
    program = (
        f"import sys; sys.path[:] = {[str(tmp_path), *sys.path]!r}\n"
        "from kis_retry import AsyncKisClient, Credentials, KisClient\n"
        "KisClient(Credentials('key', 'secret'))\n"
        "AsyncKisClient(Credentials('key', 'secret'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: AsyncKisClient needs httpx: pip install '.[async]'")
