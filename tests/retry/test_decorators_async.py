"""Coroutine functions: the same contracts, off the event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests

from kis_retry import (
    AccessToken,
    MemoryTokenStore,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    refresh_on_expired_token,
)
from kis_retry.testing import KisGateway
from patience import until_async

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kis_retry import RefreshEvent

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
EXPIRED = {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
GOOD = {"rt_cd": "0"}


def kis(manager: TokenManager) -> Callable[[dict[str, str]], Coroutine[Any, Any, dict[str, str]]]:
    """KIS without a network: everything but the manager's newest token is dead."""

    async def ask(headers: dict[str, str]) -> dict[str, str]:
        await asyncio.sleep(0)
        newest = manager._refresher.memory.cached
        dead = newest is None or headers["authorization"] != newest.token.bearer or newest.token.value in DEAD
        return EXPIRED if dead else GOOD

    return ask


DEAD: set[str] = set()


async def test_nothing_is_decorated_by_mistake() -> None:
    """Keeps the asyncio plugin honest: were coroutine tests not run, this one would fail to be awaited."""
    assert asyncio.get_running_loop().is_running()


async def test_an_expired_token_is_renewed_and_the_coroutine_repeated(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as http:

        @refresh_on_expired_token(tokens=manager)
        async def fetch(symbol: str) -> httpx.Response:
            """Fetch one."""
            return await http.get(PRICE, headers=manager.headers("FHKST01010100"), params={"FID_INPUT_ISCD": symbol})

        assert inspect.iscoroutinefunction(fetch)
        assert fetch.__doc__ == "Fetch one."
        assert (await fetch("005930")).json()["rt_cd"] == "0"
        gateway.expire()
        gateway.reset_counts()
        assert (await fetch("005930")).json()["rt_cd"] == "0"
        assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)
        assert [event.name for event in events] == ["token_expired", "token_refreshed", "call_recovered"]


async def test_raise_for_status_of_httpx_is_recognised_and_comes_back(gateway: KisGateway) -> None:
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=0))
    async with httpx.AsyncClient(base_url=gateway.url) as http:

        @refresh_on_expired_token(tokens=manager)
        async def fetch(headers: dict[str, str]) -> Any:
            response = await http.get(PRICE, headers=headers)
            response.raise_for_status()
            return response.json()

        headers: dict[str, str] = {"tr_id": "FHKST01010100"}
        assert (await fetch(headers))["rt_cd"] == "0"
        gateway.expire()
        assert (await fetch(headers=headers))["rt_cd"] == "0"
        gateway.refuse_calls()
        with pytest.raises(httpx.HTTPStatusError) as caught:
            await fetch(headers)
        assert caught.value.response.json()["msg_cd"] == "EGW00123"


async def test_a_thousand_tasks_at_an_expiry_cause_one_issue_on_one_thread(
    gateway: KisGateway, manager: TokenManager, monkeypatch: pytest.MonkeyPatch, events: list[RefreshEvent]
) -> None:
    threads: set[str] = set()
    replace = manager.replace

    def noting(rejected: str | None) -> Any:
        threads.add(threading.current_thread().name)
        return replace(rejected)

    monkeypatch.setattr(manager, "replace", noting)
    ask = kis(manager)

    @refresh_on_expired_token(tokens=manager)
    async def call() -> dict[str, str]:
        return await ask(manager.headers("X"))

    dead = manager.token()
    DEAD.add(dead.value)
    gateway.expire()
    gateway.reset_counts()
    answers = await asyncio.gather(*(call() for _ in range(1000)))
    assert answers == [GOOD] * 1000
    assert gateway.counts.token_requests == 1
    assert len(threads) == 1
    assert threading.main_thread().name not in threads
    told = Counter(event.name for event in events)
    assert told == Counter(token_expired=1000, token_refreshed=1, token_adopted=999, call_recovered=1000)


async def test_the_event_loop_goes_on_while_a_token_is_issued(manager: TokenManager, gateway: KisGateway) -> None:
    gateway.hang("tokens", 1)
    ask = kis(manager)

    @refresh_on_expired_token(tokens=manager)
    async def call(headers: dict[str, str]) -> dict[str, str]:
        return await ask(headers)

    first = asyncio.create_task(call({}))
    await until_async(lambda: gateway.counts.token_requests == 1)
    assert not first.done()
    gateway.heal()
    assert (await first) == GOOD


async def test_a_cancelled_task_does_not_cancel_the_refresh_that_others_wait_for(
    gateway: KisGateway, manager: TokenManager
) -> None:
    ask = kis(manager)

    @refresh_on_expired_token(tokens=manager)
    async def call() -> dict[str, str]:
        return await ask(manager.headers("X"))

    await call()
    DEAD.add(manager.token().value)
    gateway.expire()
    gateway.hang("tokens", 1)
    gateway.reset_counts()
    tasks = [asyncio.create_task(call()) for _ in range(5)]
    await until_async(lambda: gateway.counts.token_requests == 1)
    tasks[0].cancel()  # the one that asked
    await asyncio.sleep(0)
    gateway.heal()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [GOOD] * 4
    assert gateway.counts.tokens_issued == 1


