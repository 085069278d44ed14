"""No order is sent twice, and one that was itself refused is placed exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from kis_retry import (
    KisClient,
    RefreshEvent,
    TokenManager,
    on_event,
    protect,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
HASHKEY = "/uapi/hashkey"
BODY = {"PDNO": "005930", "ORD_QTY": "1"}


class Trader:
    """Code that orders, and then asks."""

    def __init__(self, gateway: KisGateway, tokens: TokenManager) -> None:
        self.gateway = gateway
        self.headers = tokens.headers("TTTC0012U")

    def order(self) -> requests.Response:
        return requests.post(self.gateway.url + ORDER, json=BODY, headers=self.headers, timeout=9)

    def ask(self) -> requests.Response:
        self.gateway.expire()  # between the two: the order was accepted, the question is refused
        return requests.get(self.gateway.url + PRICE, headers=self.headers, timeout=9)


def _returning_the_answer(trader: Trader) -> Any:
    trader.order()
    return trader.ask().json()


def _raising(trader: Trader) -> Any:
    trader.order()
    answer = trader.ask()
    answer.raise_for_status()
    return answer.json()


def _returning_the_order(trader: Trader) -> Any:
    placed = trader.order().json()
    trader.ask()
    return placed


def _swallowing(trader: Trader) -> Any:
    trader.order()
    return trader.ask().json().get("output")


def _in_a_thread_that_carries_the_context(trader: Trader) -> Any:
    asyncio.run(asyncio.to_thread(trader.order))
    return trader.ask().json()


FORMS = [_returning_the_answer, _raising, _returning_the_order, _swallowing, _in_a_thread_that_carries_the_context]


@pytest.mark.parametrize("watch_transport", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_call_in_which_an_order_went_out_is_not_repeated(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent], form: Any, watch_transport: bool
) -> None:
    call = refresh_on_expired_token(tokens=manager, watch_transport=watch_transport)(form)
    with contextlib.suppress(requests.HTTPError):  # the function's own
        call(Trader(gateway, manager))
    assert gateway.orders == [BODY]
    told = [event.name for event in events]
    assert "token_refreshed" not in told
    if watch_transport or form not in (_returning_the_order, _swallowing):
        assert told[-1] == "call_given_up"


def test_what_is_sent_to_kis_own_host_is_an_order_whatever_its_path(gateway: KisGateway, manager: TokenManager) -> None:
    headers = manager.headers("TTTC0012U")

    @refresh_on_expired_token(tokens=manager)
    def buy_and_ask() -> Any:
        with contextlib.suppress(requests.ConnectionError):
            requests.post(f"{gateway.url}/trading/order", json=BODY, headers=headers, timeout=9)
        gateway.expire()
        return requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()

    gateway.drop(times=1, reached=True)
    assert buy_and_ask()["msg_cd"] == "EGW00123"
    assert [request.method for request in gateway.received if "/oauth2/" not in request.path] == ["POST", "GET"]


def test_protect_repeats_no_order_either(gateway: KisGateway, manager: TokenManager) -> None:
    class Library:
        def buy(self) -> Any:
            return _returning_the_answer(Trader(gateway, manager))

    protect(Library, tokens=manager, methods="buy")
    assert Library().buy()["msg_cd"] == "EGW00123"
    assert gateway.orders == [BODY]


async def test_an_order_of_a_task_that_the_call_started_counts(gateway: KisGateway, manager: TokenManager) -> None:
    trader = Trader(gateway, manager)

    @refresh_on_expired_token(tokens=manager)
    async def buy() -> Any:
        async with httpx.AsyncClient(headers=trader.headers) as client:
            await asyncio.create_task(client.post(gateway.url + ORDER, json=BODY))
            gateway.expire()
            return (await client.get(gateway.url + PRICE)).json()

    assert (await buy())["msg_cd"] == "EGW00123"
    assert gateway.orders == [BODY]


@pytest.fixture
def late_order(gateway: KisGateway, manager: TokenManager) -> Iterator[Callable[[], threading.Thread]]:
    """Start a thread of the call's own that orders when the token has been refreshed, and before the next attempt."""
    refreshed, placed = threading.Event(), threading.Event()

    def hook(event: RefreshEvent) -> None:
        if event.name == "token_refreshed":
            refreshed.set()
            assert placed.wait(30)

    def order() -> None:
        assert refreshed.wait(30)
        requests.post(gateway.url + ORDER, json=BODY, headers=manager.headers("TTTC0012U"), timeout=9)
        placed.set()

    def start() -> threading.Thread:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(order,))
        thread.start()
        return thread

    unsubscribe = on_event(hook)
    yield start
    unsubscribe()


