"""What may break around a batch, and for how long: outages, odd answers, cancelled tasks, clocks, several accounts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import requests

from answers import GOOD_CODE, PRICE
from clocks import FakeClock
from kis_retry import (
    AsyncKisClient,
    Credentials,
    FileTokenStore,
    KisClient,
    MemoryTokenStore,
    RateLimiter,
    RedisTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    install,
    refresh_on_expired_token,
)
from kis_retry.testing import KisGateway
from outcomes import call
from senders import SYNC, headers_for
from simulated_pace import worst_second

THREADS = 16


def price(url: str, credentials: Credentials) -> str:
    """What a bare request comes to: KIS's code."""
    headers = {"appkey": credentials.app_key, "appsecret": credentials.app_secret}
    return str(requests.get(url + PRICE, headers=headers, timeout=30).json()["msg_cd"])


def batch(ask: Callable[[int], str], calls: int) -> Counter[str]:
    with ThreadPoolExecutor(THREADS) as pool:
        return Counter(pool.map(ask, range(calls)))


# --- KIS is away


AWAY = 1.0
"""Seconds of an outage; KIS's maintenance takes hours, after which the old tokens are void."""


def maintenance(gateway: KisGateway) -> None:
    gateway.outage(AWAY)


def cut_off(gateway: KisGateway) -> None:
    gateway.drop()
    gateway.drop("tokens")
    threading.Timer(AWAY, gateway.heal).start()


@pytest.mark.parametrize("begin", [maintenance, cut_off])
def test_an_outage_in_a_batch_loses_no_call_and_is_not_stormed(begin: Callable[[KisGateway], None]) -> None:
    with KisGateway() as gateway:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
        limiter = RateLimiter(gateway.credentials, rate=50, store=MemoryTokenStore())
        client = KisClient(tokens=tokens, limiter=limiter)
        assert batch(lambda _: call(client), 20) == {GOOD_CODE: 20}
        gateway.expire()
        begin(gateway)
        assert batch(lambda _: call(client), 60) == {GOOD_CODE: 60}
        assert sum(gateway.faults_met.values()) <= 4 * THREADS, "some of the first second, and a few probes afterwards"
        assert gateway.counts.tokens_issued == 2
        assert worst_second(gateway.arrivals) <= 60


TEXTS = [b"", bytes(50), b"\xff\xfe\x80" * 20, b"<html>502 Bad Gateway</html>", b" " * 2_000_000]
JSON = [b"[]", b"null", b'{"rt_cd": "1", "msg_c', b"[" * 15_000, b'{"rt_cd": 1, "msg_cd": ["EGW00123"], "msg1": {}}']


@pytest.mark.parametrize("status", [200, 404])
def test_an_odd_answer_comes_back_as_it_is(status: int, gateway: KisGateway) -> None:
    install(rate=0)
    for wire in SYNC:
        assert wire.get(gateway).msg_cd == GOOD_CODE
    for body in TEXTS + JSON:
        gateway.fail(status, 2, body=body)
        url, headers = gateway.url + PRICE, headers_for(gateway)
        assert requests.get(url, headers=headers, timeout=9).content == body
        assert httpx.get(url, headers=headers, timeout=9).content == body
    assert gateway.counts.token_requests == 1


# --- tasks that are cancelled


async def test_hundreds_of_cancelled_tasks_leave_nothing_behind() -> None:
    with KisGateway(latency=0.02) as gateway:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
        limiter = RateLimiter(gateway.credentials, rate=200, store=MemoryTokenStore())
        async with AsyncKisClient(tokens=tokens, limiter=limiter) as client:
            await client.fetch_domestic_price("005930")
            gateway.expire()
            gateway.hang("tokens", 1)
            tasks = [asyncio.create_task(client.fetch_domestic_price("005930")) for _ in range(400)]
            await asyncio.sleep(0.3)  # some wait for a slot, some for an answer, some for the token
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
            await asyncio.sleep(0.05)
            left = gateway.counts.calls
            await asyncio.sleep(0.2)
            assert gateway.counts.calls == left, "nothing leaves afterwards"
            gateway.heal()
            answers = await asyncio.gather(*(client.fetch_domestic_price("005930") for _ in range(20)))
        assert {answer["msg_cd"] for answer in answers} == {GOOD_CODE}
        assert gateway.counts.tokens_issued == 2
        assert len(asyncio.all_tasks()) == 1


# --- a store that goes and comes back


def test_a_server_that_goes_in_a_batch_is_one_warning_and_costs_no_call(
    gateway: KisGateway, new_valkey_server: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_valkey_server()

    def client() -> KisClient:
        tokens = TokenManager(gateway.credentials, store=RedisTokenStore(server.url), policy=RetryPolicy())
        return KisClient(tokens=tokens, limiter=RateLimiter(gateway.credentials, rate=0))

    ours = client()
    assert batch(lambda _: call(ours), 20) == {GOOD_CODE: 20}
    server.stop()
    gateway.expire_at(gateway.counts.calls + 20)
    assert batch(lambda _: call(ours), 60) == {GOOD_CODE: 60}
    assert gateway.counts.token_requests == 2
    server.start()
    time.sleep(1.1)  # until it is tried again
    gateway.expire()
    assert call(ours) == GOOD_CODE
    assert gateway.counts.token_requests == 3
    assert call(client()) == GOOD_CODE
    assert gateway.counts.token_requests == 3, "the next machine finds it there"
    server.flush()
    assert batch(lambda _: call(ours), 20) == {GOOD_CODE: 20}, "it costs nothing while the token lives"
    assert gateway.counts.token_requests == 3
    warned = [record for record in caplog.records if "store_unavailable" in record.getMessage()]
    assert len(warned) == 1


# --- clocks that are wrong


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[KisGateway]:
    """A gateway on that clock, which is right."""
    with KisGateway(clock=clock.monotonic) as running:
        yield running


@pytest.mark.parametrize(
    ("hours", "most"), [([-48], 17), ([-1], 3), ([1], 3), ([12], 17), ([48], 17), ([-1, 0, 1, 25], 17)], ids=repr
)
def test_a_clock_that_is_wrong_or_jumps_loses_no_call_and_does_not_loop(
    hours: list[int], most: int, timed: KisGateway, clock: FakeClock
) -> None:
    given, policy, store = timed.credentials, RetryPolicy(), FileTokenStore("tokens")
    managers = [TokenManager(given, store=store, policy=policy, clock=clock) for _ in range(2)]  # as in two processes
    for step in range(12):
        clock.skew = hours[step % len(hours)] * 3_600
        for tokens in managers:
            assert refresh_on_expired_token(tokens=tokens)(price)(timed.url, given) == GOOD_CODE
        clock.now += 4 * 3_600
    assert timed.counts.token_requests <= most
    assert timed.counts.refused <= 2 * 2


# --- several accounts


def test_accounts_real_and_paper_in_one_batch_are_each_their_own(events: list[RefreshEvent]) -> None:
    install(rate=0)
    with KisGateway() as real, KisGateway(paper=True) as paper:
        real.accept("another-key", "another-secret")
        accounts = [
            (real.url, real.credentials),
            (real.url, Credentials("another-key", "another-secret")),
            (paper.url, paper.credentials),
        ]
        real.expire_at(60)
        paper.expire_at(30)
        assert batch(lambda number: price(*accounts[number % 3]), 150) == {GOOD_CODE: 150}
        assert (real.counts.token_requests, paper.counts.token_requests) == (4, 2)
        assert real.counts.refused + paper.counts.refused <= 3 * THREADS
        assert {event.msg_cd for event in events} <= {"EGW00123", None}, "no token of another account"
