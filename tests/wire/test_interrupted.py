"""A cancelled task, an exception of a signal handler and Ctrl-C end each wait, and nothing leaves afterwards."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import aiohttp
import httpx
import pytest

from alarms import alarm_once
from clocks import interrupt
from kis_retry import MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager
from kis_retry.testing import KisGateway
from patience import until_async
from senders import GOOD, ORDER, PRICE, SYNC, Answer, Wire, both, headers_for

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="a signal for one thread")

SOON = 5.0  # seconds in which a wait is over that would take a minute


class OwnTimeoutError(TimeoutError):
    """A time limit of a program's own, of a type that failures of the network have, too."""


class Waiting(NamedTuple):
    """A wait that takes long: what makes a call wait so, and whether it does."""

    begin: Callable[[KisGateway], dict[str, Any]]
    has_begun: Callable[[KisGateway], object]


def _with_tokens(gateway: KisGateway, **policy: Any) -> dict[str, Any]:
    given = RetryPolicy(issue_wait=1, **policy)
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=given)
    return {"tokens": tokens, "policy": given}


def _a_token(gateway: KisGateway) -> dict[str, Any]:
    gateway.expire()
    gateway.hang("tokens", 1, seconds=60)
    return _with_tokens(gateway, order_deadline=60)


def _a_minute(gateway: KisGateway) -> dict[str, Any]:
    gateway.expire()
    gateway.refuse_tokens("EGW00133")
    return _with_tokens(gateway, order_deadline=60)


def _a_slot(gateway: KisGateway) -> dict[str, Any]:
    limiter = RateLimiter(gateway.credentials, rate=0.1, store=MemoryTokenStore())
    assert limiter.acquire()
    return {"limiter": limiter, **_with_tokens(gateway)}


def _a_repeat(gateway: KisGateway) -> dict[str, Any]:
    gateway.refuse_calls("EGW00201", 1)
    limiter = RateLimiter(gateway.credentials, rate=0.1, store=MemoryTokenStore())
    return {"limiter": limiter, **_with_tokens(gateway, order_deadline=60)}


def _a_pause(gateway: KisGateway) -> dict[str, Any]:
    gateway.expire()
    return _with_tokens(gateway, wait=60, order_deadline=90)


def _an_answer(gateway: KisGateway) -> dict[str, Any]:
    gateway.hang(times=1, seconds=60)
    return _with_tokens(gateway)


WAITS = {
    "a token": Waiting(_a_token, lambda gateway: gateway.faults_met.get("hung")),
    "the minute": Waiting(_a_minute, lambda gateway: gateway.faults_met.get("EGW00133")),
    "a slot": Waiting(_a_slot, lambda gateway: True),
    "the slot of a repeat": Waiting(_a_repeat, lambda gateway: gateway.faults_met.get("EGW00201")),
    "the pause before a repeat": Waiting(_a_pause, lambda gateway: gateway.counts.tokens_issued == 2),
    "an answer": Waiting(_an_answer, lambda gateway: gateway.faults_met.get("hung")),
}


def check_nothing_leaves(gateway: KisGateway, calls: int) -> None:
    gateway.heal()
    time.sleep(0.15)
    assert gateway.counts.calls == calls


# Tasks.


async def _by_httpx(url: str, headers: dict[str, str], method: str) -> None:
    async with httpx.AsyncClient(headers=headers) as client:
        await client.request(method, url, json={"PDNO": "1"} if method == "POST" else None)


async def _by_aiohttp(url: str, headers: dict[str, str], method: str) -> None:
    body = {"PDNO": "1"} if method == "POST" else None
    async with aiohttp.ClientSession(headers=headers) as session, session.request(method, url, json=body):
        pass


@pytest.mark.parametrize(("ask", "method"), [(_by_httpx, "POST"), (_by_aiohttp, "GET")])
@pytest.mark.parametrize("name", WAITS)
def test_cancelling_a_task_ends_each_wait(name: str, ask: Any, method: str, gateway: KisGateway) -> None:
    wait, path = WAITS[name], ORDER if method == "POST" else PRICE
    headers = headers_for(gateway)
    call = both(ask, **wait.begin(gateway))

    async def main() -> None:
        """The wait does not stop the loop, or nothing else would go on in it."""
        task = asyncio.create_task(call(gateway.url + path, headers, method))
        await asyncio.sleep(0.05)
        await until_async(lambda: wait.has_begun(gateway))
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < SOON

    asyncio.run(main())
    check_nothing_leaves(gateway, gateway.counts.calls)


# Signals.


def _own(*_: object) -> NoReturn:
    raise OwnTimeoutError


HANDLERS: dict[Any, type[BaseException]] = {_own: OwnTimeoutError, interrupt: KeyboardInterrupt}


@pytest.mark.parametrize(
    ("wire", "name", "handler", "method"),
    [
        *((SYNC[0], name, *each) for name in WAITS for each in ((_own, "get"), (interrupt, "order"))),
        *((wire, name, interrupt, "get") for wire in SYNC[1:] for name in ("a slot", "an answer")),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_exception_of_a_signal_handler_ends_each_wait(
    wire: Wire, name: str, handler: Any, method: str, gateway: KisGateway
) -> None:
    wait = WAITS[name]
    headers = headers_for(gateway)
    is_called = threading.Event()

    def ask() -> None:
        is_called.set()
        getattr(wire, method)(gateway, **headers)

    call = both(both(ask, **wait.begin(gateway)))
    alarm = alarm_once(handler, lambda: is_called.is_set() and wait.has_begun(gateway))
    with alarm, pytest.raises(BaseException) as raised:
        call()
    found: Any = raised.value
    while found is not None and type(found) is not HANDLERS[handler]:
        found = found.__cause__ or found.__context__  # a library makes its own of one that it takes for the network's
    assert found is not None
    check_nothing_leaves(gateway, gateway.counts.calls)


def test_an_order_that_a_signal_ended_is_held_back(gateway: KisGateway) -> None:
    call = both(lambda: SYNC[0].order(gateway))
    gateway.hang(times=1, seconds=60)
    with alarm_once(interrupt, lambda: gateway.faults_met.get("hung")), pytest.raises(KeyboardInterrupt):
        call()
    with pytest.raises(TimeoutError, match="nobody waited"):
        call()
    gateway.heal()
    assert len(gateway.orders) == 1


# Those who wait beside.


def test_who_waits_beside_gets_his_token_all_the_same(gateway: KisGateway) -> None:
    """The refresh that the interrupted one began goes on."""
    answers: list[Answer] = []
    headers = headers_for(gateway)
    call = both(lambda: SYNC[0].get(gateway, **headers), **_a_token(gateway))
    others = [threading.Thread(target=lambda: answers.append(call())) for _ in range(3)]
    for other in others:
        other.start()
    with alarm_once(_own, lambda: gateway.faults_met.get("hung")), pytest.raises(OwnTimeoutError):
        call()
    gateway.heal()
    for other in others:
        other.join(20)
    assert answers == [GOOD] * 3
    assert gateway.counts.tokens_issued == 2
