"""What was made in one process and is used in another: after `os.fork`, and pickled."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from answers import PRICE
from children import Child
from forks import unmeasured
from kis_retry import (
    FileTokenStore,
    KisClient,
    MemoryTokenStore,
    RateLimiter,
    RedisTokenStore,
    RetryPolicy,
    TokenManager,
    protect,
    refresh_on_expired_token,
)
from kis_retry.testing import KisGateway
from patience import PATIENCE, until
from sources import Broker
from workers import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows"),
    # From 3.12 on a fork is warned of where other threads are alive; that they are is what is tested here.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def good(client: KisClient, symbols: Sequence[str] = ("005930",)) -> bool:
    """Whether each call gets the answer to its own question."""
    answers = [(symbol, client.fetch_domestic_price(symbol)) for symbol in symbols]
    return all(answer["rt_cd"] == "0" and answer["output"]["stck_shrn_iscd"] == symbol for symbol, answer in answers)


def ten_of(number: int) -> list[str]:
    return [f"{number}{k:05}" for k in range(10)]


def all_end_well(children: list[Child]) -> bool:
    return [child.ended_well() for child in children] == [True] * len(children)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def client(gateway: KisGateway, folder: Path) -> Iterator[KisClient]:
    tokens = TokenManager(gateway.credentials, store=FileTokenStore(folder), policy=RetryPolicy())
    with KisClient(tokens=tokens) as made:
        yield made


# --- fork

FIRST_CALL = """
    import os, sys, threading, time
    import requests
    from kis_retry import refresh_on_expired_token

    url, key, secret = sys.argv[1:]

    @refresh_on_expired_token
    def fetch():
        return requests.get(url, headers={"appkey": key, "appsecret": secret}, timeout=60).json()["rt_cd"]

    thread = threading.Thread(target=fetch)
    thread.start()
    children = []
    for _ in range(8):
        children.append(os.fork())
        if children[-1] == 0:
            os._exit(fetch() != "0")
        time.sleep(0.01)
    thread.join()
    sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@pytest.mark.parametrize("store", ["file", "redis"])
def test_children_forked_during_a_threads_first_call_hang_nowhere(
    store: str, gateway: KisGateway, request: pytest.FixtureRequest
) -> None:
    """Before: most of them waited for a module that the parent's thread was importing."""
    place = request.getfixturevalue("valkey_server").url if store == "redis" else store
    given = gateway.credentials
    program = [sys.executable, "-c", textwrap.dedent(FIRST_CALL), gateway.url + PRICE, given.app_key, given.app_secret]
    environ = {**unmeasured(), "KIS_TOKEN_STORE": place}
    ended = subprocess.run(program, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert gateway.counts.token_requests == 1


def test_children_of_an_idle_and_of_a_busy_parent_share_one_issue_each_time(
    client: KisClient, gateway: KisGateway
) -> None:
    assert all_end_well([Child(lambda: good(client)) for _ in range(4)])
    assert good(client)
    assert gateway.counts.token_requests == 1
    gateway.expire_at(gateway.counts.calls + 20)
    gateway.reset_counts()
    children = [Child(lambda n=n: good(client, ten_of(n))) for n in range(1, 5)]  # type: ignore[misc]  # mypy does not know the default's type
    assert good(client, ten_of(9))
    assert all_end_well(children)
    assert gateway.counts.answered == 50
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("kind", ["own", "given", "decorated", "protected"])
def test_children_never_talk_over_their_parents_connections(kind: str) -> None:
    """Two processes on one connection get each other's answers: the price of another symbol, and no error."""
    with KisGateway(latency=0.01) as gateway, requests.Session() as session:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
        limiter = RateLimiter(gateway.credentials, rate=500, store=MemoryTokenStore())
        broker = Broker(gateway.credentials)
        kinds: dict[str, Callable[[], Any]] = {
            "own": lambda: KisClient(tokens=tokens).fetch_domestic_price,
            "given": lambda: KisClient(tokens=tokens, session=session).fetch_domestic_price,
            "decorated": lambda: refresh_on_expired_token(tokens=tokens)(broker.fetch_price),
            "protected": lambda: protect(broker, limiter=limiter).fetch_price,
        }
        fetch = kinds[kind]()

        def answers(symbols: list[str]) -> bool:
            return all(fetch(symbol)["output"]["stck_shrn_iscd"] == symbol for symbol in symbols)

        assert answers(ten_of(9))
        children = [Child(lambda n=n: answers(ten_of(n))) for n in range(1, 5)]  # type: ignore[misc]  # as above
        assert answers(ten_of(9))
        assert all_end_well(children)


def test_children_ask_for_tokens_over_connections_of_their_own() -> None:
    with KisGateway(issue_interval=0, latency=0.02) as gateway, requests.Session() as session:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(), session=session)
        tokens.refresh(tokens.token())  # which leaves an open connection behind
        before = gateway.counts.token_requests
        assert all_end_well([Child(lambda: bool(tokens.refresh(tokens.token()))) for _ in range(4)])
        assert gateway.counts.token_requests == before + 4, "none had to ask again"


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_a_child_forked_while_another_thread_asks_kis_waits_for_the_store_alone(
    kind: str, gateway: KisGateway, folder: Path, valkey_server: Any
) -> None:
    valkey_server.flush()
    store = FileTokenStore(folder) if kind == "file" else RedisTokenStore(valkey_server.url)
    client = KisClient(tokens=TokenManager(gateway.credentials, store=store, policy=RetryPolicy(issue_wait=0)))
    assert good(client)
    gateway.expire()
    gateway.reset_counts()
    gateway.hang("tokens", 1)
    asking = threading.Thread(target=good, args=[client], daemon=True)
    asking.start()
    until(lambda: gateway.counts.token_requests == 1)
    child = Child(lambda: good(client))
    time.sleep(0.2)
    assert child.lives(), "it waits for the store's lock"
    gateway.heal()
    assert child.ended_well()
    asking.join(PATIENCE)
    assert gateway.counts.token_requests == 1, "the child took what its parent got"


# --- spawn

FETCH = operator.methodcaller("fetch_domestic_price", "005930")
ASK = operator.methodcaller("fetch_price", "005930")
TOKEN = operator.methodcaller("token")
ACQUIRE = operator.methodcaller("acquire", 30)


def test_what_a_spawned_worker_is_given_shares_the_token_and_no_secret_travels_from_the_environment(
    client: KisClient, gateway: KisGateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(gateway, str(folder), folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KIS_ACCOUNT_NO", "12345678-01")
    from_env = KisClient.from_env()
    token = from_env.tokens.token()
    for travelling in (from_env, from_env.tokens, from_env.credentials):
        data = pickle.dumps(travelling)
        for secret in (gateway.credentials.app_key, gateway.credentials.app_secret, "12345678", token.value):
            assert secret.encode() not in data
    broker = protect(Broker(gateway.credentials), tokens=client.tokens)
    limiter = RateLimiter(gateway.credentials, rate=100, store=FileTokenStore(folder))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(TOKEN, client.tokens).result(PATIENCE) == token
        for expiries in range(2):
            for fetch, target in ((FETCH, from_env), (FETCH, client), (ASK, broker)):
                assert pool.submit(fetch, target).result(PATIENCE)["rt_cd"] == "0"
            assert pool.submit(ACQUIRE, limiter).result(PATIENCE)
            assert good(client)
            assert gateway.counts.token_requests == 1 + expiries
            gateway.expire()
