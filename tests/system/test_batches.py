"""Batches and orders of the clients over real HTTP, beside each other and through bad days: what waits how long."""

from __future__ import annotations

import asyncio
import operator
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from crowds import together
from forks import forks
from kis_retry import (
    AccessToken,
    AsyncKisClient,
    Credentials,
    FileTokenStore,
    KisClient,
    MemoryTokenStore,
    RateLimiter,
    RetryPolicy,
    TokenManager,
    TokenStore,
)
from kis_retry.testing import KisGateway
from patience import until
from senders import ORDER
from simulated_pace import worst_second

KEYS: Any = {"app_key": "PSappkey0123", "app_secret": "c2VjcmV0c2VjcmV0"}
STOCK = "/uapi/domestic-stock/v1/quotations/search-stock-info"


def parts(credentials: Credentials, rate: float, store: TokenStore | None = None, **policy: Any) -> dict[str, Any]:
    """What a client is made of that shares token and pace with nobody else."""
    store = store or MemoryTokenStore()
    tokens = TokenManager(credentials, store=store, policy=RetryPolicy(**policy))
    return {"tokens": tokens, "limiter": RateLimiter(credentials, rate=rate, store=store)}


def arrived(gateway: KisGateway, path: str = ORDER) -> list[float]:
    return [request.at for request in gateway.received if request.path == path]


class Readers:
    """Threads that ask for prices one after the other until their block ends."""

    def __init__(self, client: KisClient, threads: int) -> None:
        self._client, self._ends = client, threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._work = [self._pool.submit(self._read, number) for number in range(threads)]
        self.codes: list[str] = []

    def __enter__(self) -> Readers:  # noqa: PYI034  # Self is of Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._pool.shutdown()
        self.codes = [code for each in self._work for code in each.result()]

    def _read(self, number: int) -> list[str]:
        found = []
        while not self._ends.is_set():
            found.append(self._client.fetch_domestic_price(f"{number:06d}")["msg_cd"])
        return found


# --- batches


async def test_two_hundred_tasks_lose_nothing_over_an_expiry_refusals_and_drops(gateway: KisGateway) -> None:
    gateway.refuse_calls("EGW00201", share=0.22)
    gateway.drop(share=0.02)
    made = parts(gateway.credentials, rate=40)  # more than a busy machine serves would pile up
    await made["tokens"].token_async()
    gateway.expire_at(100)
    few = httpx.AsyncClient(limits=httpx.Limits(max_connections=12))  # it looks at each of them for each request
    async with few, AsyncKisClient(**made, session=few) as client:
        answers = await asyncio.gather(*(client.fetch_domestic_price(f"{number:06d}") for number in range(200)))
    assert {answer["msg_cd"] for answer in answers} == {"MCA00000"}
    assert gateway.counts.token_requests == 2, "the one before the batch, and one for all of its tasks"


@pytest.mark.parametrize("by", ["refusal", "stamp"])
def test_a_renewal_that_takes_its_time_is_no_burst_afterwards(by: str, gateway: KisGateway) -> None:
    made = parts(gateway.credentials, rate=18, refresh_margin=0)
    with KisClient(**made) as client:
        client.fetch_domestic_price("005930")
        gateway.hang("tokens", seconds=0.7)
        if by == "stamp":
            dies = datetime.now(timezone.utc) + timedelta(seconds=0.3)
            made["tokens"].adopt(AccessToken(str(gateway.current_token), dies))
        with Readers(client, threads=20) as readers:
            time.sleep(0.3)
            gateway.expire()
            until(lambda: gateway.counts.tokens_issued == 2)
            until(lambda: gateway.counts.answered > 30)  # some of more than a second
    assert set(readers.codes) == {"MCA00000"}
    assert worst_second(gateway.arrivals) <= 20
    assert gateway.counts.refused <= 2, "who is in the queue waits for the new token"


def test_a_repeat_does_not_wait_behind_the_batch(gateway: KisGateway) -> None:
    with KisClient(**parts(gateway.credentials, rate=30)) as client:
        client.fetch_domestic_price("005930")
        with Readers(client, threads=30):
            gateway.refuse_calls("EGW00201", 2, path=STOCK)
            client.fetch_search_stock_info("005930")
    first, *_, last = arrived(gateway, STOCK)
    assert last - first < 15 / 30, "half of what a turn of all the others takes"


