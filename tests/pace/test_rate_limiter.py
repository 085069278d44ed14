"""`RateLimiter`: which rate, whose pace, threads and tasks that wait, and who gives up."""

from __future__ import annotations

import asyncio
import itertools
import math
import pickle
import re
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import freezegun
import pytest

from crowds import ended, started
from kis_retry import (
    ConfigurationError,
    Credentials,
    FileTokenStore,
    MemoryTokenStore,
    RateLimiter,
    RedisTokenStore,
    RefreshEvent,
    on_event,
)
from patience import PATIENCE, until

if TYPE_CHECKING:
    from pathlib import Path

    from kis_retry import TokenStore

KEY = Credentials("a-key", "a-secret")
PAPER = Credentials("a-key", "a-secret", paper=True)
TAKES = "a number of calls a second from 0.1 to 1,000, or 0 for no pace"


def interval(rate: float) -> float:
    return 1.024 / rate


# -- which rate


def test_the_rate_is_18_and_1_on_paper_or_the_environments_or_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RateLimiter(KEY, store=MemoryTokenStore()).rate == 18
    assert RateLimiter(PAPER, store=MemoryTokenStore()).rate == 1
    monkeypatch.setenv("KIS_RATE_LIMIT", " 2.5 ")
    assert RateLimiter(PAPER, store=MemoryTokenStore()).rate == 2.5
    assert RateLimiter(PAPER, rate=7, store=MemoryTokenStore()).rate == 7


@pytest.mark.parametrize("text", ["fast", "-1", "0.09", "1001", "nan", "inf", "1_0", "18/s"])
def test_a_bad_rate_in_the_environment_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for name, value in {"APP_KEY": "k", "APP_SECRET": "s", "TOKEN_STORE": "memory", "RATE_LIMIT": text}.items():
        monkeypatch.setenv(f"KIS_{name}", value)
    with pytest.raises(ConfigurationError, match=re.escape(f"KIS_RATE_LIMIT={text!r} is not usable: it takes {TAKES}")):
        RateLimiter.from_env()


@pytest.mark.parametrize("rate", [0, 0.1, 1_000])
def test_a_rate_is_0_or_from_a_tenth_of_a_call_to_a_thousand(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RateLimiter(KEY, rate=rate, store=MemoryTokenStore()).rate == rate
    monkeypatch.setenv("KIS_RATE_LIMIT", str(rate))
    assert RateLimiter(KEY, store=MemoryTokenStore()).rate == rate


@pytest.mark.parametrize("rate", [-1, 0.09, 1_001, float("nan"), True, "18"])
def test_a_bad_rate_is_refused_when_the_limiter_is_made(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(TAKES)):
        RateLimiter(KEY, rate=rate)


@pytest.mark.parametrize("credentials", [18, "a-key", None, Credentials])
def test_something_else_in_the_place_of_credentials_is_refused(credentials: Any) -> None:
    with pytest.raises(TypeError, match=r"takes Credentials, not \w+.*rate=18"):
        RateLimiter(credentials)


def test_everything_can_come_from_the_environment_for_a_second_pair_of_keys_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"APP_KEY": "k", "APP_SECRET": "s", "RATE_LIMIT": "9"}.items():
        monkeypatch.setenv(f"KIS_{name}", value)
        monkeypatch.setenv(f"OTHER_{name}", value + "1")
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    assert RateLimiter.from_env().rate == 9
    other = RateLimiter.from_env("OTHER_")
    assert (other.rate, other.credentials.app_key) == (91, "k1")
    monkeypatch.delenv("OTHER_RATE_LIMIT")
    assert RateLimiter.from_env("OTHER_").rate == 18, "the limit of one key says nothing of another's"


