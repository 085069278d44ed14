"""Threads and pools: what a decorated function starts and hands over is protected, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest

from kis_retry import refresh_on_expired_token
from kis_retry.testing import KisGateway
from senders import GOOD, PRICE, WIRES, Answer, both, headers_for

REFUSED = Answer(500, "EGW00123")
REQUESTS = WIRES[0]

Ask = Callable[[], Answer]


@pytest.fixture
def ask(gateway: KisGateway) -> Ask:
    """Ask with a token that is dead by now; what is not protected is refused."""
    token = f"Bearer {gateway.current_token}"
    gateway.expire()
    return lambda: REQUESTS.get(gateway, authorization=token)


def in_thread(ask: Ask) -> Answer:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join()
    return answers[0]


class Own(threading.Thread):
    """As people write threads: with a `run` of their own."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask

    def run(self) -> None:
        self.answer = self._ask()


def in_own_thread(ask: Ask) -> Answer:
    thread = Own(ask)
    thread.start()
    thread.join()
    return thread.answer


def in_nested_threads(ask: Ask) -> Answer:
    return in_thread(lambda: in_own_thread(lambda: in_pool(ask)))


def in_pool(ask: Ask) -> Answer:
    with ThreadPoolExecutor(2) as pool:
        return pool.submit(ask).result()


def in_pool_of_multiprocessing(ask: Ask) -> Answer:
    with ThreadPool(2) as pool:
        return pool.apply(ask)


def in_executor(ask: Ask) -> Answer:
    async def main() -> Answer:
        return await asyncio.get_running_loop().run_in_executor(None, ask)

    return asyncio.run(main())


def in_task(ask: Ask) -> Answer:
    async def main() -> Answer:
        async def asked() -> Answer:
            return await asyncio.to_thread(ask)

        return (await asyncio.gather(asyncio.create_task(asked())))[0]

    return asyncio.run(main())


PLACES = [
    in_thread,
    in_own_thread,
    in_nested_threads,
    in_pool,
    in_pool_of_multiprocessing,
    in_executor,
    in_task,
]


@pytest.mark.parametrize("place", PLACES)
def test_what_a_decorated_function_starts_is_protected(
    place: Callable[[Ask], Answer], ask: Ask, gateway: KisGateway
) -> None:
    assert place(ask) == REFUSED, "without it, it is not"
    gateway.refuse_calls("EGW00201", 1)
    assert both(place)(ask) == GOOD


@pytest.mark.parametrize("is_used_before", [True, False])
def test_the_workers_of_a_pool_carry_nothing(is_used_before: bool, ask: Ask) -> None:
    """A task is its submitter's, whoever made the pool and started its worker."""
    with ThreadPoolExecutor(1) as pool:
        if is_used_before:
            assert pool.submit(ask).result() == REFUSED
        assert refresh_on_expired_token(lambda: pool.submit(ask).result())() == GOOD
        assert pool.submit(ask).result() == REFUSED


@pytest.mark.parametrize("is_started_inside", [True, False])
def test_a_thread_has_the_protection_under_which_it_was_started(is_started_inside: bool, ask: Ask) -> None:
    """To its end, and no other."""
    goes_on = threading.Event()
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: (goes_on.wait(20), answers.append(ask())))  # type: ignore[func-returns-value]
    if is_started_inside:
        refresh_on_expired_token(lambda: thread.start())()
        goes_on.set()
    else:
        thread.start()
        refresh_on_expired_token(goes_on.set)()
    thread.join()
    assert answers == [GOOD if is_started_inside else REFUSED]


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, json, sys, requests, threading
from concurrent.futures import ThreadPoolExecutor
from gevent.pool import Pool
from kis_retry import refresh_on_expired_token
url, headers = sys.argv[1], json.loads(sys.argv[2])

def ask():
    return requests.get(url, headers=headers, timeout=9).json()["msg_cd"]

def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start(); thread.join()
    return found[0]

def in_pool():
    with ThreadPoolExecutor(2) as pool:
        return pool.submit(ask).result()

ways = [lambda: gevent.spawn(ask).get(), lambda: Pool(2).map(lambda _: ask(), range(3))[-1], in_thread, in_pool]
print(*[refresh_on_expired_token(way)() for way in ways], *[way() for way in ways])
"""


def test_greenlets_are_protected_alike(gateway: KisGateway) -> None:
    pytest.importorskip("gevent")
    headers = headers_for(gateway)
    gateway.expire()
    options = ["-W", "ignore", "-c", GREENLETS, f"{gateway.url}{PRICE}?FID_INPUT_ISCD=1", json.dumps(headers)]
    run = subprocess.run([sys.executable, *options], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.split() == ["MCA00000"] * 4 + ["EGW00123"] * 4, run.stderr
