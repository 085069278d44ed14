"""The cause of an expired token: which token is blamed, what is adopted, and that nobody refreshes for nothing."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import aiohttp
import pytest
import requests

from alarms import alarm_once
from answers import EXPIRED, GOOD
from kis_retry import (
    AccessToken,
    KisClient,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
)
from kis_retry.context import CURRENT, current_call
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from patience import PATIENCE
from sources import FAR, NumberedTokens

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"


def bound_function(gateway: KisGateway, tokens: TokenManager, bound: list[str]) -> Callable[[int], Any]:
    """A function that keeps its token in a dict of its own, with a `bind=` of its own."""
    base = tokens.headers("FHKST01010100")

    def bind(token: AccessToken) -> None:
        bound.append(token.value)
        base["authorization"] = token.bearer

    @refresh_on_expired_token(tokens=tokens, bind=bind)
    def fetch(symbol: int) -> Any:
        return requests.get(gateway.url + PRICE, headers=base, timeout=9).json()

    return fetch


def batch(fetch: Callable[[int], Any], threads: int, calls: int) -> int:
    """How many of the calls were lost."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(answer["rt_cd"] != "0" for answer in pool.map(fetch, range(calls)))


# Which token is blamed.


def test_two_functions_with_a_bind_of_their_own_lose_nothing(gateway: KisGateway, manager: TokenManager) -> None:
    first_bound, second_bound = list[str](), list[str]()
    first, second = bound_function(gateway, manager, first_bound), bound_function(gateway, manager, second_bound)
    for fetch in (first, second):
        assert fetch(0)["rt_cd"] == "0"
    gateway.expire()
    gateway.reset_counts()
    assert [fetch(n)["rt_cd"] for n in range(20) for fetch in (first, second)] == ["0"] * 40
    assert (gateway.counts.token_requests, gateway.counts.token_requests_refused) == (1, 0)
    assert gateway.counts.refused <= 2


def test_one_beside_a_client_that_shares_the_manager_loses_nothing(
    gateway: KisGateway, manager: TokenManager, client: KisClient
) -> None:
    fetch = bound_function(gateway, manager, [])
    assert fetch(0)["rt_cd"] == client.fetch_domestic_price("005930")["rt_cd"] == "0"
    gateway.expire()
    gateway.reset_counts()
    answers = [ask() for _ in range(20) for ask in (lambda: client.fetch_domestic_price("005930"), lambda: fetch(1))]
    assert {answer["rt_cd"] for answer in answers} == {"0"}
    assert gateway.counts.token_requests == 1


def test_64_threads_in_one_such_function_lose_nothing_and_bind_once(gateway: KisGateway, manager: TokenManager) -> None:
    bound: list[str] = []
    fetch = bound_function(gateway, manager, bound)
    gateway.expire_at(128)
    assert batch(fetch, 64, 320) == 0
    assert gateway.counts.token_requests == 2
    assert len(bound) == 1


def test_bind_is_called_by_one_thread_at_a_time_and_once_for_a_token_and_an_object(
    gateway: KisGateway, manager: TokenManager
) -> None:
    inside = threading.Lock()
    calls: list[tuple[str, str]] = []
    overlapping: list[str] = []

    class Library:
        def __init__(self, name: str) -> None:
            self.name = name
            self.base = manager.headers("FHKST01010100")

        def bind(self, token: AccessToken) -> None:
            alone = inside.acquire(blocking=False)
            if not alone:
                overlapping.append(self.name)  # raised in here, it would be told as a bind= that failed
            time.sleep(0.1)
            calls.append((self.name, token.value))
            self.base = {**self.base, "authorization": token.bearer}
            if alone:
                inside.release()

        @refresh_on_expired_token(tokens=manager, bind=bind)
        def fetch(self, symbol: int) -> Any:
            return requests.get(gateway.url + PRICE, headers=self.base, timeout=9).json()

    first, second = Library("first"), Library("second")
    gateway.expire()
    assert batch(lambda n: (first if n % 2 else second).fetch(n), 16, 96) == 0
    assert 1 <= len(calls) == len(set(calls)) <= 2
    assert overlapping == []


