"""After a call nothing of it is left, with the garbage collector off: no connection, no argument, no answer."""

from __future__ import annotations

import asyncio
import gc
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from kis_retry import RetryPolicy
from kis_retry.testing import KisGateway
from patience import until
from senders import PRICE, WIRES, Wire, headers_for
from senders import both as at_both

BRIEF = RetryPolicy(transient_deadline=0.02, order_deadline=0.02, order_hold=0, issue_wait=0)
ALL = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


class Argument:
    """Something that a call is given, and that can be watched."""


@contextmanager
def uncollected() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


both = partial(at_both, policy=BRIEF)


ENDINGS: dict[str, Callable[[KisGateway], object]] = {
    "good": KisGateway.heal,
    "renewed": KisGateway.expire,
    "refused": lambda gateway: (gateway.refuse_calls("EGW00123"), gateway.refuse_tokens("EGW00103")),  # type: ignore[func-returns-value]
    "limited": lambda gateway: gateway.refuse_calls("EGW00201"),
    "dropped": KisGateway.drop,
    "failed": lambda gateway: gateway.fail(503),
}


def given(call: Callable[[Argument], object]) -> weakref.WeakSet[Argument]:
    """The arguments of two calls of a function, those that are left of them."""
    kept = weakref.WeakSet[Argument]()

    def once() -> None:
        argument = Argument()
        kept.add(argument)
        with suppress(Exception):
            call(argument)

    once()
    once()
    return kept


@ALL
@pytest.mark.parametrize("end", ENDINGS)
def test_no_argument_outlives_a_call(wire: Wire, end: str, gateway: KisGateway) -> None:
    """But those that the library itself keeps."""

    def call(argument: Argument) -> None:
        with suppress(Exception):
            wire.get(gateway)
        if wire.order(gateway).status != 200:
            raise RuntimeError

    with uncollected():
        ENDINGS[end](gateway)
        bare, ours = given(call), given(both(call))
        until(lambda: len(ours) <= len(bare))  # the thread that got the token is about to end


# Many calls.


def sockets() -> int:
    """How many sockets this process has open."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one with which this is read
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def _ask(client: Any, url: str, headers: dict[str, str]) -> None:
    response = client.get(url, headers=headers)
    response.raise_for_status()
    response.json()


def _ask_urllib(_: Any, url: str, headers: dict[str, str]) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=9) as response:
        response.read()


CLIENTS: list[tuple[Any, Any, bool, int]] = [
    (requests.Session, _ask, False, 3_000),  # a drop is kept alive by urllib3's own circle
    (httpx.Client, _ask, True, 1_000),
    (nullcontext, _ask_urllib, True, 1_000),
]
FAILURES = (requests.RequestException, httpx.HTTPError, OSError)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="where a process sees what it has open")
@pytest.mark.parametrize(("make", "ask", "drops", "calls"), CLIENTS)
def test_many_calls_leave_nothing(make: Any, ask: Any, drops: bool, calls: int, gateway: KisGateway) -> None:
    gateway.refuse_calls("EGW00201", share=0.05)
    gateway.refuse_calls("EGW00206", share=0.05)
    gateway.fail(503, share=0.05)
    if drops:
        gateway.drop(share=0.05)

    @both
    def fetch(client: Any, argument: Argument) -> Any:
        ask(client, gateway.url + PRICE, headers)
        return argument

    kept = weakref.WeakSet[Argument]()
    headers, failures = headers_for(gateway), 0
    with make() as client, uncollected():
        before = sockets()
        for number in range(calls):
            if number == calls // 2:
                gateway.expire()
            argument = Argument()
            kept.add(argument)
            try:
                fetch(client, argument)
            except FAILURES:
                failures += 1
            del argument
        assert failures > calls // 30
        assert len(kept) == 0
        assert sockets() < before + 20


async def test_many_calls_of_aiohttp_leave_nothing(gateway: KisGateway) -> None:
    gateway.refuse_calls("EGW00201", share=0.05)
    gateway.refuse_calls("EGW00206", share=0.05)
    url, headers = gateway.url + PRICE, headers_for(gateway)

    @both
    async def fetch(session: aiohttp.ClientSession, argument: Argument) -> Any:
        async with session.get(url, headers=headers, raise_for_status=True) as response:
            await response.json()

    kept = weakref.WeakSet[Argument]()

    async def one(session: aiohttp.ClientSession) -> None:
        argument = Argument()
        kept.add(argument)
        with suppress(aiohttp.ClientError):
            await fetch(session, argument)

    with uncollected():
        before = sockets()
        async with aiohttp.ClientSession() as session:
            for number in range(30):
                if number == 10:
                    gateway.expire()
                await asyncio.gather(*(one(session) for _ in range(10)))
            # A timer that was cancelled keeps its context until asyncio looks through them all, which is soon.
            assert len(kept) < 150
            assert sockets() < before + 40
