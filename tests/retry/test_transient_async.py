"""`retry_on_transient_error` on coroutine functions: the same outcomes, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
import time
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from answers import GOOD, PRICE
from kis_retry import (
    Credentials,
    MemoryTokenStore,
    RateLimiter,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway
from outcomes import scripted_async as scripted
from sources import NumberedTokens

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
LIMITED = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}
TEST_KEY = Credentials("a-key", "a-secret")


FORMS: dict[str, Any] = {
    "bare": retry_on_transient_error,
    "with ()": retry_on_transient_error(),
    "with arguments": retry_on_transient_error(policy=RetryPolicy(), idempotent=True),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
async def test_bare_with_parentheses_or_with_arguments(no_backoff: None, events: list[RefreshEvent], form: Any) -> None:
    fetch = scripted(LIMITED, LIMITED, GOOD)
    decorated = form(fetch)
    assert inspect.iscoroutinefunction(decorated)
    assert await decorated("005930") == GOOD
    assert fetch.calls == 3
    assert [event.name for event in events] == ["call_retried", "call_retried", "call_recovered"]


async def test_methods_and_objects_with_an_async_call(no_backoff: None) -> None:
    fetch = scripted(LIMITED, GOOD, LIMITED, GOOD)

    class Broker:
        @retry_on_transient_error
        async def method(self) -> Any:
            return await fetch()

    class Callable:
        async def __call__(self) -> Any:
            return await fetch()

    assert await Broker().method() == GOOD
    assert await retry_on_transient_error(Callable())() == GOOD


@pytest.mark.parametrize("outcome", [LIMITED, httpx.ConnectError("refused")], ids=["answer", "exception"])
async def test_at_the_deadline_the_last_outcome_is_handed_back(events: list[RefreshEvent], outcome: Any) -> None:
    fetch = retry_on_transient_error(scripted(outcome), policy=RetryPolicy(transient_deadline=0.3), idempotent=True)
    began = time.monotonic()
    if isinstance(outcome, dict):
        assert await fetch() is outcome
    else:
        with pytest.raises(httpx.ConnectError) as raised:
            await fetch()
        assert raised.value is outcome
    assert time.monotonic() - began >= 0.29
    assert [event.name for event in events][-1] == "call_given_up"


async def test_a_cancelled_call_is_cancelled(events: list[RefreshEvent]) -> None:
    called = asyncio.Event()
    calls: list[int] = []

    @retry_on_transient_error(idempotent=True)
    async def fetch() -> Any:
        calls.append(1)
        called.set()
        raise httpx.ConnectError("refused")

    task = asyncio.create_task(fetch())
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = len(calls)
    await asyncio.sleep(0.05)
    assert len(calls) == before
    assert "call_given_up" not in [event.name for event in events]


async def test_the_loop_goes_on_while_calls_back_off_and_no_thread_is_occupied() -> None:
    @retry_on_transient_error(policy=RetryPolicy(transient_deadline=0.5), idempotent=True)
    async def fetch() -> Any:
        raise httpx.ConnectError("refused")

    before = threading.active_count()
    tasks = [asyncio.create_task(fetch()) for _ in range(50)]
    began = time.monotonic()
    while not all(task.done() for task in tasks):
        assert threading.active_count() <= before + 1  # the pace's own
        await asyncio.sleep(0.005)
    assert time.monotonic() - began < 50 * 0.5 / 2  # one after the other they would take twice as long
    assert all(isinstance(task.exception(), httpx.ConnectError) for task in tasks)


@pytest.mark.parametrize("refresh_outside", [True, False])
@pytest.mark.parametrize("troubles", sorted(set(itertools.permutations(["expired", "dropped", "dropped"]))))
async def test_beside_the_other_decorator_each_has_a_budget_of_its_own(
    no_backoff: None, events: list[RefreshEvent], troubles: tuple[str, ...], refresh_outside: bool
) -> None:
    tokens = NumberedTokens()
    left = list(troubles)

    async def fetch(headers: dict[str, str]) -> Any:
        trouble = left.pop(0) if left else "none"
        if trouble == "dropped":
            raise httpx.ReadError("dropped")
        if trouble == "expired":
            tokens.number += 1
        return tokens.answer(headers["authorization"])

    refreshing = refresh_on_expired_token(tokens=tokens)
    retrying = retry_on_transient_error(idempotent=True)
    decorated = refreshing(retrying(fetch)) if refresh_outside else retrying(refreshing(fetch))
    assert await decorated({"authorization": tokens.token().bearer}) == GOOD
    told = [event.name for event in events]
    assert (told.count("call_retried"), told.count("token_expired"), told.count("call_given_up")) == (2, 1, 0)


async def test_layers_do_not_multiply(events: list[RefreshEvent]) -> None:
    fetch = layered = scripted(LIMITED)
    for _ in range(3):
        layered = retry_on_transient_error(layered, policy=RetryPolicy(transient_deadline=0.1))
    assert await layered() is LIMITED
    told = [event.name for event in events]
    assert told.count("call_given_up") == 1
    assert told.count("call_retried") == fetch.calls - 1


# -- a time limit of the code's own


async def get_by_httpx(url: str, headers: dict[str, str]) -> Any:
    async with httpx.AsyncClient(timeout=9) as client:
        return (await asyncio.wait_for(client.get(url, headers=headers), 0.2)).json()


async def get_by_aiohttp(url: str, headers: dict[str, str]) -> Any:
    async with aiohttp.ClientSession() as session:
        answer = await asyncio.wait_for(session.get(url, headers=headers), 0.2)
        return await answer.json()


async def post_by_httpx(url: str, headers: dict[str, str]) -> Any:
    async with httpx.AsyncClient(timeout=9) as client:
        return (await asyncio.wait_for(client.post(url, headers=headers, json={}), 0.2)).json()


async def post_by_aiohttp(url: str, headers: dict[str, str]) -> Any:
    async with aiohttp.ClientSession() as session:
        answer = await asyncio.wait_for(session.post(url, headers=headers, json={}), 0.2)
        return await answer.json()


@pytest.mark.parametrize("get", [get_by_httpx, get_by_aiohttp])
async def test_a_read_that_the_function_stopped_waiting_for_is_repeated(
    gateway: KisGateway, manager: TokenManager, no_backoff: None, get: Any
) -> None:
    headers = await asyncio.to_thread(manager.headers, "FHKST01010100")
    gateway.hang("calls", 1, seconds=20)
    assert (await retry_on_transient_error(get)(gateway.url + PRICE, headers))["rt_cd"] == "0"
    assert gateway.counts.calls == 2


@pytest.mark.parametrize("post", [post_by_httpx, post_by_aiohttp])
async def test_an_order_that_the_function_stopped_waiting_for_is_not(
    gateway: KisGateway, manager: TokenManager, no_backoff: None, post: Any
) -> None:
    headers = await asyncio.to_thread(manager.headers, "TTTC0012U")
    gateway.hang("calls", 1, seconds=20, reached=True)
    with pytest.raises(asyncio.TimeoutError):
        await retry_on_transient_error(post, idempotent=True)(gateway.url + ORDER, headers)
    assert (gateway.counts.calls, len(gateway.orders)) == (1, 1)


# -- the pace


async def test_tasks_that_are_all_refused_go_on_at_the_pace(gateway: KisGateway, manager: TokenManager) -> None:
    limiter = RateLimiter(gateway.credentials, rate=50, store=MemoryTokenStore())
    headers = await asyncio.to_thread(manager.headers, "FHKST01010100")
    gateway.refuse_calls("EGW00201", 20)

    @retry_on_transient_error(limiter=limiter)
    async def fetch(client: httpx.AsyncClient) -> Any:
        return (await client.get(gateway.url + PRICE, headers=headers)).json()

    began = time.monotonic()
    async with httpx.AsyncClient() as client:
        answers = await asyncio.gather(*(fetch(client) for _ in range(10)))
    assert [answer["rt_cd"] for answer in answers] == ["0"] * 10
    assert gateway.counts.calls == 30
    assert time.monotonic() - began >= 28 / 50


async def test_a_repeat_waits_for_its_slot_no_longer_than_the_deadline(events: list[RefreshEvent]) -> None:
    limiter = RateLimiter(TEST_KEY, rate=0.1, store=MemoryTokenStore())
    fetch = scripted(LIMITED)
    began = time.monotonic()
    policy = RetryPolicy(transient_deadline=0.3)
    assert await retry_on_transient_error(fetch, limiter=limiter, policy=policy)() is LIMITED
    assert time.monotonic() - began < 8, "the next slot is due after ten seconds"
    assert fetch.calls == 1
    assert [event.name for event in events][-1] == "call_given_up"


def test_a_thread_does_too(events: list[RefreshEvent]) -> None:
    limiter = RateLimiter(TEST_KEY, rate=0.1, store=MemoryTokenStore())
    calls: list[int] = []

    @retry_on_transient_error(limiter=limiter, policy=RetryPolicy(transient_deadline=0.3))
    def fetch() -> Any:
        calls.append(1)
        return LIMITED

    began = time.monotonic()
    assert fetch() is LIMITED
    assert time.monotonic() - began < 8, "the next slot is due after ten seconds"
    assert len(calls) == 1


async def test_a_swallowed_drop_counts(gateway: KisGateway, manager: TokenManager, no_backoff: None) -> None:
    headers = await asyncio.to_thread(manager.headers, "FHKST01010100")

    @retry_on_transient_error
    async def fetch() -> Any:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(gateway.url + PRICE, headers=headers)).json()["output"]
            except httpx.HTTPError:
                return None

    gateway.drop("calls", 2)
    assert await fetch() is not None


async def test_a_synchronous_function_on_a_worker_thread_is_seen(
    gateway: KisGateway, manager: TokenManager, no_backoff: None
) -> None:
    headers = await asyncio.to_thread(manager.headers, "FHKST01010100")

    @retry_on_transient_error
    async def fetch() -> Any:
        answer = await asyncio.to_thread(requests.get, gateway.url + PRICE, headers=headers, timeout=5)
        return answer.json()["output"] if answer.ok else None

    gateway.fail(503, 2)
    assert await fetch() is not None
