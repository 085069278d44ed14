"""The batch of `kis-retry demo`: its symbols, its tracker, and its threads."""

from __future__ import annotations

import random
import threading
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from answers import EXPIRED, GOOD
from clocks import FakeClock
from kis_retry import KisClient, MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager
from kis_retry.cli import batch
from kis_retry.testing import KisGateway
from patience import PATIENCE

unhurried = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def test_the_default_batch_is_the_one_of_the_requirement() -> None:
    symbols = batch.symbols()
    assert len(symbols) == len(set(symbols)) == 16_780
    assert [symbol.country for symbol in symbols] == ["US"] * 11_780 + ["KR"] * 5_000


def test_us_symbols_come_first_and_each_kind_is_numbered_from_1() -> None:
    symbols = batch.symbols()
    assert [symbols[number].code for number in (0, 11_779, 11_780, 16_779)] == [
        "US00001",
        "US11780",
        "000001",
        "005000",
    ]
    assert batch.symbols(4) == [("US00001", "US"), ("US00002", "US"), ("US00003", "US"), ("000001", "KR")]


@unhurried
@given(st.integers(2, 3_000))
def test_a_smaller_batch_has_both_kinds(total: int) -> None:
    symbols = batch.symbols(total)
    assert len(symbols) == total
    assert {symbol.country for symbol in symbols} == {"US", "KR"}


@pytest.mark.parametrize(("total", "overseas"), [(2, 1), (3, 2), (5, 4), (6, 4), (400, 281), (1_678, 1_178)])
def test_a_smaller_batch_has_them_in_the_same_proportion(total: int, overseas: int) -> None:
    assert sum(symbol.country == "US" for symbol in batch.symbols(total)) == overseas


def failure(text: str) -> batch.Failure:
    return batch.Failure(text, text)


def record(tracker: batch.Tracker, *outcomes: str | None) -> None:
    """In order; None is an answer."""
    for number, text in enumerate(outcomes, start=tracker.processed + 1):
        tracker.record(number, None if text is None else failure(text))


def test_five_identical_failures_in_a_row_abort_and_four_do_not() -> None:
    tracker = batch.Tracker()
    aborted = []
    for _ in range(5):
        record(tracker, "expired")
        aborted.append(tracker.aborted)
    assert aborted == [False, False, False, False, True]
    assert (tracker.processed, tracker.failed, tracker.failure) == (5, 5, failure("expired"))
    assert tracker.aborted_at == 5


def test_another_failure_begins_a_new_row() -> None:
    tracker = batch.Tracker()
    record(tracker, *["expired"] * 4, "no such data", *["expired"] * 4)
    assert not tracker.aborted
    assert tracker.lost == {"expired": 8, "no such data": 1}


def test_a_success_in_between_ends_the_row() -> None:
    tracker = batch.Tracker()
    record(tracker, *["expired"] * 4, None, *["expired"] * 4)
    assert not tracker.aborted
    assert (tracker.answered, tracker.failed) == (1, 8)


def test_the_row_is_that_of_the_symbols_whatever_comes_back_first() -> None:
    tracker = batch.Tracker()
    for number in (2, 3, 4, 5, 7, 8):
        tracker.record(number, failure("expired"))
    tracker.record(6, None)
    tracker.record(1, None)
    assert not tracker.aborted, "four in a row, an answer, two"
    for number in (11, 10):
        tracker.record(number, failure("expired"))
    assert not tracker.aborted, "nobody knows yet of 9"
    tracker.record(9, failure("expired"))
    assert tracker.aborted_at == 11


@unhurried
@given(st.lists(st.sampled_from([None, "a", "b"]), max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_answers_changes_nothing(outcomes: list[str | None], dice: random.Random) -> None:
    in_order, shuffled = batch.Tracker(), batch.Tracker()
    record(in_order, *outcomes)
    numbered = list(enumerate(outcomes, start=1))
    dice.shuffle(numbered)
    for number, text in numbered:
        shuffled.record(number, None if text is None else failure(text))
    assert (shuffled.aborted_at, shuffled.failure, shuffled.lost) == (
        in_order.aborted_at,
        in_order.failure,
        in_order.lost,
    )


@pytest.mark.parametrize("threads", [1, 8])
def test_what_happens_before_a_symbol_happens_after_those_before_it(gateway: KisGateway, threads: int) -> None:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    seen = []
    with KisClient(tokens=tokens, limiter=RateLimiter(gateway.credentials, rate=0)) as client:
        running = batch.Batch(
            client,
            batch.symbols(40),
            threads=threads,
            before={20: lambda: seen.append((running.tracker.processed, gateway.counts.answered))},
        )
        running.start()
        while not running.wait(0.5):
            pass
    assert seen == [(19, 19)]
    assert running.tracker.answered == 40


@pytest.mark.parametrize("known", range(5))
def test_who_waits_for_a_symbol_waits_until_those_before_it_have_their_outcomes(
    known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*_: object) -> bool:
        raise InterruptedError

    tracker = batch.Tracker()
    record(tracker, *[None] * known)
    tracker.record(9, None)  # one that comes early is no help
    monkeypatch.setattr(threading.Condition, "wait", wait)
    with nullcontext() if known >= 2 else pytest.raises(InterruptedError):
        tracker.wait_for(3)


def test_the_first_symbol_is_waited_for_by_nobody_and_what_happens_before_it_happens_once() -> None:
    happened: list[int] = []
    client: Any = SimpleNamespace(fetch_domestic_price=lambda _: GOOD, fetch_price_detail_oversea=lambda _: GOOD)
    running = batch.Batch(client, batch.symbols(2), threads=1, before={1: lambda: happened.append(1)})
    running.start()
    while not running.wait(PATIENCE):
        pass
    assert happened == [1]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (GOOD, None),
        (EXPIRED, ("EGW00123", "기간이 만료된 token 입니다.")),
        ({"rt_cd": "1"}, ("None", "None")),
        ({}, ("None", "None")),
        ({"rt_cd": "", "msg_cd": "A", "msg1": "B"}, ("A", "B")),
        (requests.ReadTimeout("with what was asked"), ("ReadTimeout", "ReadTimeout")),
    ],
)
@pytest.mark.parametrize("country", ["KR", "US"])
def test_a_symbol_is_asked_for_by_its_country_and_answered_by_a_success_alone(
    country: str, answer: Any, failure: tuple[str, str] | None
) -> None:
    asked: list[tuple[str, str]] = []

    def fetch(country: str, code: str) -> Any:
        asked.append((country, code))
        if isinstance(answer, Exception):
            raise answer
        return answer

    client: Any = SimpleNamespace(
        fetch_domestic_price=partial(fetch, "KR"), fetch_price_detail_oversea=partial(fetch, "US")
    )
    assert batch._ask(client, batch.Symbol("CODE", country)) == failure
    assert asked == [(country, "CODE")]


