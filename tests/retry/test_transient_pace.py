"""`retry_on_transient_error` and the pace: how long a call waits before it is made again, and whose slots it takes."""

from __future__ import annotations

import threading
import time
import urllib.error
from typing import Any

import pytest
import requests

from answers import GOOD, PRICE
from calls import Slots
from clocks import FakeClock
from kis_retry import MemoryTokenStore, RateLimiter, RefreshEvent, RetryPolicy, TokenManager, retry_on_transient_error
from kis_retry.testing import KisGateway
from outcomes import by_urllib, scripted

BUSY = {"rt_cd": "1", "msg_cd": "EGW00316", "msg1": "재 조회 수행 부탁드립니다"}
LIMITED = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}


def test_a_refusal_for_the_rate_waits_for_the_next_slot_and_for_nothing_else(clock: FakeClock) -> None:
    slots = Slots()
    assert retry_on_transient_error(scripted(LIMITED, LIMITED, GOOD), limiter=slots)() == GOOD
    assert len(slots.asked) == 3
    assert not any(clock.slept)


def test_without_a_limiter_it_waits_a_short_time_with_jitter(clock: FakeClock) -> None:
    assert retry_on_transient_error(scripted(*[LIMITED] * 4, GOOD))() == GOOD
    assert len(set(clock.slept)) == 4
    assert min(clock.slept) >= 0.05
    assert max(clock.slept) <= 2.2


def test_every_other_failure_backs_off_and_then_takes_a_slot(clock: FakeClock) -> None:
    slots = Slots()
    assert retry_on_transient_error(scripted(*[BUSY] * 3, GOOD), limiter=slots, idempotent=True)() == GOOD
    assert (len(slots.asked), len(clock.slept)) == (4, 3)
    assert all(0 < slept <= 5 for slept in clock.slept)


def test_a_repeat_for_which_there_is_no_slot_before_the_deadline_is_not_made(
    clock: FakeClock, events: list[RefreshEvent]
) -> None:
    fetch = scripted(LIMITED)
    slots = Slots(True, True, False)
    assert retry_on_transient_error(fetch, limiter=slots, policy=RetryPolicy(transient_deadline=30))() is LIMITED
    assert fetch.calls == 2
    assert slots.asked[1:] == [pytest.approx(30)] * 2
    assert events[-1].name == "call_given_up"
    assert events[-1].msg_cd == "EGW00201"


@pytest.mark.parametrize("seen", [True, False], ids=["requests", "urllib"])
def test_every_request_takes_one_slot_and_a_repeat_as_well(
    gateway: KisGateway, manager: TokenManager, no_backoff: None, seen: bool
) -> None:
    slots, headers = Slots(), manager.headers("FHKST01010100")

    @retry_on_transient_error(limiter=slots, idempotent=True)
    def fetch() -> Any:
        if seen:
            return requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()
        return by_urllib(gateway.url + "/oauth2/elsewhere")

    @retry_on_transient_error(limiter=slots)
    def outer() -> Any:
        return fetch()

    if seen:
        gateway.refuse_calls("EGW00316", 2)
        assert outer()["rt_cd"] == "0"
        assert len(slots.asked) == gateway.counts.calls == 3
        assert slots.reports == ["answered"] * 3
        for _ in range(3):
            outer()
        assert len(slots.asked) == gateway.counts.calls == 6
    else:
        with pytest.raises(urllib.error.HTTPError):
            outer()
        assert len(slots.asked) == 1


def test_a_function_without_a_limiter_takes_that_of_the_call_around_it(
    gateway: KisGateway, manager: TokenManager
) -> None:
    slots, headers = Slots(), manager.headers("FHKST01010100")

    @retry_on_transient_error
    def fetch() -> Any:
        return requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()

    @retry_on_transient_error(limiter=slots)
    def batch() -> Any:
        return [fetch() for _ in range(3)]

    assert len(batch()) == len(slots.asked) == len(slots.reports) == 3


def test_the_limiter_of_the_first_argument_is_taken(gateway: KisGateway, manager: TokenManager) -> None:
    class Broker:
        limiter = Slots()

        @retry_on_transient_error
        def fetch(self) -> Any:
            headers = manager.headers("FHKST01010100")
            return requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()

    Broker().fetch()
    assert Broker.limiter.reports == ["answered"]


def test_who_waits_long_for_a_slot_waits_on_instead_of_going_without() -> None:
    slots = Slots(False, False, True)
    slots.is_away = False  # type: ignore[attr-defined]  # as `RateLimiter` has it
    fetch = scripted(GOOD)
    assert retry_on_transient_error(fetch, limiter=slots)() == GOOD
    assert len(slots.asked) == 3


def test_in_an_outage_a_first_attempt_waits_no_longer_than_its_deadline() -> None:
    slots = Slots(False, False)
    slots.is_away = True  # type: ignore[attr-defined]  # as above
    assert retry_on_transient_error(scripted(GOOD), limiter=slots)() == GOOD
    assert len(slots.asked) == 1


def test_threads_that_are_all_refused_go_on_at_the_pace(gateway: KisGateway, manager: TokenManager) -> None:
    limiter = RateLimiter(gateway.credentials, rate=50, store=MemoryTokenStore())
    headers = manager.headers("FHKST01010100")
    gateway.refuse_calls("EGW00201", 20)
    good: list[Any] = []

    @retry_on_transient_error(limiter=limiter)
    def fetch() -> Any:
        return requests.get(gateway.url + PRICE, headers=headers, timeout=5).json()

    threads = [threading.Thread(target=lambda: good.append(fetch())) for _ in range(10)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answer["rt_cd"] for answer in good] == ["0"] * 10
    assert gateway.counts.calls == 30
    assert time.monotonic() - began >= 28 / 50
