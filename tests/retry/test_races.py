"""Many threads at one expiry: one refresh, no lost call, and none of tenacity's shared state."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kis_retry import RefreshEvent

EXPIRED = {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
GOOD = {"rt_cd": "0"}


class YieldingClock:
    """The time for tenacity, which looks at it while it fills its statistics: others go on just then."""

    def monotonic(self) -> float:
        time.sleep(1e-5)
        return time.monotonic()


@pytest.fixture
def eager_switching(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the interpreter switch threads as often as it can, and in the middle of tenacity's beginning."""
    monkeypatch.setattr("tenacity.time", YieldingClock())
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _together(threads: int, work: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(threads)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


class Tokens:
    """A source that is always good for another token."""

    def token(self) -> AccessToken:
        return AccessToken("t", datetime(2040, 1, 1, tzinfo=timezone.utc))

    def refresh(self, rejected: AccessToken) -> AccessToken:
        return AccessToken(rejected.value + "x" if len(rejected.value) < 9 else "t", rejected.expires_at)


def _retry_often(decorate: Callable[[Any], Any], calls: int) -> Counter[str]:
    """Eight threads, every call refused once; counts the exceptions that come out."""
    local = threading.local()

    @decorate
    def fetch() -> dict[str, str]:
        local.n = getattr(local, "n", 0) + 1
        return EXPIRED if local.n % 2 else GOOD

    def work(_: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        for _ in range(calls):
            local.n = 0
            try:
                assert fetch() == GOOD
                seen["good"] += 1
            except KeyError as error:
                seen[repr(error)] += 1
        return seen

    return sum(_together(8, work), Counter())


@pytest.mark.usefixtures("eager_switching")
def test_refused_calls_on_eight_threads_raise_nothing_of_the_machinery() -> None:
    assert _retry_often(refresh_on_expired_token(tokens=Tokens()), 60) == {"good": 8 * 60}


def test_sixteen_threads_lose_nothing_over_two_expiries(gateway: KisGateway, client: KisClient) -> None:
    gateway.expire_at(100, 250)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.fetch_domestic_price("005930"), range(400)))
    assert Counter(answer["rt_cd"] for answer in answers) == {"0": 400}
    assert gateway.counts.token_requests == 3
    assert gateway.counts.token_requests_refused == 0
    assert gateway.counts.refused <= 2 * 16


def test_one_expiry_on_sixteen_threads_reads_as_a_story(
    gateway: KisGateway, client: KisClient, events: list[RefreshEvent]
) -> None:
    gateway.expire_at(50)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: client.fetch_domestic_price("005930"), range(150)))
    told = Counter(event.name for event in events)
    refused = gateway.counts.refused
    assert told == Counter(token_expired=refused, token_refreshed=1, token_adopted=refused - 1, call_recovered=refused)


def test_threads_that_wait_for_a_refresh_share_its_failure(gateway: KisGateway, manager: TokenManager) -> None:
    rejected = manager.token()
    gateway.expire()
    gateway.refuse_tokens(code="EGW00105")
    gateway.reset_counts()

    def refresh(_: int) -> str | None:
        with pytest.raises(TokenIssueError) as caught:
            manager.refresh(rejected)
        return caught.value.code

    assert set(_together(16, refresh)) == {"EGW00105"}
    assert gateway.counts.token_requests == 1


def test_threads_that_wait_share_a_failure_even_without_a_cool_down() -> None:
    with KisGateway(latency=0.2) as gateway:
        manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_cooldown=0))
        rejected = manager.token()
        gateway.expire()
        gateway.refuse_tokens(code="EGW00105")
        gateway.reset_counts()

        def refresh(_: int) -> None:
            with pytest.raises(TokenIssueError):
                manager.refresh(rejected)

        _together(8, refresh)
        assert gateway.counts.token_requests == 1


def test_a_straggler_does_not_refresh_again(gateway: KisGateway, manager: TokenManager) -> None:
    dead = manager.token()
    gateway.expire()
    new = manager.refresh(dead)
    gateway.reset_counts()
    assert manager.refresh(dead) == new
    assert manager.refresh(dead.bearer) == new
    assert gateway.counts.token_requests == 0


def test_eight_cold_threads_make_one_token_request(gateway: KisGateway, manager: TokenManager) -> None:
    tokens = _together(8, lambda _: manager.token().value)
    assert len(set(tokens)) == 1
    assert gateway.counts.token_requests == 1


def test_two_managers_that_share_a_store_make_one_token_request(gateway: KisGateway) -> None:
    store = MemoryTokenStore()
    managers = [TokenManager(gateway.credentials, store=store, policy=RetryPolicy()) for _ in range(8)]
    tokens = _together(8, lambda number: managers[number].token().value)
    assert len(set(tokens)) == 1
    assert gateway.counts.token_requests == 1


def test_reading_a_good_token_takes_no_lock_and_no_store(
    manager: TokenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = manager.token()

    def never(*_: object, **__: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(manager.store, "load", never)
    monkeypatch.setattr(manager.store, "lock", never)
    monkeypatch.setattr(manager._refresher._flights, "begin", never)
    assert manager.token() is token
    assert manager.replace("an older one").token is token


def test_threads_that_wait_share_the_same_token_handed_out_again() -> None:
    with KisGateway(issue_interval=0, latency=0.2) as gateway:  # within six hours KIS hands out the same one
        manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
        rejected = manager.token()
        gateway.reset_counts()
        assert set(_together(8, lambda _: manager.refresh(rejected).value)) == {rejected.value}
        assert gateway.counts.token_requests == 1