def test_at_rate_0_nothing_waits_and_nothing_is_kept(tmp_path: Path) -> None:
    limiter = RateLimiter(KEY, rate=0, store=FileTokenStore(tmp_path / "store"))
    assert all(limiter.acquire(0) for _ in range(100))
    reservation = limiter.reserve(order=True)
    assert reservation.done()
    limiter.report(reservation, "answered")
    assert (limiter.rate, limiter.is_away) == (0, False)
    assert asyncio.run(limiter.acquire_async())
    assert not (tmp_path / "store").exists()


def test_what_is_shown_names_neither_key_nor_secret() -> None:
    limiter = RateLimiter(KEY, store=MemoryTokenStore())
    before = repr(limiter)
    limiter.acquire()
    assert "18 calls a second" in repr(limiter)
    assert not re.search("a-key|a-secret", before + repr(limiter))


# -- whose pace


def together(first: RateLimiter, second: RateLimiter) -> bool:
    """Return whether a slot that one has taken is taken for the other."""
    assert first.acquire(PATIENCE)
    return not second.acquire(0)


def test_limiters_of_one_key_and_store_share_one_pace(tmp_path: Path, valkey_server: Any) -> None:
    valkey_server.flush()
    memory = MemoryTokenStore()
    for stores in (
        [memory, memory],
        [FileTokenStore(tmp_path / "a"), FileTokenStore(tmp_path / "a")],
        [RedisTokenStore(valkey_server.url), RedisTokenStore(valkey_server.url)],
    ):
        assert together(*(RateLimiter(KEY, rate=0.5, store=store) for store in stores))
        assert not RateLimiter(KEY, rate=0.6, store=stores[0]).acquire(0), "at another rate it is the same pace"


def test_another_key_host_or_store_has_another_pace(tmp_path: Path) -> None:
    memory = MemoryTokenStore()
    for credentials, store in (
        (KEY, memory),
        (Credentials("another", "a-secret"), memory),
        (PAPER, memory),
        (KEY, MemoryTokenStore()),
        (KEY, FileTokenStore(tmp_path / "b")),
    ):
        assert RateLimiter(credentials, rate=0.1, store=store).acquire(1)


def test_a_limiter_made_for_each_call_keeps_the_pace(store: TokenStore) -> None:
    assert RateLimiter(KEY, rate=0.1, store=store).acquire(PATIENCE)
    assert not RateLimiter(KEY, rate=0.1, store=store).acquire(0)


