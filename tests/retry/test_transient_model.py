"""
Whatever goes wrong in whatever order: nothing is lost that could be had, and no order goes out more often than allowed.

Reads and orders of many clients and functions meet expiries, refusals, drops, failures, pages, hangs and outages over
real HTTP, in orders that a seed decides. What the gateway received in each call is held against KIS's table.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable

import pytest
import tenacity

from callers import ORDER, Caller, callers
from kis_retry.testing import KisGateway

HANGING = 1.0  # seconds that a client waits for an answer
CALLS = 20  # of each kind, of each of a crowd

EXPIRED = ("EGW00121", "EGW00123")
PASSING = (
    *("EGW00201", "EGW00215", "EGW00316", "EGW00300", "EGW00001", "EGW00002", "EGW00202", "EGW00203"),
    *("OPSQ1002", "OPSQ0003", "OPSQ0010", "OPSQ0011"),
)
STANDING = ("EGW00301", "EGW00302", "EGW00206", "EGW00207", "EGW00303", "KIOK0560")
ACTED_UPON = ("EGW00301", "EGW00302", "EGW00300", "EGW00316")
UNANSWERED = ("dropped", "hung", "garbled", "HTTP 429", "HTTP 500", "HTTP 502", "HTTP 503", "HTTP 504", "outage")


class Clock:
    """KIS's: each look at it takes a moment, so that an outage of some seconds is one of some requests."""

    def __init__(self) -> None:
        self._looks = itertools.count()
        self._began = time.time()

    def __call__(self) -> float:
        return self._began + next(self._looks) * 0.5


class World:
    """A gateway, what is about to go wrong at it, and those who call it one after the other, as a seed has it."""

    def __init__(self, seed: int, gateway: KisGateway) -> None:
        self.gateway = gateway
        self.callers = list(callers(gateway, HANGING))
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._has_hung = False

    def troubles(self) -> int:
        """How many new ones come before the next call."""
        return self._random.choice((0, 0, 1, 1, 2, 3))

    def go_wrong(self) -> None:
        """One more thing, for some of the calls to come."""
        flip, times = self._random.random() < 0.5, self._random.randint(1, 2)
        status = self._random.choice((429, 500, 502, 503, 504))
        gateway = self.gateway
        troubles: list[Callable[[], None]] = [
            *[lambda: gateway.refuse_calls(self._random.choice(PASSING), times, status=500 if flip else 200)] * 4,
            lambda: gateway.refuse_calls("EGW00201", times),
            lambda: gateway.refuse_calls(self._random.choice(STANDING), 1, status=500 if flip else 200),
            lambda: gateway.refuse_calls(self._random.choice(ACTED_UPON), 1, reached=True),
            lambda: gateway.drop("calls", times, reached=flip),
            lambda: gateway.fail(status, times, reached=flip),
            lambda: gateway.garble("calls", 1, self._random.choice((b"", b'{"rt_cd": "0', b"<html>")), reached=flip),
            lambda: gateway.outage(times, "calls", status=self._random.choice((500, 503, None)), void_tokens=flip),
            gateway.expire,
            lambda: gateway.expire_at(len(gateway.arrivals) + times),
            lambda: gateway.drop("tokens", 1),
            self._hang_once,
        ]
        self._random.choice(troubles)()

    def call(self) -> None:
        """Have somebody ask or order, and hold what the gateway received against the table."""
        caller = self._random.choice(self.callers)
        self._random.choice((self._ask, self._order, self._trade))(caller)

    def _hang_once(self) -> None:
        if not self._has_hung:  # it takes its time
            self._has_hung = True
            self.gateway.hang("calls", 1, seconds=30, reached=self._random.random() < 0.5)

    def _ask(self, caller: Caller) -> None:
        before = len(self.gateway.received)
        answer = caller.ask()
        story = self._since(before)
        told = f"{caller.name} asked: {story} and got {answer}"
        assert set(story[:-1]) <= {*PASSING, *UNANSWERED, *EXPIRED}, f"repeated though that is final: {told}"
        if story[-1] == "answered":
            assert answer["rt_cd"] == "0", f"lost: {told}"
        else:
            assert story[-1] in STANDING or _expired_twice(story), f"given up: {told}"
            assert answer["msg_cd"] == story[-1], f"made up: {told}"

    def _order(self, caller: Caller) -> None:
        number = str(next(self._numbers))
        before = len(self.gateway.received)
        answer = caller.send({"PDNO": "005930", "ID": number})
        story = self._since(before)
        placed = [order["ID"] for order in self.gateway.orders].count(number)
        told = f"{caller.name} ordered: {story}, {placed} placed, and got {answer}"
        assert set(story[:-1]) <= {"EGW00201", *EXPIRED}, f"sent again: {told}"
        assert placed <= 1, f"placed twice: {told}"
        if story[-1] == "answered":
            assert answer["rt_cd"] == "0", f"lost: {told}"
            assert placed == 1, f"not placed: {told}"
        else:
            assert story[-1] != "EGW00201", f"given up: {told}"
            assert story[-1] not in EXPIRED or _expired_twice(story), f"given up: {told}"

    def _trade(self, caller: Caller) -> None:
        """Ask, order and ask again in one call: of the order alone it is known what has to become of it."""
        number = str(next(self._numbers))
        before = len(self.gateway.received)
        answer = caller.trade({"PDNO": "005930", "ID": number})
        story = self._since(before, ORDER)
        placed = [order["ID"] for order in self.gateway.orders].count(number)
        told = f"{caller.name} traded: the order {story}, {placed} placed, and got {answer}"
        assert set(story[:-1]) <= {"EGW00201", *EXPIRED}, f"sent again: {told}"
        assert placed <= 1, f"placed twice: {told}"

    def _since(self, before: int, path: str = "/uapi/") -> list[str]:
        return [one.outcome for one in self.gateway.received[before:] if one.path.startswith(path)]