def test_what_bind_raises_is_told_and_the_wire_carries_the_token_all_the_same(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    base = manager.headers("FHKST01010100")

    def bind(token: AccessToken) -> None:
        raise LookupError(token.value)

    @refresh_on_expired_token(tokens=manager, bind=bind)
    def fetch() -> Any:
        return requests.get(gateway.url + PRICE, headers=base, timeout=9).json()

    gateway.expire()
    assert fetch()["rt_cd"] == "0"
    assert [event.error for event in events if event.name == "token_refresh_failed"] == ["bind:LookupError"]


def test_a_dead_token_that_was_adopted_does_not_spend_the_repeat(gateway: KisGateway) -> None:
    store = MemoryTokenStore()
    tokens = TokenManager(gateway.credentials, store=store)
    client = KisClient(tokens=tokens)
    client.fetch_domestic_price("005930")
    gateway.expire()
    store.save(key_of(gateway.credentials), AccessToken("dead-as-well", FAR))
    gateway.reset_counts()
    assert batch(lambda n: client.fetch_domestic_price(f"{n:06d}"), 16, 64) == 0
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize(("dead", "refused", "issues"), [(3, 4, 1), (4, 5, 0)])
def test_three_dead_tokens_of_others_leave_a_call_its_repeat_and_a_fourth_spends_it(
    dead: int, refused: int, issues: int, gateway: KisGateway, manager: TokenManager
) -> None:
    """Without a bound, somebody who goes on storing dead tokens would have a call repeated for ever."""
    headers = manager.headers("FHKST01010100")
    others = iter(range(dead))

    @refresh_on_expired_token(tokens=manager)
    def fetch(headers: dict[str, str]) -> Any:
        answer = requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()
        for number in itertools.islice(others, 1):  # by the time of the answer somebody has stored one
            manager.store.save(key_of(gateway.credentials), AccessToken(f"dead-{number}", FAR))
        return answer

    gateway.expire()
    gateway.reset_counts()
    assert fetch(headers)["rt_cd"] == ("0" if issues else "1")
    assert (gateway.counts.refused, gateway.counts.token_requests) == (refused, issues)


def test_a_connection_that_is_dropped_is_no_refusal_of_the_token(gateway: KisGateway, manager: TokenManager) -> None:
    headers = manager.headers("FHKST01010100")

    @refresh_on_expired_token(tokens=manager)
    def fetch(headers: dict[str, str]) -> Any:
        return requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()

    gateway.drop(times=1)
    gateway.reset_counts()
    with pytest.raises(requests.ConnectionError):
        fetch(headers)
    assert (gateway.counts.calls, gateway.counts.token_requests) == (1, 0)


def test_a_broker_that_is_a_dataclass_refreshes_once(gateway: KisGateway) -> None:
    issues: list[int] = []

    @dataclass
    class Broker:
        url: str
        access_token: str = ""

        def issue_access_token(self) -> None:
            issues.append(1)
            credentials = gateway.credentials
            body = {"grant_type": "client_credentials", "appkey": credentials.app_key}
            body["appsecret"] = credentials.app_secret
            answer = requests.post(f"{self.url}/oauth2/tokenP", json=body, timeout=9).json()
            self.access_token = f"Bearer {answer['access_token']}"

        @refresh_on_expired_token
        def fetch(self, symbol: int) -> Any:
            headers = {"authorization": self.access_token}
            return requests.get(self.url + PRICE, headers=headers, timeout=9).json()

    broker = Broker(gateway.url)
    broker.issue_access_token()
    gateway.expire()
    assert batch(broker.fetch, 16, 64) == 0
    assert len(issues) == 2


# What the interpreter does meanwhile.


class TimeLimitError(Exception):
    """The user's own."""


def _raise(*_: object) -> None:
    raise TimeLimitError


def _raise_with(text: str, number: int, frame: FrameType | None) -> None:
    raise TimeLimitError(text)


class _Limit:
    def __call__(self, *_: object) -> None:
        raise TimeLimitError

    def method(self, *_: object) -> None:
        raise TimeLimitError


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no SIGALRM")
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("handler", [_raise, partial(partial(_raise_with), "too long"), _Limit(), _Limit().method])
def test_an_exception_of_a_signal_handler_during_a_refresh_reaches_the_caller(handler: Any, wrapped: bool) -> None:
    class Slow(NumberedTokens):
        def refresh(self, rejected: AccessToken) -> AccessToken:
            asked.set()
            try:
                threading.Event().wait(PATIENCE)
            except TimeLimitError:
                if wrapped:
                    raise RuntimeError("the source's own") from LookupError("and what it blames")
                raise
            return super().refresh(rejected)

    before = signal.signal(signal.SIGALRM, handler)
    asked = threading.Event()
    try:
        fetch = refresh_on_expired_token(tokens=Slow())(lambda: EXPIRED)
        with pytest.raises(RuntimeError if wrapped else TimeLimitError), alarm_once(asked.is_set):
            fetch()
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_bind_runs_binds_for_itself() -> None:
    tokens, keeps, parent = NumberedTokens(), {"authorization": "Bearer t1"}, os.getpid()
    inside, may_go = threading.Event(), threading.Event()

    def bind(token: AccessToken) -> None:
        if token.value == "t3" and os.getpid() == parent:
            inside.set()
            may_go.wait(30)
        keeps["authorization"] = token.bearer

    fetch = refresh_on_expired_token(tokens=tokens, bind=bind)(lambda: tokens.answer(keeps["authorization"]))
    tokens.number = 2
    assert fetch() == GOOD, "bound once, so that the next token is bound before the call"
    tokens.number = 3
    calling = threading.Thread(target=fetch)
    calling.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if fetch() == GOOD else 1)
    may_go.set()
    calling.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_a_call_that_is_over_is_kept_alive_by_no_timer_of_the_loop(
    gateway: KisGateway, manager: TokenManager
) -> None:
    class Argument:
        """Something whose end can be seen."""

    headers = await asyncio.to_thread(manager.headers, "FHKST01010100")
    alive = []
    async with aiohttp.ClientSession(headers=headers) as session:

        @refresh_on_expired_token(tokens=manager)
        async def fetch(argument: Argument) -> Any:
            async with session.get(gateway.url + PRICE) as response:
                return await response.json()

        for _ in range(5):
            argument = Argument()
            alive.append(weakref.ref(argument))
            assert (await fetch(argument))["rt_cd"] == "0"
        del argument
        gc.collect()
        assert [reference for reference in alive if reference() is not None] == []