def test_a_pace_keeps_no_store_and_no_client_alive(valkey_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from redis import Redis

    valkey_server.flush()
    monkeypatch.setattr("kis_retry.pace.limiter.IDLE", 0.1)
    client = Redis.from_url(valkey_server.url)
    stores = [MemoryTokenStore(), RedisTokenStore(client)]
    for store in stores:
        assert RateLimiter(KEY, rate=5, store=store).acquire(PATIENCE)
    gone: list[Callable[[], object]] = [weakref.ref(client), *map(weakref.ref, stores)]
    del client, store, stores
    until(lambda: not any(reference() for reference in gone))


def test_a_pickled_limiter_shares_where_its_store_does(tmp_path: Path) -> None:
    limiter = RateLimiter(KEY, rate=0.1, store=FileTokenStore(tmp_path / "store"))
    assert limiter.acquire(PATIENCE)
    copy = pickle.loads(pickle.dumps(limiter))
    assert copy.rate == 0.1
    assert not copy.acquire(0)


# -- waiting


def test_threads_share_the_rate_evenly_and_all_of_it(store: TokenStore) -> None:
    limiter, left = RateLimiter(KEY, rate=80, store=store), list[tuple[float, int]]()

    def call() -> None:
        for _ in range(7):
            assert limiter.acquire()
            left.append((time.monotonic(), threading.get_ident()))

    ended(started(8, call))
    times = sorted(now for now, _ in left)
    assert 54 * interval(80) <= times[-1] - times[0], "55, but for what the first was late"
    had = [ident for _, ident in sorted(left)[:32]]
    assert len(set(had)) == 8
    assert min(had.count(ident) for ident in set(had)) >= 2, "nobody starves"


async def test_tasks_are_served_in_the_order_in_which_they_came(store: TokenStore) -> None:
    limiter, served = RateLimiter(KEY, rate=100, store=store), list[int]()

    async def call(number: int) -> None:
        assert await limiter.acquire_async()
        served.append(number)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert served == list(range(20))


async def test_a_thousand_waiting_tasks_occupy_no_thread_and_leave_the_loop_free(store: TokenStore) -> None:
    limiter, before, began = RateLimiter(KEY, rate=20, store=store), threading.active_count(), time.monotonic()
    tasks = [asyncio.create_task(limiter.acquire_async()) for _ in range(1_000)]
    turns = 0
    while turns < 50 or not any(task.done() for task in tasks):
        await asyncio.sleep(0.001)
        turns += 1
    assert threading.active_count() <= before + 2
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert 1 <= sum(found is True for found in done) <= 2 + (time.monotonic() - began) / interval(20)
    assert await limiter.acquire_async(PATIENCE)


def test_an_order_overtakes_reads_and_a_repeat_keeps_its_place() -> None:
    limiter = RateLimiter(KEY, rate=20, store=MemoryTokenStore())
    repeated = limiter.reserve()
    repeated.result(PATIENCE)
    reads = [limiter.reserve() for _ in range(5)]
    again = limiter.reserve(earlier=repeated)
    order = limiter.reserve(order=True)
    done: list[Any] = []
    for each in (*reads, again, order):
        each.add_done_callback(partial(lambda each, _: done.append(each), each))
    until(lambda: len(done) == 7)
    assert done == [order, again, *reads]


# -- not for ever


def test_who_cannot_be_served_in_time_is_told_so_and_takes_nothing(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=2, store=store)
    assert limiter.acquire(PATIENCE)
    began = time.monotonic()
    served = [limiter.acquire(timeout) for timeout in (*[0] * 9, -1, math.nan, 0.01)].count(True)
    assert served <= 1 + (time.monotonic() - began) / interval(2)
    assert limiter.acquire(PATIENCE)
    assert time.monotonic() - began < 4, "each that was told so took half a second"


async def test_a_task_that_cannot_be_served_in_time_is_told_so(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=0.1, store=store)
    assert await limiter.acquire_async(PATIENCE)
    assert not await limiter.acquire_async(0.1)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 1e10])
def test_any_time_will_do(store: TokenStore, timeout: float | None) -> None:
    limiter = RateLimiter(KEY, rate=100, store=store)
    assert all(limiter.acquire(timeout) for _ in range(3))
    assert asyncio.run(limiter.acquire_async(timeout))


async def test_a_cancelled_task_leaves_its_slot_to_the_next(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=4, store=store)
    assert await limiter.acquire_async()
    began = time.monotonic()
    cancelled = [asyncio.create_task(limiter.acquire_async()) for _ in range(40)]
    last = asyncio.create_task(limiter.acquire_async())
    await asyncio.sleep(0.05)
    for task in cancelled:
        task.cancel()
    assert await last
    assert time.monotonic() - began < 5, "forty slots of a quarter of a second each"


def test_a_loop_that_was_closed_stops_nobody() -> None:
    limiter, left = RateLimiter(KEY, rate=20, store=MemoryTokenStore()), list[Any]()

    async def leave_behind() -> None:
        await limiter.acquire_async()
        left.extend(asyncio.get_running_loop().create_task(limiter.acquire_async()) for _ in range(3))
        await asyncio.sleep(0.01)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_behind())
    loop.close()
    assert limiter.acquire(PATIENCE)
    for task in left:
        task._log_destroy_pending = False


def test_a_frozen_clock_stops_nobody() -> None:
    limiter = RateLimiter(KEY, rate=20, store=MemoryTokenStore())
    with freezegun.freeze_time("2026-11-29"):
        assert all(limiter.acquire() for _ in range(3))
        assert not limiter.acquire(0)
        assert asyncio.run(limiter.acquire_async())