# --- orders


def test_orders_hardly_wait_beside_sixteen_reading_threads_and_no_read_is_lost(gateway: KisGateway) -> None:
    gateway.refuse_calls("EGW00201", share=0.22)
    asked = {}
    with KisClient(**parts(gateway.credentials, rate=18)) as client:
        client.fetch_domestic_price("005930")
        with Readers(client, threads=16) as readers:
            for number in range(7):
                time.sleep(0.2)
                asked[f"{ORDER}-{number}"] = time.time()
                assert client.post(f"{ORDER}-{number}", "TTTC0012U")["rt_cd"] == "0"
    assert set(readers.codes) == {"MCA00000"}
    assert len(gateway.orders) == 7
    assert statistics.median(arrived(gateway, path)[0] - at for path, at in asked.items()) < 0.2


@pytest.mark.parametrize(("away_for", "order_deadline", "placed"), [(0.2, 5, 1), (1.3, 1.1, 0)])
def test_an_order_that_never_left_is_placed_when_somebody_listens_in_time_or_never(
    away_for: float, order_deadline: float, placed: int, gateway: KisGateway
) -> None:
    back = KisGateway(port=int(gateway.url.rpartition(":")[2]), **KEYS)
    gateway.close()
    made = parts(Credentials(**KEYS, base_url=gateway.url), rate=50, order_deadline=order_deadline)
    made["tokens"].adopt(AccessToken("eyJ.a.b", datetime.now(timezone.utc) + timedelta(hours=9)))
    with KisClient(**made) as client, ThreadPoolExecutor(1) as pool:
        order = pool.submit(client.post, ORDER, "TTTC0012U", {"PDNO": "1"})
        time.sleep(away_for)
        with back:
            assert isinstance(order.exception(), requests.ConnectionError) or order.result()["rt_cd"] == "0"
            time.sleep(0.2)
    assert len(back.orders) == placed


@pytest.mark.parametrize(("ends_after", "placed"), [(0.9, 2), (None, 0)])
def test_orders_whose_threads_were_given_up_arrive_in_time_or_never(
    ends_after: float | None, placed: int, gateway: KisGateway
) -> None:
    """A thread goes on when nobody waits for it any more: for `order_deadline`, and no longer."""

    async def three(client: KisClient) -> None:
        for number in range(3):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(client.post, f"{ORDER}-{number}", "TTTC0012U"), 0.3)

    gateway.refuse_calls("EGW00201")
    with KisClient(**parts(gateway.credentials, rate=50, order_deadline=0.8)) as client:
        client.issue_access_token()
        began = time.time()
        healing = threading.Timer(ends_after or 60, gateway.heal)
        healing.start()
        asyncio.run(three(client))
        healing.cancel() if ends_after is None else healing.join()
        time.sleep(0.5)
    assert len(gateway.orders) == placed
    for number in range(3):
        at = arrived(gateway, f"{ORDER}-{number}")
        assert at[0] - began < 0.3 * number + 0.5, "the one before it does not take every slot"
        assert at[-1] < at[0] + 0.85


# --- keys


APPROVAL_KEY = operator.methodcaller("approval_key")


def test_threads_and_processes_share_one_websocket_key_and_wait_for_its_endpoint(
    gateway: KisGateway, tmp_path: Path
) -> None:
    gateway.fail(503, times=2, where="tokens", path="/oauth2/Approval")
    manager = TokenManager(gateway.credentials, store=FileTokenStore(tmp_path / "store"), policy=RetryPolicy())
    with ProcessPoolExecutor(2, mp_context=forks()) as pool:
        asked = [pool.submit(APPROVAL_KEY, manager) for _ in range(2)]
        keys = together(4, lambda _: manager.approval_key()) + [each.result(60) for each in asked]
    assert keys == gateway.approval_keys * 6
    assert len(gateway.approval_keys) == 1
    assert len(arrived(gateway, "/oauth2/Approval")) == 3
