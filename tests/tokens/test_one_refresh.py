"""One refresh for everybody: threads, tasks, processes; who stops waiting takes it from nobody."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from alarms import alarm_once
from children import Child
from crowds import together
from kis_retry import AccessToken, FileTokenStore, MemoryTokenStore, RetryPolicy, TokenIssueError, TokenManager
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from managers import ended, started
from patience import PATIENCE, until, until_async
from unmeasured import unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clocks import FakeClock
    from kis_retry import RefreshEvent
    from managers import Make


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


def test_a_straggler_does_not_refresh_again(manager: TokenManager, gateway: KisGateway) -> None:
    old = manager.token()
    gateway.expire()
    new = manager.refresh(old)
    assert manager.refresh(old) is new
    assert manager.refresh(f"Bearer {old.value}") is new
    assert gateway.counts.token_requests == 2


def test_refusals_of_several_generations_cause_one_issue(manager: TokenManager, gateway: KisGateway) -> None:
    generations = [manager.token()]
    for _ in range(3):
        gateway.expire()
        generations.append(manager.refresh(generations[-1]))
    gateway.expire()
    got = together(12, lambda number: manager.refresh(generations[number % 4]))
    newest = {token.value for token in got} - {generations[-1].value}
    assert newest == {gateway.current_token}
    assert gateway.counts.tokens_issued == 5


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


def test_a_refresh_runs_on_a_thread_of_this_package_without_the_callers_context(gateway: KisGateway) -> None:
    argument: ContextVar[str] = ContextVar("argument", default="none")
    seen: list[tuple[str, bool, str]] = []

    class Watching(MemoryTokenStore):
        def load(self, key: str) -> AccessToken | None:
            thread = threading.current_thread()
            seen.append((thread.name, thread.daemon, argument.get()))
            return super().load(key)

    argument.set("of a call")
    TokenManager(gateway.credentials, store=Watching(), policy=RetryPolicy()).token()
    assert set(seen) == {("kis_retry-refresh", True, "none")}


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


def test_futures_say_who_issued(manager: TokenManager, gateway: KisGateway) -> None:
    old = manager.token()
    gateway.expire()
    gateway.hang("tokens", 1)
    futures = [manager.replace_future(old.value) for _ in range(4)]
    gateway.heal()
    assert [future.result(PATIENCE).origin for future in futures] == ["issued", "memory", "memory", "memory"]
    assert manager.replace_future(old.value).result(0).origin == "memory"


def test_a_token_from_the_store_says_so(gateway: KisGateway) -> None:
    store = MemoryTokenStore()
    first, second = (TokenManager(gateway.credentials, store=store, policy=RetryPolicy()) for _ in range(2))
    old = first.token()
    second.token()
    gateway.expire()
    first.refresh(old)
    replacement = second.replace_future(old.value).result(PATIENCE)
    assert (replacement.token, replacement.origin) == (first.token(), "store")


def test_a_source_knows_which_tokens_are_its_own_and_which_are_dead(
    make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    tokens = make()
    assert tokens.peek() is None
    assert not tokens.handed_out("foreign")
    assert not tokens.is_dead("foreign")
    first = tokens.token()
    assert tokens.handed_out(first.value)
    assert not tokens.is_dead(first.value)
    timed.expire()
    second = tokens.refresh(first)
    assert tokens.handed_out(first.value)
    assert tokens.is_dead(first.value)
    assert tokens.current_unless(first.value) == tokens.current_unless(None) == second
    assert tokens.current_unless(second.value) is None
    tokens.note_refused("foreign")
    assert tokens.is_dead("foreign")
    assert not tokens.handed_out("foreign")
    clock.now += 86_400
    assert tokens.is_dead(second.value)
    assert tokens.current_unless(None) is None


def test_what_is_remembered_of_tokens_is_bounded(manager: TokenManager) -> None:
    for number in range(1_000):
        manager.note_refused(f"dead{number}")
    assert not manager.is_dead("dead0")
    assert manager.is_dead("dead999")


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


@pytest.mark.parametrize("state", ["none yet", "good", "inside the margin", "refused", "expired"])
def test_a_library_that_asks_gets_a_token_that_lives_on(
    state: str, make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    tokens = make()
    if state == "none yet":
        assert tokens.renewed_future().result(PATIENCE).value == timed.current_token
        return
    first = tokens.token()
    if state == "refused":
        timed.expire()
        tokens.note_refused(first.value)
    clock.now += {"inside the margin": 86_400 - 300, "expired": 86_400}.get(state, 0)
    got = tokens.renewed_future().result(PATIENCE)
    assert got.value == timed.current_token
    assert (got == first) is (state == "good")


def test_a_library_that_asks_gets_a_good_token_where_kis_gives_no_other(
    make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    tokens = make()
    first = tokens.token()
    clock.now += 86_400 - 300
    timed.refuse_tokens("EGW00105")
    assert tokens.renewed_future().result(PATIENCE) == first
    timed.heal()
    tokens.note_refused(first.value)
    with pytest.raises(TokenIssueError):
        tokens.renewed_future().result(PATIENCE)


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


async def test_jobs_that_fill_the_loops_executor_do_not_stop_a_refresh(manager: TokenManager) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))

    def job() -> AccessToken:
        return asyncio.run_coroutine_threadsafe(manager.token_async(), loop).result(PATIENCE)

    assert await asyncio.wait_for(asyncio.to_thread(job), PATIENCE) == manager.token()


def test_a_loop_that_is_closed_meanwhile_harms_nobody(manager: TokenManager, gateway: KisGateway) -> None:
    gateway.hang("tokens", 1)

    async def impatient() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(manager.token_async(), 0.05)

    asyncio.run(impatient())
    waiting = manager.token_future()
    gateway.heal()
    assert waiting.result(PATIENCE).value == gateway.current_token


# --- signals


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such signals on Windows")
class TestSignals:
    @pytest.fixture(autouse=True)
    def _restored(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGALRM)
        yield
        signal.signal(signal.SIGALRM, before)

    @pytest.mark.parametrize("refused", [True, False], ids=["at a refusal", "at a cold start"])
    @pytest.mark.parametrize("kind", [TimeoutError, KeyboardInterrupt])
    def test_what_a_handler_raises_reaches_the_caller_at_once_and_the_refresh_goes_on(
        self, kind: type[BaseException], refused: bool, manager: TokenManager, gateway: KisGateway
    ) -> None:
        rejected = manager.token() if refused else None
        gateway.expire()
        gateway.hang("tokens", 1)
        asked = gateway.counts.token_requests

        def limit(*_: object) -> None:
            raise kind("the user's own")

        signal.signal(signal.SIGALRM, limit)
        with pytest.raises(kind, match="the user's own"), alarm_once(lambda: gateway.counts.token_requests > asked):
            manager.refresh(rejected)
        gateway.heal()
        assert manager.refresh(rejected).value == gateway.current_token
        assert gateway.counts.tokens_issued == (2 if refused else 1)

    def test_a_handler_that_asks_during_a_refresh_gets_its_token(
        self, manager: TokenManager, gateway: KisGateway
    ) -> None:
        gateway.hang("tokens", 1)
        got: list[AccessToken] = []

        def handler(*_: object) -> None:
            gateway.heal()
            got.append(manager.token())

        signal.signal(signal.SIGALRM, handler)
        with alarm_once(lambda: gateway.counts.token_requests == 1):
            assert manager.token().value == gateway.current_token
        assert got == [manager.token()]
        assert gateway.counts.token_requests == 1

    def test_ctrl_c_ends_a_program_whose_token_does_not_come(self, gateway: KisGateway) -> None:
        program = """
            import asyncio, signal, sys
            from kis_retry import Credentials, MemoryTokenStore, TokenManager
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background begins with it ignored
            key, secret, url = sys.argv[1:]
            manager = TokenManager(Credentials(key, secret, base_url=url), store=MemoryTokenStore())
            asyncio.run(manager.token_async())
        """
        gateway.hang("tokens")
        given = gateway.credentials
        command = [sys.executable, "-c", textwrap.dedent(program), given.app_key, given.app_secret, gateway.url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=unmeasured())
        try:
            until(lambda: gateway.counts.token_requests == 1)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
            assert time.monotonic() - began < 9, "the request for the token takes ten seconds"
        finally:
            process.kill()
            process.communicate()


# --- processes


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
class TestForks:
    def test_a_child_forked_during_a_threads_first_refresh_gets_its_own(self) -> None:
        """Before: it hung, on a lock or an import of a thread that does not exist there."""
        with KisGateway(issue_interval=0, latency=0.05) as gateway:
            for moment in range(6):
                manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=5))
                refreshing = started(1, manager.token)
                time.sleep(moment * 0.01)
                child = Child(lambda manager=manager: bool(manager.token().value))  # type: ignore[misc]  # bound now
                assert child.ended_well()
                ended(refreshing)

    @pytest.mark.parametrize("moment", [0.0, 0.01])
    def test_a_child_forked_during_the_first_call_of_a_process_meets_no_late_import(
        self, moment: float, tmp_path: Path
    ) -> None:
        program = f"""
            import os, threading, time, warnings
            from kis_retry import TokenManager
            from kis_retry.testing import KisGateway
            warnings.simplefilter("ignore")
            with KisGateway(issue_interval=0, latency=0.05) as gateway:
                manager = TokenManager(gateway.credentials)  # store and policy are read by the first call
                threading.Thread(target=manager.token).start()
                time.sleep({moment})
                child = os.fork()
                if child == 0:
                    os._exit(0 if manager.token().value else 1)
                print(os.waitpid(child, 0)[1])
        """
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        command = [sys.executable, "-c", textwrap.dedent(program)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert ran.stdout == "0\n"

    def test_children_share_the_parents_store_and_one_issue(self, gateway: KisGateway, tmp_path: Path) -> None:
        store = FileTokenStore(tmp_path / "cache")
        manager = TokenManager(gateway.credentials, store=store, policy=RetryPolicy())
        old = manager.token()
        gateway.expire()
        children = [Child(lambda: manager.refresh(old) != old) for _ in range(4)]
        assert [child.ended_well() for child in children] == [True] * 4
        assert manager.refresh(old).value == gateway.current_token
        assert gateway.counts.tokens_issued == 2


@pytest.mark.one_python
def test_processes_refused_at_once_cause_one_issue(gateway: KisGateway, tmp_path: Path) -> None:
    program = """
        import sys
        from kis_retry import Credentials, FileTokenStore, TokenManager
        key, secret, url, folder, old = sys.argv[1:]
        manager = TokenManager(Credentials(key, secret, base_url=url), store=FileTokenStore(folder))
        print("ready", flush=True)
        sys.stdin.readline()
        print(manager.refresh(old).value)
    """
    given, folder = gateway.credentials, tmp_path / "cache"
    old = TokenManager(given, store=FileTokenStore(folder), policy=RetryPolicy()).token()
    gateway.expire()
    command = [sys.executable, "-c", textwrap.dedent(program), given.app_key, given.app_secret, gateway.url]
    processes = [
        subprocess.Popen([*command, str(folder), old.value], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = [process.communicate("go\n", timeout=PATIENCE)[0].strip() for process in processes]
    assert outputs == [gateway.current_token] * 4
    assert gateway.counts.tokens_issued == 2


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signals on Windows")
def test_a_stopped_holder_of_the_stores_lock_costs_half_of_issue_wait(gateway: KisGateway, tmp_path: Path) -> None:
    folder, key = tmp_path / "cache", key_of(gateway.credentials)
    program = f"""
        import sys, time
        from kis_retry import FileTokenStore
        with FileTokenStore({str(folder)!r}).lock({key!r}, timeout=5, lease=60):
            print("held", flush=True)
            time.sleep(60)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        policy = RetryPolicy(issue_wait=0.6)
        tokens = TokenManager(gateway.credentials, store=FileTokenStore(folder), policy=policy)
        began = time.monotonic()
        assert tokens.token().value == gateway.current_token
        assert 0.25 < time.monotonic() - began < 10
    finally:
        holder.kill()
        holder.communicate()


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


def test_a_good_refresh_leaves_nothing_to_the_garbage_collector(manager: TokenManager, gateway: KisGateway) -> None:
    class Waiter(Future[Any]):
        pass

    gc.collect()
    gc.disable()
    try:
        kept = []
        for _ in range(20):
            old = manager.token()
            gateway.expire()
            future = manager.replace_future(old.value)
            future.result(PATIENCE)
            kept.append(weakref.ref(future))
            del future
        until(lambda: sum(reference() is not None for reference in kept) <= 1)
    finally:
        gc.enable()


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


def test_an_expiry_that_20_tasks_meet_is_one_line_at_info(
    manager: TokenManager, gateway: KisGateway, caplog: pytest.LogCaptureFixture, events: list[RefreshEvent]
) -> None:
    old = manager.token()
    gateway.expire()
    manager.note_refused(old.value)
    caplog.set_level("INFO", "kis_retry")

    async def crowd() -> None:
        await asyncio.gather(*(manager.token_async() for _ in range(20)))

    asyncio.run(crowd())
    assert [event.name for event in events] == ["token_refreshed"]
    assert len(caplog.records) == 1
