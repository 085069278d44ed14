"""`TokenManager` as people use it: headers, arguments, the environment, pickling, revoking, its events, its session."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import requests

from clocks import FakeClock
from crowds import ended, started
from kis_retry import (
    AccessToken,
    ConfigurationError,
    Credentials,
    FileTokenStore,
    KisRetryError,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueLimited,
    TokenManager,
    TokenSource,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from patience import until_async

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from clocks import Make

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"


def msg_cd(gateway: KisGateway, token: AccessToken) -> str:
    """What KIS says to a call with that token."""
    headers = {"authorization": token.bearer, "appkey": gateway.credentials.app_key, "tr_id": "FHKST01010100"}
    query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}
    return str(requests.get(gateway.url + PRICE, params=query, headers=headers, timeout=5).json()["msg_cd"])


# --- the face


def test_a_manager_is_a_token_source(manager: TokenManager, gateway: KisGateway) -> None:
    assert isinstance(manager, TokenSource)
    token = manager.token()
    assert manager.authorization == f"Bearer {token.value}" == f"Bearer {gateway.current_token}"
    assert msg_cd(gateway, token) == "MCA00000"


def test_headers_are_all_that_kis_wants(manager: TokenManager) -> None:
    given = manager.credentials
    headers = manager.headers("FHKST01010100", custtype="P", tr_cont="N")
    assert headers == {
        "content-type": "application/json",
        "authorization": manager.authorization,
        "appkey": given.app_key,
        "appsecret": given.app_secret,
        "tr_id": "FHKST01010100",
        "custtype": "P",
        "tr_cont": "N",
    }
    assert manager.headers("X", appkey="mine")["appkey"] == "mine"
    assert manager.headers("X") is not manager.headers("X"), "a dict of the caller's own"


async def test_on_a_loop_headers_are_got_without_stopping_it(manager: TokenManager, gateway: KisGateway) -> None:
    import asyncio

    gateway.hang("tokens", 1)
    getting: asyncio.Task[dict[str, str]] = asyncio.create_task(manager.headers_async("FHKST01010100", custtype="P"))
    await until_async(lambda: gateway.counts.token_requests == 1)
    assert not getting.done()
    gateway.heal()
    assert await getting == manager.headers("FHKST01010100", custtype="P")
    assert await manager.token_async() is manager.token()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"credentials": "key"}, "credentials, not str"),
        ({"credentials": None}, "credentials, not NoneType"),
        ({"credentials": Credentials}, "credentials, not the class Credentials"),
        ({"store": FileTokenStore}, "store, not the class FileTokenStore"),
        ({"store": "redis://localhost"}, "store, not str"),
        ({"policy": 3}, "policy, not int"),
    ],
)
def test_a_wrong_argument_is_named_where_it_is_given(arguments: dict[str, Any], named: str) -> None:
    given = {"credentials": Credentials("key", "secret"), **arguments}
    with pytest.raises(TypeError, match=named):
        TokenManager(given.pop("credentials"), **given)


# --- the environment


def test_from_env_reads_all_of_it(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = gateway.credentials
    for name, value in {
        "KIS_APP_KEY": given.app_key,
        "KIS_APP_SECRET": given.app_secret,
        "KIS_BASE_URL": given.base_url,
        "KIS_TOKEN_STORE": str(tmp_path / "tokens"),
        "KIS_RETRY_ISSUE_WAIT": "7",
        "KIS_SECOND_APP_KEY": "second key",
        "KIS_SECOND_APP_SECRET": "second secret",
    }.items():
        monkeypatch.setenv(name, value)
    manager = TokenManager.from_env()
    assert manager.credentials.app_key == given.app_key
    assert manager.policy.issue_wait == 7
    assert repr(manager.store) == repr(FileTokenStore(tmp_path / "tokens"))
    assert manager.token().value == gateway.current_token
    assert TokenManager.from_env(prefix="KIS_SECOND_").credentials.app_key == "second key"


def test_store_and_policy_are_read_when_first_needed(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = TokenManager(gateway.credentials)
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "soon")
    with pytest.raises(ConfigurationError, match="KIS_RETRY_ISSUE_WAIT"):
        manager.token()
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "3")
    monkeypatch.setenv("KIS_TOKEN_STORE", "nowhere")
    with pytest.raises(ConfigurationError, match="KIS_TOKEN_STORE"):
        manager.token()
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    assert manager.token().value == gateway.current_token
    assert manager.policy.issue_wait == 3


def test_a_pickled_manager_shares_the_store_and_carries_no_token(gateway: KisGateway, tmp_path: Path) -> None:
    policy, store = RetryPolicy(issue_wait=5), FileTokenStore(tmp_path / "cache")
    manager = TokenManager(gateway.credentials, store=store, policy=policy, session=requests.Session())
    token = manager.token()
    packed = pickle.dumps(manager)
    assert token.value.encode() not in packed
    arrived: TokenManager = pickle.loads(packed)
    assert arrived.token() == token
    assert arrived.policy == policy
    assert gateway.counts.token_requests == 1


# --- revoking


def test_a_revoked_token_is_forgotten_everywhere(manager: TokenManager, gateway: KisGateway) -> None:
    token = manager.token()
    assert manager.revoke() is True
    assert msg_cd(gateway, token) == "EGW00121"
    assert manager.peek() is None
    assert manager.is_dead(token.value)
    assert manager.store.load(key_of(gateway.credentials)) is None
    gateway.expire()  # the minute begins anew
    assert manager.token() != token


def test_who_revokes_means_the_shared_token_and_not_an_older_one_in_its_memory(
    make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    store = MemoryTokenStore()
    idle, busy = make(store), make(store)
    old = idle.token()
    timed.expire()
    clock.pass_by(1)
    shared = busy.refresh(old)
    assert idle.revoke() is True
    assert store.load(key_of(timed.credentials)) is None
    assert msg_cd(timed, shared) == "EGW00121"


def test_a_token_that_kis_did_not_revoke_is_still_shared(manager: TokenManager, gateway: KisGateway) -> None:
    token = manager.token()
    gateway.refuse_tokens("EGW00105", path="revokeP")
    with pytest.raises(KisRetryError, match="EGW00105") as caught:
        manager.revoke()
    assert token.value not in str(caught.value)
    assert manager.token() == token == manager.store.load(key_of(gateway.credentials))


# --- events

TAKES = 3.0


@pytest.fixture
def slow(timed: KisGateway, clock: FakeClock) -> TokenManager:
    """A manager whose requests take three seconds of the clock."""

    class Slow(requests.Session):
        def post(self, *arguments: Any, **options: Any) -> requests.Response:
            clock.now += TAKES
            return super().post(*arguments, **options)

    policy = RetryPolicy(refresh_margin=600)
    return TokenManager(timed.credentials, store=MemoryTokenStore(), policy=policy, session=Slow(), clock=clock)


@pytest.mark.parametrize("seconds", [86_400, 86_400 - 300], ids=["past the expiry", "ahead of it"])
@pytest.mark.parametrize("fails", [False, True], ids=["renewed", "failed"])
def test_a_renewal_is_told_and_one_that_failed(
    seconds: float, fails: bool, slow: TokenManager, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    old = slow.token()
    if fails:
        timed.refuse_tokens("EGW00105")
    clock.now += seconds
    new = slow.token()
    assert (new == old) is fails
    shared: dict[str, Any] = {"previous_token": old.fingerprint, "expires_at": new.expires_at, "elapsed": TAKES}
    if fails:
        failed = RefreshEvent(name="token_refresh_failed", msg_cd="EGW00105", error="TokenIssueError", **shared)
        assert events == [failed]
    else:
        assert events == [RefreshEvent(name="token_refreshed", token=new.fingerprint, source="issued", **shared)]


def test_each_wait_for_the_minute_is_told_with_how_long_it_may_last(
    slow: TokenManager, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    timed.refuse_tokens("EGW00133")
    waits = [60.0, slow.policy.issue_wait - 60 - 2 * TAKES]
    for refreshes in (1, 2):  # a minute passes for certain: nobody fails in its cool-down
        with pytest.raises(TokenIssueLimited):
            slow.token()
        assert [(event.name, event.msg_cd, event.error) for event in events] == [
            ("token_issue_waiting", "EGW00133", "TokenIssueLimited")
        ] * 2 * refreshes
        assert [event.wait for event in events[:2]] == waits
    assert timed.counts.token_requests <= 2 * 3


def test_where_a_token_comes_from_is_told(make: Make, timed: KisGateway, events: list[RefreshEvent]) -> None:
    store = MemoryTokenStore()
    manager, other = make(store), make(store)
    old = other.token()
    manager.token()
    timed.expire()
    new = manager.refresh(old)
    assert other.refresh(old) == manager.refresh(f"Bearer {old.value}") == new
    assert timed.counts.token_requests == 2
    assert [(event.name, event.source) for event in events] == [
        ("token_refreshed", "issued"),
        ("token_adopted", "store"),
        ("token_adopted", "memory"),
    ]


# --- the websocket key


def test_the_websocket_key_is_issued_once_for_everybody(gateway: KisGateway) -> None:
    store = MemoryTokenStore()
    managers = [TokenManager(gateway.credentials, store=store, policy=RetryPolicy()) for _ in range(2)]
    got: list[str] = []
    ended(started(8, lambda: got.extend(manager.approval_key() for manager in managers)))
    assert got == gateway.approval_keys * 16
    assert len(gateway.approval_keys) == 1


def test_the_websocket_key_is_renewed_before_its_24_hours_are_over(
    make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    store = MemoryTokenStore()
    first = make(store).approval_key()
    clock.now += 86_400 - 601
    manager = make(store)
    assert manager.approval_key() == first
    clock.now += 1
    second = manager.approval_key()
    assert [first, second] == timed.approval_keys
    assert make(store).approval_key() == second


def test_token_and_websocket_key_are_kept_apart(gateway: KisGateway, tmp_path: Path) -> None:
    manager = TokenManager(gateway.credentials, store=FileTokenStore(tmp_path / "cache"), policy=RetryPolicy())
    token, key = manager.token(), manager.approval_key()
    again = TokenManager(gateway.credentials, store=FileTokenStore(tmp_path / "cache"), policy=RetryPolicy())
    assert (again.token(), again.approval_key()) == (token, key)
    assert manager.revoke()
    assert again.approval_key() == key
