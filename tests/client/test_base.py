"""What a client is made of where something is given, and where nothing is."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import requests

from kis_retry import Credentials, KisClient, MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager, forking
from kis_retry.client import base
from sources import NumberedTokens

CREDENTIALS = Credentials("key", "secret", base_url="http://127.0.0.1:1")


@pytest.fixture
def limiters(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Credentials, object]]:
    """Whose the limiters are that clients make for themselves, and where they share their pace."""
    made: list[tuple[Credentials, object]] = []

    def make(credentials: Credentials, *, store: Any) -> RateLimiter:
        made.append((credentials, store))
        return RateLimiter(credentials, rate=0, store=store)

    monkeypatch.setattr(base, "RateLimiter", make)
    return made


def test_the_pace_is_shared_where_the_token_is(limiters: list[tuple[Credentials, object]]) -> None:
    store = MemoryTokenStore()
    KisClient(CREDENTIALS, tokens=TokenManager(CREDENTIALS, store=store))
    assert limiters == [(CREDENTIALS, store)]


@pytest.mark.parametrize("store", [None, "somewhere"])
def test_a_source_that_does_not_tell_its_store_leaves_it_to_the_limiter(
    store: object, limiters: list[tuple[Credentials, object]]
) -> None:
    tokens: Any = NumberedTokens()
    if store is not None:
        tokens.store = store
    KisClient(CREDENTIALS, tokens=tokens)
    assert limiters == [(CREDENTIALS, None)]


def test_a_given_limiter_is_the_one_that_is_asked(limiters: list[tuple[Credentials, object]]) -> None:
    given = RateLimiter(CREDENTIALS, rate=0)
    assert KisClient(CREDENTIALS, limiter=given).limiter is given
    assert limiters == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"limiter": object()}, r"limiter= takes a RateLimiter, not object"),
        ({"limiter": 18}, r"limiter= takes a RateLimiter, not int"),
        ({"tokens": "eyJ0eXAi"}, r"tokens= takes a TokenSource \(token\(\) and refresh\(rejected\)\), not str"),
    ],
)
def test_what_cannot_do_its_part_is_refused_at_once(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(TypeError, match=f"^{why}$"):
        KisClient(CREDENTIALS, **arguments)


def test_all_but_the_credentials_is_given_by_name() -> None:
    tokens: Any = NumberedTokens()
    with pytest.raises(TypeError, match="positional"):
        KisClient(CREDENTIALS, tokens)  # type: ignore[call-arg]  # the mistake under test
    assert KisClient(credentials=CREDENTIALS, tokens=tokens).tokens is tokens


def test_credentials_are_those_given_or_those_of_the_tokens_or_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = Credentials("another-key", "secret")
    tokens = TokenManager(others, store=MemoryTokenStore())
    monkeypatch.setenv("KIS_APP_KEY", "key-of-the-environment")
    monkeypatch.setenv("KIS_APP_SECRET", "secret")
    assert KisClient(CREDENTIALS, tokens=tokens).credentials is CREDENTIALS
    assert KisClient(tokens=tokens).credentials is others
    assert KisClient(tokens=NumberedTokens()).credentials.app_key == "key-of-the-environment"
    assert KisClient().credentials.app_key == "key-of-the-environment"


def test_the_policy_is_the_one_given_or_that_of_the_tokens_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = RetryPolicy(wait=1), RetryPolicy(wait=2)
    monkeypatch.setenv("KIS_RETRY_WAIT", "3")
    tokens = TokenManager(CREDENTIALS, store=MemoryTokenStore(), policy=theirs)
    assert KisClient(tokens=tokens, policy=mine).policy is mine
    assert KisClient(tokens=tokens).policy is theirs
    odd: Any = NumberedTokens()
    for found in (None, "a policy"):
        odd.policy = found
        assert KisClient(CREDENTIALS, tokens=odd).policy == RetryPolicy(wait=3)
    made = KisClient(CREDENTIALS, policy=mine)
    assert isinstance(made.tokens, TokenManager)
    assert made.tokens.policy is mine, "what it makes for itself goes by it too"


def test_the_environments_policy_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = KisClient(CREDENTIALS, tokens=NumberedTokens())
    monkeypatch.setenv("KIS_RETRY_WAIT", "3")
    assert client.policy.wait == 3
    monkeypatch.setenv("KIS_RETRY_WAIT", "4")
    assert client.policy.wait == 3


def test_a_copy_for_another_process_has_what_was_given_and_makes_the_rest_anew() -> None:
    policy = RetryPolicy(wait=1)
    tokens = TokenManager(CREDENTIALS, store=MemoryTokenStore(), policy=policy)
    limiter = RateLimiter(CREDENTIALS, rate=5)
    with requests.Session() as session:
        client = KisClient(CREDENTIALS, tokens=tokens, policy=policy, limiter=limiter, session=session, timeout=(1, 2))
        copy = pickle.loads(pickle.dumps(client))
    assert (copy.credentials, copy.policy, copy.limiter.rate) == (CREDENTIALS, policy, 5)
    assert copy._session._timeout == (1, 2)
    assert copy._given_session is None, "sessions do not travel"


@pytest.mark.parametrize("given", [True, False])
def test_in_a_forked_child_a_client_opens_connections_of_its_own(
    given: bool, manager: TokenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.token()
    left: list[object] = []
    monkeypatch.setattr(forking, "_hooks", {})
    monkeypatch.setattr(base, "leave_connections_to_parent", left.append)
    with requests.Session() as session, KisClient(tokens=manager, session=session if given else None) as client:
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        before = client._session
        forking._run_hooks()  # as the child does
        assert client._session is not before
        assert left == ([session] if given else [])
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        before.close()
