"""One refresh for everybody: threads, tasks, processes; who stops waiting takes it from nobody."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import weakref
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

import pytest

from alarms import alarm_once
from crowds import together
from kis_retry import AccessToken, MemoryTokenStore, RetryPolicy, TokenIssueError, TokenManager
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from patience import PATIENCE, until, until_async

if TYPE_CHECKING:
    from clocks import FakeClock, Make


# --- threads


def test_sixteen_threads_refused_at_once_cause_one_issue(
    manager: TokenManager, gateway: KisGateway, caplog: pytest.LogCaptureFixture
) -> None:
    old = manager.token()
    gateway.expire()
    caplog.set_level("DEBUG", "kis_retry")
    new = together(16, lambda _: manager.refresh(old))
    assert {token.value for token in new} == {gateway.current_token}
    assert gateway.counts.tokens_issued == 2
    levels = [record.levelname for record in caplog.records]
    assert sorted(levels) == ["DEBUG"] * 15 + ["INFO"], "one for who renewed, the others joined"


def test_who_waits_shares_the_failure(manager: TokenManager, gateway: KisGateway) -> None:
    gateway.refuse_tokens("EGW00105")

    def failure(_: int) -> TokenIssueError:
        with pytest.raises(TokenIssueError) as caught:
            manager.token()
        return caught.value

    failures = together(16, failure)
    assert {error.code for error in failures} == {"EGW00105"}
    assert len({id(error) for error in failures}) == 16, "each has its own"
    assert gateway.counts.token_requests == 1


def test_reading_a_good_token_takes_no_lock_no_disk_and_no_thread(manager: TokenManager) -> None:
    token, threads = manager.token(), threading.active_count()

    class Poisoned(MemoryTokenStore):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    store = MemoryTokenStore()
    own = TokenManager(manager.credentials, store=store, policy=RetryPolicy())
    store.save(key_of(manager.credentials), token)
    assert own.token() == token
    store.__class__ = Poisoned
    assert {own.token() for _ in range(1000)} == {token}
    assert own.peek() == own.current_unless(None) == own.token_future().result(0) == token
    assert threading.active_count() <= threads + 1


# --- futures


def test_a_future_is_its_callers_own(manager: TokenManager, gateway: KisGateway) -> None:
    old = manager.token()
    gateway.expire()
    gateway.hang("tokens", 1)
    futures = [manager.replace_future(old.value) for _ in range(5)]
    assert futures[0].cancel(), "even that of who asked"
    assert futures[3].cancel()
    with pytest.raises(FutureTimeoutError):
        futures[1].result(0.05)
    gateway.heal()
    for future in (futures[1], futures[2], futures[4]):
        assert future.result(PATIENCE).token.value == gateway.current_token
    assert gateway.counts.tokens_issued == 2


def test_a_token_that_a_library_got_is_adopted_and_shared(gateway: KisGateway) -> None:
    store = MemoryTokenStore()
    tokens, other = (TokenManager(gateway.credentials, store=store, policy=RetryPolicy()) for _ in range(2))
    old = tokens.token()
    gateway.expire()
    theirs = AccessToken(gateway.issue_elsewhere()["access_token"], old.expires_at)
    tokens.note_refused(theirs.value)
    tokens.adopt(theirs)
    assert tokens.token() == theirs
    assert tokens.is_dead(old.value)
    until(lambda: store.load(key_of(gateway.credentials)) == theirs)
    assert other.refresh(old) == theirs
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("state", ["none yet", "good", "inside the margin", "expired"])
def test_a_library_that_asks_gets_a_token_that_lives_on_where_kis_gives_one(
    state: str, make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    tokens = make()
    first = tokens.token() if state != "none yet" else None
    clock.now += {"inside the margin": 86_400 - 300, "expired": 86_400}.get(state, 0)
    if state == "inside the margin":
        timed.refuse_tokens("EGW00105")
        assert tokens.renewed_future().result(PATIENCE) == first
        timed.heal()
        clock.now += 60
    got = tokens.renewed_future().result(PATIENCE)
    assert got.value == timed.current_token
    assert (got == first) is (state == "good")


# --- tasks


async def test_tasks_share_one_issue_and_the_loop_goes_on(manager: TokenManager, gateway: KisGateway) -> None:
    gateway.hang("tokens", 1)
    tasks = [asyncio.create_task(manager.token_async()) for _ in range(200)]
    await until_async(lambda: gateway.counts.token_requests == 1)
    tasks[0].cancel()
    tasks[3].cancel()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(manager.token_async(), 0.01)
    gateway.heal()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcomes.pop(at)) for at in (3, 0)] == [asyncio.CancelledError] * 2
    assert {getattr(outcome, "value", None) for outcome in outcomes} == {gateway.current_token}
    assert gateway.counts.token_requests == 1


# --- signals


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such signals on Windows")
def test_a_handler_that_asks_during_a_refresh_gets_its_token(manager: TokenManager, gateway: KisGateway) -> None:
    gateway.hang("tokens", 1)
    got: list[AccessToken] = []

    def handler(*_: object) -> None:
        gateway.heal()
        got.append(manager.token())

    with alarm_once(handler, lambda: gateway.counts.token_requests == 1):
        assert manager.token().value == gateway.current_token
    assert got == [manager.token()]
    assert gateway.counts.token_requests == 1


# --- memory


def test_no_failure_keeps_a_call_alive_and_none_grows(make: Make, timed: KisGateway) -> None:
    class Argument:
        pass

    timed.refuse_tokens("EGW00105")
    manager = make()
    alive: list[weakref.ref[Argument]] = []

    def failing(argument: Argument) -> int:
        alive.append(weakref.ref(argument))
        with pytest.raises(TokenIssueError) as caught:
            manager.token()
        assert (caught.value.__context__, caught.value.__cause__) == (None, None)
        trace, depth = caught.value.__traceback__, 0
        while trace is not None:
            trace, depth = trace.tb_next, depth + 1
        return depth

    depths = {failing(Argument()) for _ in range(200)}
    until(lambda: gc.collect() is not None and [reference() for reference in alive] == [None] * 200)
    assert len(depths) <= 2, "the first, and those in the cool-down"


def test_a_manager_nobody_holds_is_gone(gateway: KisGateway) -> None:
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    manager.token()
    gone = weakref.ref(manager)
    gc.disable()
    try:
        del manager
        until(lambda: gone() is None)
    finally:
        gc.enable()
