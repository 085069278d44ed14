"""A signal's exception ends whatever waits at once; what a hook or a log handler raises ends nothing at all."""

from __future__ import annotations

import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import requests

from answers import GOOD_CODE, PRICE
from clocks import interrupt
from crowds import together
from kis_retry import (
    KisClient,
    MemoryTokenStore,
    RateLimiter,
    RetryPolicy,
    TokenManager,
    on_event,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway


class TimeLimitError(TimeoutError):
    """A user's own, of a kind that the network knows too."""


def time_limit(*_: object) -> None:
    raise TimeLimitError


# --- signals


class Limit:
    def raise_it(self, *_: object) -> None:
        time_limit()


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no such signals")
@pytest.mark.parametrize("handle", [time_limit, Limit().raise_it, partial(time_limit, 1)])
def test_a_handler_of_any_kind_is_told_from_the_code_that_it_interrupts(handle: Any) -> None:
    outcomes = Counter[str]()

    @retry_on_transient_error(idempotent=True)
    def interrupted() -> None:
        outcomes["interrupted"] += 1
        try:
            signal.raise_signal(signal.SIGALRM)
        except TimeLimitError as error:
            raise TimeoutError("made of it") from error

    @retry_on_transient_error(idempotent=True, policy=RetryPolicy(transient_deadline=0.3))
    def failing() -> None:
        outcomes["failing"] += 1
        raise TimeoutError("of its own")

    before = signal.signal(signal.SIGALRM, handle)
    for fetch in (interrupted, failing):
        with pytest.raises(TimeoutError):
            fetch()
    signal.signal(signal.SIGALRM, before)
    assert outcomes["interrupted"] == 1
    assert outcomes["failing"] > 1


# --- hooks and the log


def exits() -> None:
    sys.exit("a kill switch")


def fails() -> None:
    raise LookupError("a Telegram handler without a network")


@contextmanager
def disturbing(where: str, harm: Callable[[], None]) -> Iterator[None]:
    """Have whoever listens to what this package tells do harm, at each event and each record."""
    logger = logging.getLogger("kis_retry")
    level = logger.level

    class Harmful(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            harm()

    def harmful(_: object) -> bool:
        harm()
        return True

    handler = Harmful()
    unsubscribe = on_event(harmful) if where == "a hook" else lambda: None
    if where == "a filter":
        logger.addFilter(harmful)
    elif where == "a handler":
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        unsubscribe()
        logger.setLevel(level)
        logger.removeFilter(harmful)
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("where", "harm"), [("a hook", exits), ("a hook", interrupt), ("a handler", fails), ("a filter", fails)]
)
def test_whoever_listens_and_fails_costs_a_batch_nothing(where: str, harm: Callable[[], None]) -> None:
    with KisGateway(seed=3) as gateway:
        gateway.refuse_calls("EGW00201", share=0.1)
        gateway.drop(share=0.05)
        gateway.expire_at(40)
        given = gateway.credentials
        tokens = TokenManager(given, store=MemoryTokenStore(), policy=RetryPolicy())
        limiter = RateLimiter(given, rate=150, store=MemoryTokenStore())

        @retry_on_transient_error(limiter=limiter)
        @refresh_on_expired_token(tokens=tokens)
        def fetch(_: int) -> str:
            return str(requests.get(gateway.url + PRICE, timeout=20).json()["msg_cd"])

        with disturbing(where, harm), ThreadPoolExecutor(8) as pool:
            codes = Counter(pool.map(fetch, range(70)))
        assert codes == {GOOD_CODE: 70}
        assert gateway.counts.token_requests == 2
        assert limiter.acquire(5), "the pace goes on"


def test_a_kill_switch_in_the_wait_for_the_minute_starts_no_storm(gateway: KisGateway) -> None:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=0.5))
    client = KisClient(tokens=tokens, limiter=RateLimiter(gateway.credentials, rate=0))
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.issue_elsewhere()
    gateway.reset_counts()
    with disturbing("a hook", exits), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.fetch_domestic_price, ["005930"] * 8))
    assert {answer["msg_cd"] for answer in answers} == {"EGW00123"}, "KIS's own answer"
    assert gateway.counts.token_requests <= 8


def test_an_expiry_that_twenty_functions_meet_unseen_is_one_line_of_each_kind_at_info(
    gateway: KisGateway, manager: TokenManager, caplog: pytest.LogCaptureFixture
) -> None:
    dead = manager.authorization

    @refresh_on_expired_token(tokens=manager)
    def fetch(headers: dict[str, str]) -> dict[str, Any]:  # of a library whose requests nobody sees
        is_dead = headers["authorization"] == dead
        return {"rt_cd": "1", "msg_cd": "EGW00123"} if is_dead else {"rt_cd": "0"}

    gateway.expire()
    caplog.set_level(logging.INFO, "kis_retry")
    assert together(20, lambda _: fetch({"authorization": dead})) == [{"rt_cd": "0"}] * 20
    said = sorted(record.getMessage().split()[0] for record in caplog.records)
    assert said == ["kis_retry.call_recovered", "kis_retry.token_expired", "kis_retry.token_refreshed"]
