"""`RateLimiter`: whose pace it is, which rate, and what survives a pickle and a fork."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import re
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from children import Child
from kis_retry import (
    ConfigurationError,
    Credentials,
    FileTokenStore,
    MemoryTokenStore,
    RateLimiter,
    RedisTokenStore,
)
from kis_retry.retry.outage import LEAST_FAILURES
from kis_retry.retry.queues import process_queue
from kis_retry.retry.rate import RATE_TAKES, checked_rate, parse_rate
from kis_retry.retry.shared_queues import shared_queue
from patience import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

KEY = Credentials("a-key", "a-secret")
PAPER = Credentials("a-key", "a-secret", paper=True)


@pytest.fixture(autouse=True)
def no_rate_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the pace."""
    monkeypatch.delenv("KIS_RATE_LIMIT")


# -- which rate


def test_the_rate_is_18_and_1_on_paper() -> None:
    assert RateLimiter(KEY, store=MemoryTokenStore()).rate == 18
    assert RateLimiter(PAPER, store=MemoryTokenStore()).rate == 1


def test_the_environment_sets_another_rate_and_the_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RATE_LIMIT", " 2.5 ")
    assert RateLimiter(PAPER, store=MemoryTokenStore()).rate == 2.5
    assert RateLimiter(PAPER, rate=7, store=MemoryTokenStore()).rate == 7


@pytest.mark.parametrize("text", ["fast", "-1", "0.05", "1001", "nan", "inf", "1_0", "18/s"])
def test_a_bad_rate_in_the_environment_is_named_with_what_it_takes(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KIS_RATE_LIMIT", text)
    with pytest.raises(ConfigurationError) as raised:
        RateLimiter(KEY, store=MemoryTokenStore()).acquire()
    assert str(raised.value) == f"KIS_RATE_LIMIT={text!r} is not usable: it takes {RATE_TAKES}"


@pytest.mark.parametrize("rate", [0, 0.1, 1_000])
def test_a_rate_is_0_or_from_a_tenth_of_a_call_to_a_thousand(rate: float) -> None:
    assert checked_rate(rate) == parse_rate(str(rate)) == rate


@pytest.mark.parametrize("rate", [-1, 0.05, 1_001, float("nan"), True, "18"])
def test_a_bad_rate_is_refused_when_the_limiter_is_made(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(RATE_TAKES)):
        RateLimiter(KEY, rate=rate)


@given(st.text(max_size=8))
def test_a_text_is_a_rate_in_range_or_refused(text: str) -> None:
    try:
        rate = parse_rate(text)
    except ValueError:
        return
    assert rate == checked_rate(rate)


def test_everything_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"APP_KEY": "k", "APP_SECRET": "s", "TOKEN_STORE": "memory", "RATE_LIMIT": "9"}.items():
        monkeypatch.setenv(f"KIS_{name}", value)
    assert RateLimiter.from_env().rate == 9
    monkeypatch.setenv("KIS_RATE_LIMIT", "many")
    with pytest.raises(ConfigurationError, match="KIS_RATE_LIMIT"):
        RateLimiter.from_env()


def test_no_pace_waits_for_nothing_and_touches_no_store(tmp_path: Path) -> None:
    limiter = RateLimiter(KEY, rate=0, store=FileTokenStore(tmp_path / "store"))
    assert limiter.rate == 0
    assert all(limiter.acquire(0) for _ in range(1_000))
    assert not (tmp_path / "store").exists()


# -- whose pace


def together(first: RateLimiter, second: RateLimiter) -> bool:
    """Whether a slot that one has taken is taken for the other."""
    assert first.acquire(0)
    return not second.acquire(0)


def test_limiters_of_one_key_and_store_share_one_pace(tmp_path: Path, valkey_server: Any) -> None:
    valkey_server.flush()
    memory = MemoryTokenStore()
    assert together(RateLimiter(KEY, store=memory), RateLimiter(KEY, store=memory))
    assert together(
        RateLimiter(KEY, store=FileTokenStore(tmp_path / "a")), RateLimiter(KEY, store=FileTokenStore(tmp_path / "a"))
    )
    url = valkey_server.url
    assert together(RateLimiter(KEY, store=RedisTokenStore(url)), RateLimiter(KEY, store=RedisTokenStore(url)))


def test_limiters_of_one_key_and_store_share_it_at_different_rates_too() -> None:
    memory = MemoryTokenStore()
    assert together(RateLimiter(KEY, rate=5, store=memory), RateLimiter(KEY, rate=6, store=memory))


def test_another_key_host_or_store_has_another_pace(tmp_path: Path) -> None:
    memory = MemoryTokenStore()
    assert RateLimiter(KEY, rate=1, store=memory).acquire(0)
    assert RateLimiter(Credentials("another", "s"), rate=1, store=memory).acquire(0)
    assert RateLimiter(PAPER, rate=1, store=memory).acquire(0)
    assert RateLimiter(KEY, rate=1, store=MemoryTokenStore()).acquire(0)
    assert RateLimiter(KEY, rate=1, store=FileTokenStore(tmp_path / "b")).acquire(0)


class TokensAlone:
    """A store of somebody else's."""

    load = save = delete = lock = dict.get


