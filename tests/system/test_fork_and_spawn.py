"""Clients and managers that were made in one process and are used in another: after `os.fork`, and pickled."""

from __future__ import annotations

import multiprocessing
import operator
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from children import Child
from kis_retry import (
    Credentials,
    FileTokenStore,
    KisClient,
    MemoryTokenStore,
    RedisTokenStore,
    RetryPolicy,
    TokenManager,
    TokenStore,
)
from kis_retry.testing import KisGateway
from patience import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# From 3.12 on a fork is warned of where other threads are alive; that they are is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def no_session(tokens: TokenManager) -> bool:
    return tokens._refresher._issuer._session is None


def good(client: KisClient, symbols: Sequence[str] = ("005930",)) -> bool:
    """Whether each call gets the answer to its own question."""
    answers = [(symbol, client.fetch_domestic_price(symbol)) for symbol in symbols]
    return all(answer["rt_cd"] == "0" and answer["output"]["stck_shrn_iscd"] == symbol for symbol, answer in answers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def client(gateway: KisGateway, folder: Path) -> Iterator[KisClient]:
    tokens = TokenManager(gateway.credentials, store=FileTokenStore(folder), policy=RetryPolicy())
    with KisClient(tokens=tokens) as made:
        yield made


# --- fork


def test_children_forked_before_the_first_call_share_one_issue(client: KisClient, gateway: KisGateway) -> None:
    children = [Child(lambda: good(client)) for _ in range(4)]
    assert [child.ended_well() for child in children] == [True] * 4
    assert good(client)
    assert gateway.counts.token_requests == 1


def test_children_forked_from_a_busy_parent_lose_nothing_over_an_expiry(client: KisClient, gateway: KisGateway) -> None:
    assert good(client)
    gateway.expire_at(gateway.counts.calls + 50)
    gateway.reset_counts()
    children = [Child(lambda n=n: good(client, [f"{n}{k:05}" for k in range(25)])) for n in range(1, 5)]  # type: ignore[misc]  # mypy does not know the default's type
    assert good(client, [f"9{k:05}" for k in range(25)])
    assert [child.ended_well() for child in children] == [True] * 4
    assert gateway.counts.answered == 125
    assert gateway.counts.token_requests == 1


def test_a_pool_of_forked_workers_uses_the_client_of_its_parent(client: KisClient, gateway: KisGateway) -> None:
    assert good(client)
    gateway.expire()
    gateway.reset_counts()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        answers = list(pool.map(client.fetch_domestic_price, ["005930", "000660"] * 4))
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 8
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("store", ["file", "memory", "redis"])
def test_a_child_forked_while_another_thread_asks_kis_does_not_wait_for_ever(
    store: str, gateway: KisGateway, folder: Path, valkey_server: Any
) -> None:
    valkey_server.flush()
    places: dict[str, Callable[[], TokenStore]] = {
        "file": lambda: FileTokenStore(folder),
        "memory": MemoryTokenStore,
        "redis": lambda: RedisTokenStore(valkey_server.url),
    }
    policy = RetryPolicy(issue_wait=0)
    client = KisClient(tokens=TokenManager(gateway.credentials, store=places[store](), policy=policy))
    assert good(client)
    gateway.expire()
    gateway.reset_counts()
    gateway.hang("tokens", 1)
    asking = threading.Thread(target=good, args=[client], daemon=True)
    asking.start()
    until(lambda: gateway.counts.token_requests == 1)
    child = Child(lambda: good(client))
    if store == "memory":  # a place of its own since the fork: it asks for itself
        assert child.ended_well()
        assert asking.is_alive()
        assert gateway.counts.token_requests == 2
        gateway.heal()
        asking.join(PATIENCE)
    else:
        time.sleep(0.2)
        assert child.lives(), "it waits for the store's lock"
        assert gateway.counts.refused == 1, "it inherited that its token is refused"
        gateway.heal()
        assert child.ended_well()
        asking.join(PATIENCE)
        assert gateway.counts.token_requests == 1, "the child took what its parent got"


def test_the_lock_of_the_parent_is_still_the_parents_after_the_child_ended(
    client: KisClient, gateway: KisGateway, folder: Path
) -> None:
    assert good(client)
    gateway.expire()
    gateway.reset_counts()
    gateway.hang("tokens", 1)
    asking = threading.Thread(target=good, args=[client], daemon=True)
    asking.start()
    until(lambda: gateway.counts.token_requests == 1)
    assert Child(lambda: True).ended_well()
    with FileTokenStore(folder).lock(next(folder.glob("*.json")).stem, timeout=0, lease=1) as held:
        assert held is False
    gateway.heal()
    asking.join(PATIENCE)
    assert good(client)
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("given", [False, True])
def test_children_never_talk_over_their_parents_connections(gateway: KisGateway, given: bool) -> None:
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=0))
    client = KisClient(tokens=manager, session=requests.Session() if given else None)
    assert good(client)
    gateway.latency = 0.01  # so that the questions of all are under way at once
    children = [Child(lambda n=n: good(client, [f"{n}{k:05}" for k in range(10)])) for n in range(1, 5)]  # type: ignore[misc]  # as above
    assert good(client, [f"9{k:05}" for k in range(10)])
    assert [child.ended_well() for child in children] == [True] * 4