async def test_a_failure_is_shared_and_kis_own_answer_comes_back(gateway: KisGateway, manager: TokenManager) -> None:
    ask = kis(manager)

    @refresh_on_expired_token(tokens=manager)
    async def call() -> dict[str, str]:
        return await ask(manager.headers("X"))

    await call()
    DEAD.add(manager.token().value)
    gateway.refuse_tokens(code="EGW00105")
    gateway.reset_counts()
    assert await asyncio.gather(*(call() for _ in range(50))) == [EXPIRED] * 50
    assert gateway.counts.token_requests == 1


async def test_without_a_first_token_the_reason_is_raised(gateway: KisGateway, manager: TokenManager) -> None:
    gateway.refuse_tokens(code="EGW00103")

    @refresh_on_expired_token(tokens=manager)
    async def call(headers: dict[str, str]) -> dict[str, str]:
        return EXPIRED

    with pytest.raises(TokenIssueError):
        await call({})
    assert await call({"authorization": "Bearer own"}) is EXPIRED


async def test_a_straggling_task_does_not_refresh_again(gateway: KisGateway, manager: TokenManager) -> None:
    release = asyncio.Event()
    ask = kis(manager)

    @refresh_on_expired_token(tokens=manager)
    async def slow(headers: dict[str, str]) -> dict[str, str]:
        answer = await ask(headers)
        await release.wait()
        return answer

    @refresh_on_expired_token(tokens=manager)
    async def quick(headers: dict[str, str]) -> dict[str, str]:
        return await ask(headers)

    await quick({})
    DEAD.add(manager.token().value)
    gateway.expire()
    gateway.reset_counts()
    straggler = asyncio.create_task(slow({}))
    await asyncio.sleep(0)
    assert await quick({}) == GOOD
    release.set()
    assert await straggler == GOOD
    assert gateway.counts.token_requests == 1


async def test_nested_three_deep_with_mixed_sync_and_async_one_issue_and_one_repeat(
    gateway: KisGateway, manager: TokenManager
) -> None:
    @refresh_on_expired_token(tokens=manager)
    def inner() -> dict[str, Any]:
        headers = manager.headers("FHKST01010100")
        answer: dict[str, Any] = requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()
        return answer

    @refresh_on_expired_token(tokens=manager)
    async def middle() -> dict[str, Any]:
        return await asyncio.to_thread(inner)

    @refresh_on_expired_token(tokens=manager)
    async def outer() -> dict[str, Any]:
        return await middle()

    @refresh_on_expired_token(tokens=manager)
    def outermost() -> dict[str, Any]:
        return asyncio.run(outer())

    assert (await asyncio.to_thread(outermost))["rt_cd"] == "0"
    gateway.expire()
    gateway.refuse_calls()
    gateway.reset_counts()
    assert (await asyncio.to_thread(outermost))["msg_cd"] == "EGW00123"
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)


async def test_a_source_of_the_users_own_is_asked_off_the_loop() -> None:
    asked: list[str] = []

    class Tokens:
        n = 1

        def token(self) -> AccessToken:
            asked.append(threading.current_thread().name)
            from datetime import datetime, timezone

            return AccessToken(f"t{self.n}", datetime(2040, 1, 1, tzinfo=timezone.utc))

        def refresh(self, rejected: AccessToken) -> AccessToken:
            self.n += 1
            return self.token()

    @refresh_on_expired_token(tokens=Tokens())
    async def call(headers: dict[str, str]) -> dict[str, str]:
        return EXPIRED if headers["authorization"] == "Bearer t1" else GOOD

    assert await call({}) == GOOD
    assert threading.main_thread().name not in asked


async def test_tasks_go_on_with_a_good_token_while_one_renews_it_early(gateway: KisGateway) -> None:
    policy = RetryPolicy(refresh_margin=43_200)
    with KisGateway(lifetime=3600) as short:
        manager = TokenManager(short.credentials, store=MemoryTokenStore(), policy=policy)
        token = manager.token()
        manager._refresher.memory.cached.stale_at = 0.0  # type: ignore[union-attr]  # it is held
        short.hang("tokens", 1)
        others: list[str] = []

        @refresh_on_expired_token(tokens=manager)
        async def call(headers: dict[str, str]) -> dict[str, str]:
            others.append(headers["authorization"])
            return GOOD

        renewing = asyncio.create_task(call({"authorization": token.bearer}))
        await until_async(lambda: short.counts.token_requests == 2)
        await asyncio.gather(*(call({"authorization": token.bearer}) for _ in range(10)))
        assert not renewing.done()
        assert others == [token.bearer] * 10
        short.heal()
        await renewing