def test_stores_that_are_one_place_have_one_queue(tmp_path: Path) -> None:
    """No server is asked: it is about what stands for one."""
    url = "redis://127.0.0.1:1/0"
    first, second, alone, memory = Redis.from_url(url), Redis.from_url(url), TokensAlone(), MemoryTokenStore()
    places: list[list[Any]] = [
        [RedisTokenStore(url), RedisTokenStore(url)],
        [RedisTokenStore("redis://127.0.0.1:1/1")],
        [RedisTokenStore(first), RedisTokenStore(first)],
        [RedisTokenStore(second)],
        [FileTokenStore(tmp_path / "a"), FileTokenStore(tmp_path / "a")],
        [FileTokenStore(tmp_path / "b")],
        [alone, alone],
        [TokensAlone()],
        [memory, memory],
    ]
    queues = [{shared_queue(store, "a key", 18) for store in stores} for stores in places]
    assert [len(found) for found in queues] == [1] * len(places)
    assert len(set().union(*queues)) == len(places)


def test_a_limiter_made_for_each_call_keeps_the_pace() -> None:
    memory = MemoryTokenStore()
    assert RateLimiter(KEY, rate=0.1, store=memory).acquire(0)
    gc.collect()
    assert not RateLimiter(KEY, rate=0.1, store=memory).acquire(0)


def test_a_pace_in_memory_ends_with_its_store() -> None:
    memory = MemoryTokenStore()
    RateLimiter(KEY, rate=0.5, store=memory).acquire(0)
    gone = weakref.ref(memory.documents)
    del memory
    gc.collect()
    assert gone() is None


def test_a_store_that_cannot_be_a_key_is_taken_all_the_same() -> None:
    class Unhashable(dict[str, Any]):
        load = save = delete = lock = dict.get

    limiter = RateLimiter(KEY, rate=0.1, store=Unhashable())  # type: ignore[arg-type]  # a store only by its methods
    assert limiter.acquire(0)
    assert not limiter.acquire(0)


def test_a_limiter_tells_how_long_its_callers_waited_and_whether_kis_is_away() -> None:
    limiter = RateLimiter(KEY, store=MemoryTokenStore())
    assert (limiter.seconds_waited, limiter.is_away) == (0.0, False)
    reports = limiter._queue().reports
    reports.seconds_waited, reports.away = 2.5, True
    assert (limiter.seconds_waited, limiter.is_away) == (2.5, True)


def test_nothing_shows_the_key_or_the_secret() -> None:
    limiter = RateLimiter(KEY, rate=18, store=MemoryTokenStore())
    before = repr(limiter)
    limiter.acquire(0)
    assert "a-key" not in before + repr(limiter)
    assert "a-secret" not in before + repr(limiter)
    assert "18 calls a second" in repr(limiter)


# -- pickled and forked


def test_a_pickled_limiter_shares_where_its_store_does(tmp_path: Path) -> None:
    limiter = RateLimiter(KEY, rate=0.1, store=FileTokenStore(tmp_path / "store"))
    assert limiter.acquire(0)
    copy = pickle.loads(pickle.dumps(limiter))
    assert copy.rate == 0.1
    assert not copy.acquire(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("store", ["memory", "file"])
def test_a_child_that_was_forked_while_others_waited_has_a_pace_of_its_own(store: str, tmp_path: Path) -> None:
    shared = MemoryTokenStore() if store == "memory" else FileTokenStore(tmp_path / "store")
    limiter = RateLimiter(KEY, rate=60, store=shared)
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            limiter.acquire()

    def served() -> bool:
        return all(limiter.acquire(PATIENCE) for _ in range(2)) and asyncio.run(limiter.acquire_async(PATIENCE))

    threads = [threading.Thread(target=keep_busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        children = []
        for _ in range(5):
            time.sleep(0.02)
            children.append(Child(served))
        assert [child.ended_well() for child in children] == [True] * 5
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("store", ["memory", "file"])
def test_what_failed_in_the_parent_is_no_trouble_of_a_childs(store: str, tmp_path: Path) -> None:
    limiter = RateLimiter(KEY, rate=60, store=MemoryTokenStore() if store == "memory" else FileTokenStore(tmp_path))
    limiter.report("failed")
    process_queue.report("failed")
    queues = [limiter._queue(), process_queue]
    assert all(queue.reports.trouble for queue in queues)
    assert Child(lambda: not any(queue.reports.trouble for queue in queues)).ended_well()


# -- without a limiter


def test_the_process_pace_is_none_until_nothing_gets_through() -> None:
    pace = process_queue
    assert pace.rate == 0
    for _ in range(LEAST_FAILURES):
        assert pace.acquire(0)
        pace.report("failed")
    assert pace.acquire(0)  # the first probe
    assert not pace.acquire(0)
    pace.report("answered")
    assert all(pace.acquire(0) for _ in range(100))


def test_the_process_pace_forgets_single_failures() -> None:
    pace = process_queue
    for _ in range(10 * LEAST_FAILURES):
        pace.report("failed")
        assert pace.acquire(0)
        pace.report("answered")
        assert pace.acquire(0)


async def test_tasks_learn_of_the_outage_of_the_process_too() -> None:
    pace = process_queue
    for _ in range(LEAST_FAILURES):
        pace.report("failed")
    assert await pace.acquire_async(0)
    assert not await pace.acquire_async(0)
    pace.report("refused")
    assert await pace.acquire_async(0)


def test_a_report_of_anything_else_harms_nothing() -> None:
    limiter = RateLimiter(KEY, rate=18, store=MemoryTokenStore())
    limiter.report("lost")
    process_queue.report("lost")
    assert limiter.acquire()