def test_children_do_not_ask_for_tokens_over_their_parents_connection() -> None:
    with KisGateway(issue_interval=0, latency=0.02) as gateway:
        policy = RetryPolicy(issue_timeout=2)
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy)
        for _ in range(3):
            tokens.refresh(tokens.token())  # which leaves an open connection behind
            before = gateway.counts.token_requests
            children = [Child(lambda: no_session(tokens) and bool(tokens.refresh(tokens.token()))) for _ in range(4)]
            assert [child.ended_well() for child in children] == [True] * 4
            assert gateway.counts.token_requests == before + 4, "none had to ask again"


def test_children_keep_the_settings_of_a_session_that_was_given() -> None:
    with KisGateway(issue_interval=0, latency=0.02) as gateway, requests.Session() as session:
        sent: list[str] = []
        session.headers["x-desk"] = "night"
        session.hooks["response"].append(lambda answer, **_: sent.append(answer.request.headers["x-desk"]))
        session.mount("http://", HTTPAdapter(pool_maxsize=3, max_retries=2))
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(), session=session)
        tokens.refresh(tokens.token())  # which leaves an open connection behind
        before = gateway.counts.token_requests

        def refreshed() -> bool:
            sent.clear()
            adapter = session.get_adapter(gateway.url)
            kept = isinstance(adapter, HTTPAdapter) and adapter.max_retries.total == 2
            return kept and bool(tokens.refresh(tokens.token())) and sent == ["night"]

        assert [child.ended_well() for child in [Child(refreshed) for _ in range(4)]] == [True] * 4
        assert gateway.counts.token_requests == before + 4, "none had to ask again"


# --- spawn


@pytest.fixture(scope="module")
def spawned() -> Iterator[ProcessPoolExecutor]:
    """Two workers that have inherited nothing."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(threading.active_count).result(PATIENCE)  # its threads begin with it, and not in a test
        yield pool


FETCH = operator.methodcaller("fetch_domestic_price", "005930")
TOKEN = operator.methodcaller("token")


def test_pickled_managers_find_the_shared_token(
    spawned: ProcessPoolExecutor, client: KisClient, gateway: KisGateway
) -> None:
    token = client.tokens.token()
    assert list(spawned.map(TOKEN, [client.tokens] * 4)) == [token] * 4
    assert gateway.counts.token_requests == 1


def test_pickled_clients_find_the_shared_token_and_share_the_next_one(
    spawned: ProcessPoolExecutor, client: KisClient, gateway: KisGateway
) -> None:
    assert good(client)
    assert [answer["rt_cd"] for answer in spawned.map(FETCH, [client] * 6)] == ["0"] * 6
    assert gateway.counts.token_requests == 1
    gateway.expire()
    assert [answer["rt_cd"] for answer in spawned.map(FETCH, [client] * 6)] == ["0"] * 6
    assert good(client)
    assert gateway.counts.token_requests == 2


def test_a_pickled_manager_on_redis_finds_the_shared_token(
    spawned: ProcessPoolExecutor, gateway: KisGateway, valkey_server: Any
) -> None:
    valkey_server.flush()
    manager = TokenManager(gateway.credentials, store=RedisTokenStore(valkey_server.url))
    token = manager.token()
    assert list(spawned.map(TOKEN, [manager] * 4)) == [token] * 4
    assert gateway.counts.token_requests == 1


def test_workers_of_a_client_from_the_environment_read_it_again_and_no_secret_travels(
    gateway: KisGateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_APP_KEY", gateway.credentials.app_key)
    monkeypatch.setenv("KIS_APP_SECRET", gateway.credentials.app_secret)
    monkeypatch.setenv("KIS_ACCOUNT_NO", "12345678-01")
    monkeypatch.setenv("KIS_BASE_URL", gateway.url)
    monkeypatch.setenv("KIS_TOKEN_STORE", str(folder))
    client = KisClient.from_env()
    token = client.tokens.token()
    for travelling in (client, client.tokens, client.credentials):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(travelling, protocol)
            for secret in (client.credentials.app_key, client.credentials.app_secret, "12345678", token.value):
                assert secret.encode() not in data
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(FETCH, client).result(PATIENCE)["rt_cd"] == "0"
    assert gateway.counts.token_requests == 1


def test_credentials_that_are_nowhere_else_travel_and_the_token_does_not(client: KisClient) -> None:
    token = client.tokens.token()
    data = pickle.dumps(client)
    assert client.credentials.app_secret.encode() in data
    assert token.value.encode() not in data


def test_credentials_of_another_environment_travel(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", "somebody-elses-key")
    monkeypatch.setenv("KIS_APP_SECRET", "somebody-elses-secret")
    assert pickle.loads(pickle.dumps(gateway.credentials)) == gateway.credentials
    assert b"somebody" not in pickle.dumps(Credentials.from_env())


def test_a_manager_is_pickled_while_another_thread_asks_and_is_whole(
    client: KisClient, gateway: KisGateway, folder: Path
) -> None:
    gateway.hang("tokens", 1)
    asking = threading.Thread(target=good, args=[client], daemon=True)
    asking.start()
    until(lambda: gateway.counts.token_requests == 1)
    copy: TokenManager = pickle.loads(pickle.dumps(client.tokens))
    gateway.heal()
    asking.join(PATIENCE)
    assert copy.token() == client.tokens.token()
    assert copy.policy == RetryPolicy()
    assert repr(copy.store) == repr(FileTokenStore(folder))
    assert gateway.counts.token_requests == 1