def test_calls_that_could_not_be_helped_keep_nothing_alive(gateway: KisGateway) -> None:
    class Argument:
        """Something whose end can be seen."""

    policy = RetryPolicy(issue_wait=0, transient_deadline=0)
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy)
    headers = tokens.headers("X")
    gateway.expire()
    gateway.refuse_tokens("EGW00103")

    @refresh_on_expired_token(tokens=tokens)
    def fetch(argument: Argument, headers: dict[str, str]) -> Any:
        return EXPIRED

    alive = []
    for _ in range(50):
        argument = Argument()
        alive.append(weakref.ref(argument))
        assert fetch(argument, headers) is EXPIRED
    del argument
    gc.collect()
    assert [reference for reference in alive if reference() is not None] == []


@pytest.mark.parametrize("overlapping", [False, True])
async def test_coroutines_that_schedule_each_other_do_not_chain_their_parents(overlapping: bool) -> None:
    """Each begins after the one that scheduled it has ended, or `overlapping` while that one still runs."""
    tokens = NumberedTokens()
    depths: list[int] = []
    done = asyncio.Event()

    @refresh_on_expired_token(tokens=tokens)
    async def work(left: int, begun: asyncio.Event | None = None) -> dict[str, str]:
        if begun is not None:
            begun.set()
        call, depth = current_call(), 0
        while call is not None:
            call, depth = call.parent, depth + 1
        depths.append(depth)
        if left and overlapping:
            begun = asyncio.Event()
            tasks.append(asyncio.ensure_future(work(left - 1, begun)))
            await begun.wait()
        elif left:
            asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.ensure_future(work(left - 1))))
        else:
            done.set()
        return GOOD

    tasks: list[Any] = []
    await work(0)  # what is imported with the first call is not what it leaves
    done.clear()
    tracemalloc.start()
    try:
        tasks.append(asyncio.ensure_future(work(1_000)))
        await asyncio.wait_for(done.wait(), 30)
        tasks.clear()
        gc.collect()
        middle = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert max(depths) <= 3
    assert middle < 1_000 * 400, "less than half a kilobyte a call is left"


def test_the_call_around_is_current_again_after_a_call(gateway: KisGateway, manager: TokenManager) -> None:
    seen: list[str | None] = []

    def name() -> str | None:
        call = current_call()
        return call.name if call is not None else None

    @refresh_on_expired_token(tokens=manager)
    def inner() -> dict[str, str]:
        seen.append(name())
        return GOOD

    @refresh_on_expired_token(tokens=manager)
    def outer() -> dict[str, str]:
        inner()
        seen.append(name())
        return GOOD

    outer()
    assert [found.rpartition(".")[2] for found in seen if found] == ["inner", "outer"]
    assert CURRENT.get() is None


@pytest.mark.parametrize("watch_transport", [True, False])
def test_a_place_that_holds_an_earlier_token_is_not_believed_while_the_next_one_is_on_its_way(
    watch_transport: bool, gateway: KisGateway, manager: TokenManager
) -> None:
    """The code sends one token and keeps another, as finestock does: here a global one, and an attribute."""
    sent = manager.authorization

    class Library:
        access_token = sent
        somebody_was_refused = False

        @refresh_on_expired_token(tokens=manager, watch_transport=watch_transport)
        def fetch(self) -> Any:
            if self.somebody_was_refused:  # after this call had begun, and nobody has refreshed yet
                self.somebody_was_refused = False
                manager.note_refused(manager.token().value)
            return requests.get(gateway.url + PRICE, headers={"authorization": sent}, timeout=9).json()

    library = Library()
    gateway.expire()
    assert library.fetch()["rt_cd"] == "0"
    gateway.expire()
    gateway.reset_counts()
    library.somebody_was_refused = True
    assert library.fetch()["rt_cd"] == "0"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (0 if watch_transport else 1, 1)
