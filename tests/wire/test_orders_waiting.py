"""What an order waits for, and for how long; who gave it up, and what else went on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import aiohttp
import httpx
import pytest

from kis_retry import MemoryTokenStore, RateLimiter, RefreshEvent, RetryPolicy, TokenManager
from kis_retry.testing import KisGateway
from patience import until, until_async
from senders import BALANCE, GOOD, KINDS, ORDER, PRICE, WIRES, Answer, Wire, both, headers_for, query, sent

TWO = pytest.mark.parametrize("wire", KINDS, ids=lambda wire: wire.name)
BODY = {"PDNO": "005930", "ORD_QTY": "1"}


def took(call: Callable[[], object]) -> float:
    began = time.monotonic()
    with suppress(Exception):
        call()
    return time.monotonic() - began


# Deadlines.


@TWO
def test_an_order_that_is_turned_away_for_longer_than_its_deadline_ends_as_kis_said(
    wire: Wire, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    gateway.refuse_calls("EGW00201")
    place = both(lambda: wire.order(gateway), policy=RetryPolicy(order_deadline=0.4))
    began = time.monotonic()
    assert place().msg_cd == "EGW00201"
    assert time.monotonic() - began < 2
    assert sent(gateway) > 1
    assert events[-1].name == "call_given_up"
    gateway.heal()
    assert place() == GOOD, "it was refused before KIS acted, so it is not held back"


@pytest.mark.parametrize("code", ["EGW00201", "EGW00123"])
def test_with_no_order_deadline_an_order_leaves_once(code: str, gateway: KisGateway) -> None:
    gateway.refuse_calls(code, 1)
    place = both(lambda: WIRES[0].order(gateway), policy=RetryPolicy(order_deadline=0))
    assert place().msg_cd == code
    assert sent(gateway) == 1


def test_a_token_that_comes_too_late_for_an_order_still_serves_others(gateway: KisGateway) -> None:
    dead = f"Bearer {gateway.current_token}"
    place = both(lambda: WIRES[0].order(gateway, authorization=dead), policy=RetryPolicy(order_deadline=0.3))
    gateway.expire()
    gateway.hang("tokens", seconds=60)
    assert place().msg_cd == "EGW00123", "it did not wait for the token to the end"
    gateway.heal()
    assert both(lambda: WIRES[0].get(gateway, authorization=dead))() == GOOD
    assert (sent(gateway), gateway.counts.token_requests) == (1, 2)


@TWO
def test_an_order_waits_for_a_first_token_no_longer_than_its_deadline(wire: Wire, gateway: KisGateway) -> None:
    """Its token is known to be dead: then it leaves as it is, and the caller gets what KIS says."""
    place = both(lambda: wire.order(gateway), policy=RetryPolicy(order_deadline=0.3))
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=1))
    manager.note_refused(str(gateway.current_token))
    gateway.expire()
    gateway.hang("tokens", seconds=1)
    assert took(place) < 0.9
    assert (sent(gateway), gateway.counts.refused) == (1, 1)


def test_an_order_without_a_token_gets_one(gateway: KisGateway) -> None:
    place = both(lambda: WIRES[0].order(gateway, authorization=""), policy=RetryPolicy(order_deadline=0))
    gateway.expire()
    assert place() == GOOD


# Its slot.


def test_an_order_overtakes_the_reads_that_wait(gateway: KisGateway) -> None:
    wire = WIRES[0]
    limiter = RateLimiter(gateway.credentials, rate=8, store=MemoryTokenStore())
    read = both(lambda: wire.get(gateway), limiter=limiter)
    place = both(lambda: wire.order(gateway), policy=RetryPolicy(order_deadline=0.1), limiter=limiter)
    with ThreadPoolExecutor(9) as pool:
        reads = [pool.submit(read) for _ in range(8)]
        until(lambda: sent(gateway, PRICE) >= 1)
        answer = place()
        before = sent(gateway, PRICE)
    assert [each.result() for each in reads] == [GOOD] * 8
    assert answer == GOOD, "for its slot it waits as long as it takes"
    assert before < 6


# Given up.


async def ask_httpx(gateway: KisGateway) -> str:
    async with httpx.AsyncClient(headers=headers_for(gateway)) as client:
        return str((await client.post(gateway.url + ORDER, json=BODY)).json()["msg_cd"])


async def ask_aiohttp(gateway: KisGateway) -> str:
    async with (
        aiohttp.ClientSession(headers=headers_for(gateway)) as session,
        session.post(gateway.url + ORDER, json=BODY) as response,
    ):
        return str((await response.json())["msg_cd"])


@pytest.mark.parametrize("ask", [ask_httpx, ask_aiohttp])
async def test_an_order_that_its_task_gave_up_is_held_back(
    ask: Any, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    place = both(ask)
    gateway.hang(times=1, seconds=20)
    task = asyncio.create_task(place(gateway))
    await until_async(lambda: sent(gateway) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(2):
        with pytest.raises(TimeoutError, match="nobody waited"):
            await place(gateway)
    gateway.heal()
    assert (sent(gateway), len(gateway.orders)) == (1, 1)
    assert [event.name for event in events] == ["order_held_back"] * 2


async def test_an_order_given_up_before_it_left_is_not_held_back(gateway: KisGateway) -> None:
    limiter = RateLimiter(gateway.credentials, rate=0.5, store=MemoryTokenStore())
    assert await asyncio.to_thread(both(lambda: WIRES[0].get(gateway), limiter=limiter)) == GOOD
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(both(ask_httpx, limiter=limiter)(gateway), 0.1)
    assert sent(gateway) == 0
    assert await both(ask_httpx)(gateway) == "MCA00000"


class Unanswered(httpx.AsyncBaseTransport):
    """Nothing that leaves by it is ever answered, and nothing but its task keeps it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