def test_an_order_that_goes_out_during_the_refresh_stops_the_repeat(
    gateway: KisGateway, manager: TokenManager, late_order: Any, events: list[RefreshEvent]
) -> None:
    threads = []

    @refresh_on_expired_token(tokens=manager)
    def trade() -> Any:
        threads.append(late_order())
        return Trader(gateway, manager).ask().json().get("output")

    assert trade() is None
    for thread in threads:
        thread.join(30)
    assert gateway.orders == [BODY]
    assert [event.name for event in events] == ["token_expired", "token_refreshed", "call_given_up"]


async def test_an_order_that_goes_out_during_the_refresh_stops_a_coroutine_too(
    gateway: KisGateway, manager: TokenManager, late_order: Any
) -> None:
    threads = []

    @refresh_on_expired_token(tokens=manager)
    async def trade() -> Any:
        threads.append(late_order())
        async with httpx.AsyncClient(headers=manager.headers("FHKST01010100")) as client:
            gateway.expire()
            answer = await client.get(gateway.url + PRICE)
            answer.raise_for_status()

    with pytest.raises(httpx.HTTPStatusError):
        await trade()
    for thread in threads:
        thread.join(30)
    assert gateway.orders == [BODY]


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("library", ["requests", "httpx", "hashkey first"])
def test_an_order_that_was_itself_refused_is_placed_exactly_once(manager: Any, library: str, status: int) -> None:
    with KisGateway(expired_status=status) as gateway:
        tokens = TokenManager(gateway.credentials, store=manager.store)
        headers = tokens.headers("TTTC0012U")

        @refresh_on_expired_token(tokens=tokens)
        def buy() -> Any:
            if library == "httpx":
                return httpx.post(gateway.url + ORDER, json=BODY, headers=headers).json()
            if library == "hashkey first":  # as mojito does: it is posted, and no order
                requests.post(gateway.url + HASHKEY, json=BODY, headers=headers, timeout=9)
            return requests.post(gateway.url + ORDER, json=BODY, headers=headers, timeout=9).json()

        gateway.expire()
        assert buy()["rt_cd"] == "0"
        assert gateway.orders == [BODY]


async def test_an_order_of_aiohttp_that_was_refused_is_placed_exactly_once(
    gateway: KisGateway, manager: TokenManager
) -> None:
    headers = await asyncio.to_thread(manager.headers, "TTTC0012U")

    @refresh_on_expired_token(tokens=manager)
    async def buy(session: aiohttp.ClientSession) -> Any:
        async with session.post(gateway.url + ORDER, json=BODY) as response:
            return await response.json()

    async with aiohttp.ClientSession(headers=headers) as session:
        gateway.expire()
        assert (await buy(session))["rt_cd"] == "0"
        assert gateway.orders == [BODY]
        gateway.expire()

        @refresh_on_expired_token(tokens=manager)
        async def buy_and_ask() -> Any:
            placed = await buy(session)
            gateway.expire()
            async with session.get(gateway.url + PRICE) as response:
                answer = await response.json()
            return placed, answer

        _, answer = await buy_and_ask()
        assert answer["msg_cd"] == "EGW00123"
        assert gateway.orders == [BODY] * 2


def test_nothing_is_repeated_after_an_order_that_may_have_been_acted_upon(
    manager: TokenManager, gateway: KisGateway, no_backoff: None, events: list[RefreshEvent]
) -> None:
    headers = manager.headers("X")

    @retry_on_transient_error
    def trade() -> Any:
        requests.post(gateway.url + ORDER, json=BODY, headers=headers, timeout=9)
        gateway.refuse_calls("EGW00201", 1)
        return requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()

    assert trade()["msg_cd"] == "EGW00201"
    assert gateway.orders == [BODY]
    assert [event.name for event in events] == ["call_given_up"]


def test_the_client_posts_an_order_once_whatever_the_gateway_does(
    gateway: KisGateway, client: KisClient, no_backoff: None
) -> None:
    client.access_token  # noqa: B018  # the first token
    gateway.refuse_calls("EGW00201", 2)
    assert client.post(ORDER, "TTTC0012U", BODY)["rt_cd"] == "0"
    gateway.expire()
    assert client.post(ORDER, "TTTC0012U", BODY)["rt_cd"] == "0"
    gateway.drop("calls", 1, reached=True)
    with pytest.raises(requests.ConnectionError):
        client.post(ORDER, "TTTC0012U", BODY)
    assert gateway.orders == [BODY] * 3


def test_a_function_of_its_own_threads_is_seen_where_the_context_is_carried(
    gateway: KisGateway, manager: TokenManager
) -> None:
    trader = Trader(gateway, manager)
    results = SimpleNamespace()

    @refresh_on_expired_token(tokens=manager)
    def trade() -> Any:
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(trader.order))
        thread.start()
        thread.join()
        results.answer = trader.ask().json()
        return results.answer

    assert trade()["msg_cd"] == "EGW00123"
    assert gateway.orders == [BODY]