def _expired_twice(story: list[str]) -> bool:
    """Then its one repeat is spent."""
    return sum(one in EXPIRED for one in story) == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, no_backoff: None) -> None:
    """An outage is probed, and a token asked for again, without a wait worth the name."""
    monkeypatch.setattr("kis_retry.retrying._issue_backoff", tenacity.wait_none())
    monkeypatch.setattr("kis_retry.retry.outage.PROBES", ((float("inf"), 0.01),))
    monkeypatch.setattr("kis_retry.retry.pace.LOOK_AGAIN", 0.01)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_that_could_be_had_and_no_order_is_sent_more_often_than_allowed(quick: None, seed: int) -> None:
    with KisGateway(clock=Clock(), issue_interval=0, same_token_for=0) as gateway:
        world = World(seed, gateway)
        for _ in range(80):
            for _ in range(world.troubles()):
                world.go_wrong()
            world.call()


@pytest.mark.parametrize("seed", range(2))
def test_so_it_is_with_all_of_them_at_once(quick: None, seed: int) -> None:
    with KisGateway(seed=seed, issue_interval=0, same_token_for=0) as gateway:
        crowd = list(callers(gateway, timeout=9, max_retries=2))  # one that the outage keeps may meet both expiries
        gateway.refuse_calls("EGW00201", share=0.22)
        for code in ("EGW00215", "EGW00316", "EGW00300", "OPSQ1002"):
            gateway.refuse_calls(code, share=0.02)
        for reached in (False, True):
            gateway.drop("calls", share=0.03, reached=reached)
            gateway.fail(503, share=0.03, reached=reached)
        gateway.expire_at(75, 200)
        gateway.outage(0.3, "calls", at_call=125)
        lost: list[str] = []
        had: list[str] = []

        def work(number: int) -> None:
            caller = crowd[number]
            for count in range(CALLS):
                symbol = f"{number}{count:05d}"
                answer = caller.ask()
                if answer is None or answer["rt_cd"] != "0":
                    lost.append(f"{caller.name}: {answer}")
                answer = caller.send({"PDNO": symbol})
                if answer is not None and answer["rt_cd"] == "0":
                    had.append(symbol)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(crowd))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lost == []
        placed = [order["PDNO"] for order in gateway.orders]
        assert len(placed) == len(set(placed)), "an order twice"
        assert set(had) <= set(placed)
        stories = orders_received(gateway)
        assert len(stories) == CALLS * len(crowd)
        again = {symbol: story for symbol, story in stories.items() if not set(story[:-1]) <= {"EGW00201", *EXPIRED}}
        assert again == {}, "sent again"
        assert set(had) == {symbol for symbol, story in stories.items() if story[-1] == "answered"}


def orders_received(gateway: KisGateway) -> dict[str, list[str]]:
    """What became of each order that was sent, time after time, by its symbol."""
    stories: dict[str, list[str]] = {}
    for one in gateway.received:
        if one.path == ORDER:
            stories.setdefault(one.symbol, []).append(one.outcome)
    return stories
