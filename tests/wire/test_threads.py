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
from typing import Any

import pytest

from kis_retry import refresh_on_expired_token, retry_on_transient_error
from kis_retry.testing import KisGateway
from senders import GOOD, PRICE, WIRES, Answer, headers_for, issued

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


def in_timer(ask: Ask) -> Answer:
    answers: list[Answer] = []
    timer = threading.Timer(0, lambda: answers.append(ask()))
    timer.start()
    timer.join()
    return answers[0]


def in_nested_threads(ask: Ask) -> Answer:
    return in_thread(lambda: in_own_thread(lambda: in_thread(ask)))


def in_pool(ask: Ask) -> Answer:
    with ThreadPoolExecutor(2) as pool:
        return pool.submit(ask).result()


def in_pool_by_map(ask: Ask) -> Answer:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda _: ask(), range(4)))[-1]


def in_nested_pools(ask: Ask) -> Answer:
    with ThreadPoolExecutor(2) as pool:
        return pool.submit(in_pool, ask).result()


def in_pool_of_multiprocessing(ask: Ask) -> Answer:
    with ThreadPool(2) as pool:
        return pool.apply(ask)


def in_to_thread(ask: Ask) -> Answer:
    async def main() -> Answer:
        return await asyncio.to_thread(ask)

    return asyncio.run(main())


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
    in_timer,
    in_nested_threads,
    in_pool,
    in_pool_by_map,
    in_nested_pools,
    in_pool_of_multiprocessing,
    in_to_thread,
    in_executor,
    in_task,
]


@pytest.mark.parametrize("place", PLACES)
def test_what_a_decorated_function_starts_is_protected(place: Callable[[Ask], Answer], ask: Ask) -> None:
    assert place(ask) == REFUSED, "without it, it is not"
    assert refresh_on_expired_token(place)(ask) == GOOD


@pytest.mark.parametrize("place", PLACES)
def test_both_rules_are_carried(place: Callable[[Ask], Answer], ask: Ask, gateway: KisGateway) -> None:
    gateway.refuse_calls("EGW00201", 1)
    assert retry_on_transient_error(refresh_on_expired_token(place))(ask) == GOOD


def test_a_task_in_a_pool_of_others_is_its_submitters(ask: Ask) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(ask).result() == REFUSED
        assert refresh_on_expired_token(lambda: pool.submit(ask).result())() == GOOD
        assert pool.submit(ask).result() == REFUSED, "the worker carries nothing afterwards"


def test_the_workers_of_a_pool_that_a_function_made_carry_nothing(ask: Ask) -> None:
    pool = ThreadPoolExecutor(1)
    with pool:
        assert refresh_on_expired_token(lambda: pool.submit(ask).result())() == GOOD
        assert pool.submit(ask).result() == REFUSED


def test_a_thread_that_outlives_its_function_keeps_its_protection(ask: Ask) -> None:
    goes_on = threading.Event()
    answers: list[Answer] = []

    def later() -> None:
        goes_on.wait(20)
        answers.append(ask())

    @refresh_on_expired_token
    def begin() -> threading.Thread:
        thread = threading.Thread(target=later)
        thread.start()
        return thread

    thread = begin()
    goes_on.set()
    thread.join()
    assert answers == [GOOD]


def test_a_thread_that_was_started_before_is_left_alone(ask: Ask) -> None:
    goes_on = threading.Event()
    answers: list[Answer] = []

    def wait_and_ask() -> None:
        goes_on.wait(20)
        answers.append(ask())

    thread = threading.Thread(target=wait_and_ask)
    thread.start()

    @refresh_on_expired_token
    def go() -> None:
        goes_on.set()
        thread.join()

    go()
    assert answers == [REFUSED]


def test_a_thread_that_cannot_be_started_twice_still_cannot(ask: Ask) -> None:
    @refresh_on_expired_token
    def start_twice() -> None:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
        assert thread.run.__func__ is threading.Thread.run, "it is as it was"  # type: ignore[attr-defined]  # a method

    start_twice()


def test_threads_of_two_functions_are_each_their_own(gateway: KisGateway) -> None:
    dead = f"Bearer {gateway.current_token}"
    gateway.expire()
    with KisGateway() as other:
        theirs = issued(other)
        other.expire()
        mine = refresh_on_expired_token(lambda: in_pool(lambda: REQUESTS.get(gateway, authorization=dead)))
        plain = lambda: in_pool(lambda: REQUESTS.get(other, authorization=theirs))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: (mine, plain)[number % 2](), range(16)))
    assert answers == [GOOD, REFUSED] * 8


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
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            GREENLETS,
            f"{gateway.url}{PRICE}?FID_INPUT_ISCD=1",
            json.dumps(headers),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout.split() == ["MCA00000"] * 4 + ["EGW00123"] * 4, run.stderr


def test_an_exception_of_a_thread_is_its_own(ask: Ask) -> None:
    def fail() -> Any:
        ask()
        raise ZeroDivisionError

    @refresh_on_expired_token
    def work() -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(fail).result()

    with pytest.raises(ZeroDivisionError):
        work()