class SlowThreads:
    """Stands for `threading.Thread`: those that were started never end, and each wait for one takes 1.5 seconds."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.waited: list[tuple[int, float]] = []
        self.made = 0
        self.ended: set[int] = set()

    def __call__(self, *, target: Any, daemon: bool) -> Any:
        assert daemon, "an interrupted program ends at once"
        number, self.made = self.made, self.made + 1
        thread = SimpleNamespace(ident=None)

        def join(seconds: float) -> None:
            self.waited.append((number, seconds))
            self.clock.pass_by(1.5)

        thread.start = lambda: setattr(thread, "ident", number)
        thread.join = join
        thread.is_alive = lambda: thread.ident is not None and number not in self.ended
        return thread


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowThreads:
    made = SlowThreads(FakeClock())
    monkeypatch.setattr("kis_retry.cli.batch.threading.Thread", made)
    monkeypatch.setattr(batch, "time", made.clock)
    return made


def test_a_stopped_batch_waits_for_all_of_its_calls_together_as_long_as_it_is_told(slow: SlowThreads) -> None:
    nobody: Any = None
    running = batch.Batch(nobody, [], threads=4)
    running.start()
    running.stop(2.0)
    assert slow.waited == [(0, 2.0), (1, 0.5), (2, 0), (3, 0)]


def test_a_batch_that_has_not_begun_can_be_stopped(slow: SlowThreads) -> None:
    nobody: Any = None
    batch.Batch(nobody, [], threads=4).stop(2.0)
    assert slow.waited == []


def test_waiting_takes_as_long_as_it_is_told_however_many_ask(slow: SlowThreads) -> None:
    nobody: Any = None
    running = batch.Batch(nobody, [], threads=3)
    running.start()
    slow.ended = {0}
    assert not running.wait(0.25)
    assert slow.waited == [(1, 0.25)]
    slow.ended = {0, 1, 2}
    assert running.wait(0.25)
    assert slow.waited == [(1, 0.25)], "nothing is left to wait for"


def finished(gateway: KisGateway, symbols: list[batch.Symbol]) -> batch.Tracker:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    with KisClient(tokens=tokens) as client:
        running = batch.Batch(client, symbols, threads=1)
        running.start()
        while not running.wait(0.5):
            pass
    return running.tracker


def test_other_failures_than_a_refusal_are_counted_by_their_kind(gateway: KisGateway) -> None:
    gateway.garble(times=2, status=404)
    tracker = finished(gateway, batch.symbols(10))
    assert (tracker.answered, tracker.failed, tracker.failure) == (8, 2, failure("ResponseError"))
    assert not tracker.aborted


def test_the_batch_asks_for_nothing_after_it_has_aborted(gateway: KisGateway) -> None:
    gateway.refuse_calls(msg_cd="EGW00206")
    tracker = finished(gateway, batch.symbols(50))
    assert tracker.aborted
    assert gateway.counts.calls == 5


def test_a_stopped_batch_begins_no_further_call(gateway: KisGateway) -> None:
    gateway.hang(times=1, seconds=10)
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    with KisClient(tokens=tokens) as client:
        running = batch.Batch(client, batch.symbols(50), threads=1)
        running.start()
        assert not running.wait(0.05)
        running.stop(0.05)
        gateway.heal()
        assert running.wait(5)
    assert gateway.counts.calls <= 1


def test_a_stopped_batch_waits_for_the_calls_that_are_under_way() -> None:
    asked, over = threading.Event(), threading.Event()

    def fetch(_: str) -> dict[str, str]:
        asked.set()
        assert over.wait(PATIENCE)
        return dict(GOOD)

    client: Any = SimpleNamespace(fetch_domestic_price=fetch, fetch_price_detail_oversea=fetch)
    running = batch.Batch(client, batch.symbols(50), threads=1)
    running.start()
    assert asked.wait(PATIENCE)
    answer = threading.Timer(0.05, over.set)
    answer.start()
    running.stop(PATIENCE)
    assert running.tracker.processed == 1
    answer.join()