def test_where_no_thread_can_be_started_nobody_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    limiter = RateLimiter(KEY, rate=0.1, store=MemoryTokenStore())
    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert all(limiter.acquire() for _ in range(4))


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_the_threads_end_when_nobody_waits(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kis_retry.pace.limiter.IDLE", 0.1)
    until(lambda: not pace_threads())
    limiter = RateLimiter(KEY, rate=20, store=store)
    assert all(limiter.acquire() for _ in range(2))
    assert pace_threads()
    until(lambda: not pace_threads())
    assert limiter.acquire()


def pace_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kis_retry-pace"]


# -- what became of calls


def tell(limiter: RateLimiter, outcome: str) -> None:
    reservation = limiter.reserve()
    reservation.result(PATIENCE)
    limiter.report(reservation, outcome)


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_an_outage_lets_probes_out_and_all_go_on_when_one_is_answered(store: TokenStore) -> None:
    limiter = RateLimiter(KEY, rate=200, store=store)
    away, left, answered = threading.Event(), list[float](), list[float]()
    away.set()

    def call() -> None:
        while len(answered) < 30:
            reservation = limiter.reserve()
            reservation.result(PATIENCE)
            left.append(time.monotonic())
            limiter.report(reservation, "failed" if away.is_set() else "answered")
            if not away.is_set():
                answered.append(time.monotonic())

    mending = threading.Timer(0.4, away.clear)
    mending.start()
    ended(started(8, call))
    during = [now for now in left if now < answered[0]]
    assert 5 <= len(during) <= 0.5 * 200 * (answered[0] - during[0]), "eight were under way when it was known"
    assert sorted(answered)[29] - answered[0] < 8, "as probes they take 15 seconds"
    assert not limiter.is_away


def test_others_learn_of_an_outage_and_of_its_end(tmp_path: Path) -> None:
    first, second = (RateLimiter(KEY, rate=rate, store=FileTokenStore(tmp_path)) for rate in (50, 60))
    for _ in range(6):
        tell(first, "failed")
    asked = first.reserve()
    until(lambda: first.is_away)
    asked.cancel()
    asked = second.reserve()
    until(lambda: second.is_away)
    asked.result(PATIENCE)
    first.report(asked, "answered")
    began = time.monotonic()
    ended(started(2, lambda: [limiter.acquire() for limiter in (first, second) for _ in range(5)]))
    assert time.monotonic() - began < 5, "as probes they take ten seconds"
    assert (first.is_away, second.is_away) == (False, False)


def lower(limiter: RateLimiter) -> None:
    """Have most calls refused until the pace is another, which takes three seconds."""
    outcomes = itertools.cycle(["limited"] * 8 + ["answered"])
    deadline = time.monotonic() + PATIENCE
    while limiter.rate == 40 and time.monotonic() < deadline:
        tell(limiter, next(outcomes))


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_a_limit_of_kis_lowers_the_pace_and_hooks_that_hang_or_raise_stop_nobody(
    events: list[RefreshEvent], store: TokenStore
) -> None:
    let_go = threading.Event()

    def hang(_: RefreshEvent) -> None:
        let_go.wait(PATIENCE)
        raise SystemExit("a kill switch")

    unsubscribe = on_event(hang)
    limiter = RateLimiter(KEY, rate=40, store=store)
    lower(limiter)
    assert limiter.rate == pytest.approx(0.95 * 5, abs=1)
    assert RateLimiter(KEY, rate=2, store=store).rate == 2
    assert all(limiter.acquire(PATIENCE) for _ in range(2)), "while the hook hangs"
    let_go.set()
    until(lambda: events)
    assert [(event.name, event.rate) for event in events] == [("rate_lowered", limiter.rate)]
    unsubscribe()