def test_a_pending_call_that_is_collected_disturbs_no_other(
    gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: raised.append(found.exc_value))
    headers = headers_for(gateway)
    clients = [httpx.AsyncClient(headers=headers, transport=Unanswered())]
    loop = asyncio.new_event_loop()
    pending: Any = loop.create_task(both(clients[0].post)(gateway.url + ORDER, json=BODY))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    @both
    async def trade(client: httpx.AsyncClient) -> list[str]:
        nonlocal pending
        gateway.expire()
        asked = asyncio.create_task(client.get(gateway.url + PRICE, params=query(1)))
        await until_async(lambda: sent(gateway, PRICE) == 1)
        pending = None
        gc.collect()
        answers = [await asked, await client.get(gateway.url + PRICE, params=query(2))]
        return [answer.json()["msg_cd"] for answer in answers]

    async def main() -> list[str]:
        async with httpx.AsyncClient(headers=headers) as client:
            return list(await trade(client))

    gateway.latency = 0.05
    assert asyncio.run(main()) == ["MCA00000"] * 2
    with pytest.raises(TimeoutError, match="nobody waited"):
        asyncio.run(both(ask_httpx)(gateway))
    assert (sent(gateway), raised) == (0, [])


# Beside.


def test_two_equal_orders_that_wait_end_alike_where_the_first_is_lost(gateway: KisGateway) -> None:
    """The second one had been asked for before the first was lost, and leaves no more."""
    limiter = RateLimiter(gateway.credentials, rate=2, store=MemoryTokenStore())
    place = both(lambda: WIRES[0].order(gateway), limiter=limiter)
    assert both(lambda: WIRES[0].get(gateway), limiter=limiter)() == GOOD
    gateway.fail(503, times=1, reached=True)
    with ThreadPoolExecutor(2) as pool:
        answers = [each.result() for each in [pool.submit(place), pool.submit(place)]]
    assert answers == [Answer(503, None)] * 2
    assert len(gateway.orders) == 1


PROGRAM = """
import asyncio, sys, json
from kis_retry import refresh_on_expired_token, retry_on_transient_error
order, balance, headers = *sys.argv[1:3], json.loads(sys.argv[3])

@retry_on_transient_error
@refresh_on_expired_token
def trade(number):
    import aiohttp, httpx, requests
    async def by_aiohttp(*given, **named):
        async with aiohttp.ClientSession() as session, session.request(*given, **named) as response:
            return await response.json()
    ask = {
        "requests": lambda *given, **named: requests.request(*given, **named).json(),
        "httpx": lambda *given, **named: httpx.request(*given, **named).json(),
        "aiohttp": lambda *given, **named: asyncio.run(by_aiohttp(*given, **named)),
    }[number]
    placed = ask("POST", order, headers=headers, json={"PDNO": number})
    return placed["rt_cd"] + ask("GET", balance, headers=headers)["rt_cd"]

print(*[trade(number) for number in ("requests", "httpx", "aiohttp")])
"""


def test_a_library_may_be_imported_inside_the_function(gateway: KisGateway) -> None:
    words = [gateway.url + ORDER, gateway.url + BALANCE, json.dumps(headers_for(gateway))]
    gateway.expire_at(2)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout.split(), run.stderr.count("Traceback")) == (["00"] * 3, 0), run.stderr
    assert (sent(gateway), sent(gateway, BALANCE)) == (3, 4)
