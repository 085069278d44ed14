"""What a refresh meets in the field: outages, dead tokens, hooks, signals, stopped processes, endless answers."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests

from alarms import alarm_once
from clocks import FakeClock, tokens_on
from kis_retry import (
    AccessToken,
    FileTokenStore,
    KisClient,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenIssueLimited,
    TokenManager,
    on_event,
    refresh_on_expired_token,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from kis_retry.tokens import issuer, request
from outcomes import call
from patience import PATIENCE, until, until_async
from unmeasured import unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = "MCA00000"


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock()) as clock:
        yield clock


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[KisGateway]:
    """A gateway on that clock."""
    with KisGateway(clock=clock.monotonic) as running:
        yield running


class Hurried:
    """Sleeps in earnest, and a tenth of the time."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 10)


def made(
    gateway: KisGateway, clock: FakeClock | Hurried | None = None, store: Any = None, **policy: Any
) -> TokenManager:
    return TokenManager(
        gateway.credentials,
        store=store or MemoryTokenStore(),
        policy=RetryPolicy(**policy),
        sleep=clock.sleep if clock else None,
    )


def batch(client: KisClient, clock: FakeClock, calls: int, pace: float = 20) -> list[str]:
    """So many calls a second."""
    answers = []
    for _ in range(calls):
        try:
            answers.append(call(client))
        except TokenIssueError as error:
            answers.append(type(error).__name__)
        clock.pass_by(1 / pace)
    return answers


# --- an endpoint that is away


def outage(gateway: KisGateway, clock: FakeClock, seconds: float) -> None:
    gateway.refuse_tokens(code=None, status=503)
    clock.at(seconds, gateway.heal)


@pytest.mark.parametrize("seconds", [4, 30, 65])
def test_an_outage_of_the_token_endpoint_at_an_expiry_costs_no_symbol(
    seconds: float, timed: KisGateway, clock: FakeClock
) -> None:
    """Before: four seconds cost 1,177 symbols."""
    client = KisClient(tokens=made(timed, clock))
    assert batch(client, clock, 20) == [GOOD] * 20
    timed.expire()
    outage(timed, clock, seconds)
    assert batch(client, clock, 20, pace=2) == [GOOD] * 20
    assert sum(clock.slept) < seconds + 3, "it goes on soon after the endpoint is back"


def test_an_outage_of_the_token_endpoint_at_a_cold_start_costs_no_symbol(timed: KisGateway, clock: FakeClock) -> None:
    """Before: 1,195."""
    outage(timed, clock, 4)
    assert batch(KisClient(tokens=made(timed, clock)), clock, 20, pace=2) == [GOOD] * 20


def test_everybody_waits_for_the_endpoint_together(gateway: KisGateway, events: list[RefreshEvent]) -> None:
    client = KisClient(tokens=made(gateway, Hurried()))
    call(client)
    gateway.expire()
    gateway.reset_counts()
    gateway.refuse_tokens(3, code=None, status=503)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(call(client)), daemon=True) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [GOOD] * 16
    assert gateway.counts.token_requests == 4
    waiting = [event for event in events if event.name == "token_issue_waiting"]
    assert [(event.msg_cd, event.error) for event in waiting] == [(None, "TokenIssueError")]


def test_after_an_outage_longer_than_issue_wait_calls_recover_within_seconds_and_none_waits_again(
    timed: KisGateway, clock: FakeClock
) -> None:
    """Before, of 300 seconds: 5,973 symbols lost."""
    client = KisClient(tokens=made(timed, clock, issue_wait=10))
    call(client)
    timed.expire()
    outage(timed, clock, 40)
    answers = batch(client, clock, 150, pace=4)
    lost = answers.index(GOOD)
    assert answers == ["EGW00123"] * lost + [GOOD] * (150 - lost)
    assert 9 < sum(clock.slept) <= 10.001, "once, and not before each call"
    assert lost <= (40 - 10 + 1.5) * 4, "a probe a second finds that the endpoint is back"


def test_a_probe_that_gets_no_answer_holds_nobody_up(gateway: KisGateway, events: list[RefreshEvent]) -> None:
    manager = made(gateway)
    client = KisClient(tokens=manager)
    call(client)
    gateway.expire()
    gateway.hang("tokens")
    manager._policy = RetryPolicy(issue_wait=0.2, issue_timeout=0.2)
    assert call(client) == "EGW00123"
    events.clear()
    assert [call(client) for _ in range(20)] == ["EGW00123"] * 20
    waited = [event.elapsed or 0 for event in events if event.name == "token_refresh_failed"]
    assert len(waited) == 20
    assert statistics.median(waited) < 0.2, "as long as issue_timeout for each"


@pytest.mark.parametrize("code", ["EGW00103", "EGW00105"])
def test_a_wrong_key_or_secret_is_asked_about_once(code: str, timed: KisGateway, clock: FakeClock) -> None:
    timed.refuse_tokens(code=code)
    client = KisClient(tokens=made(timed, clock))
    assert batch(client, clock, 200, pace=4) == ["TokenIssueError"] * 200
    assert timed.counts.token_requests == 1
    assert sum(clock.slept) == 0


def test_without_a_cool_down_each_call_asks(timed: KisGateway, clock: FakeClock) -> None:
    timed.refuse_tokens(code="EGW00105")
    client = KisClient(tokens=made(timed, clock, issue_cooldown=0))
    assert batch(client, clock, 5) == ["TokenIssueError"] * 5
    assert timed.counts.token_requests == 5


def test_a_token_that_dies_within_the_minute_of_its_issue_is_waited_for(timed: KisGateway, clock: FakeClock) -> None:
    """Before: 1,023 of 1,060 lost."""
    client = KisClient(tokens=made(timed, clock))
    answers = batch(client, clock, 5, pace=4)
    timed.expire()
    answers += batch(client, clock, 20, pace=4)
    assert timed.current_token is not None
    timed._books["real"].revoke(timed.current_token)  # five seconds later, and the minute stands
    answers += batch(client, clock, 240, pace=4)
    assert answers == [GOOD] * 265
    assert sum(clock.slept) == pytest.approx(60 - 5, abs=0.1)


def test_a_dead_token_that_kis_hands_out_again_is_not_waited_for(timed: KisGateway, clock: FakeClock) -> None:
    client = KisClient(tokens=made(timed, clock))
    call(client)
    timed.expire()
    timed.same_token()
    assert batch(client, clock, 30, pace=6) == ["EGW00123"] * 30
    assert sum(clock.slept) == 0
    assert timed.counts.token_requests <= 3


def test_a_minute_after_kis_handed_it_out_again_another_one_is_waited_for(timed: KisGateway, clock: FakeClock) -> None:
    client = KisClient(tokens=made(timed, clock))
    call(client)
    timed.expire()
    timed.same_token()
    assert call(client) == "EGW00123"
    clock.pass_by(61)
    timed.issue_elsewhere()  # which begins another minute
    assert call(client) == GOOD
    assert sum(clock.slept) == pytest.approx(60, abs=0.1)


# --- what is in the store


def test_two_dead_tokens_in_the_store_are_refused_once_each_and_a_new_one_issued(gateway: KisGateway) -> None:
    store, key = MemoryTokenStore(), key_of(gateway.credentials)
    manager = made(gateway, store=store)
    dead = [AccessToken(f"eyJ.dead{n}.sig", manager.token().expires_at) for n in range(2)]
    gateway.expire()
    gateway.reset_counts()
    store.save(key, dead[0])
    assert manager.replace(gateway.current_token).token == dead[0]
    store.save(key, dead[1])
    assert manager.replace(dead[0].value).token == dead[1]
    store.save(key, dead[0])
    assert manager.replace(dead[1].value).token.value == gateway.current_token
    assert gateway.counts.token_requests == 1


def test_a_refused_token_is_not_adopted_ahead_of_the_expiry(timed: KisGateway, clock: FakeClock) -> None:
    store, key = MemoryTokenStore(), key_of(timed.credentials)
    manager = made(timed, clock, store)
    token = manager.token()
    later = AccessToken("eyJ.later.sig", token.expires_at.replace(year=token.expires_at.year + 1))
    manager.note_refused(later.value)
    store.save(key, later)
    clock.pass_by(86_400 - 300)
    assert manager.token() not in (token, later)


def test_a_failure_is_forgotten_when_a_token_is_adopted(timed: KisGateway, clock: FakeClock) -> None:
    store, key = MemoryTokenStore(), key_of(timed.credentials)
    manager = made(timed, clock, store)
    first = manager.token()
    timed.expire()
    timed.refuse_tokens(1, code="EGW00105")
    with pytest.raises(TokenIssueError):
        manager.replace(first.value)
    adopted = AccessToken("eyJ.adopted.sig", first.expires_at)
    store.save(key, adopted)
    assert manager.replace(first.value).token == adopted
    assert manager.replace(adopted.value).token.value == timed.current_token, "in what was the cool-down"


@pytest.mark.parametrize("held", [True, False, None])
def test_a_store_that_cannot_lock_does_not_keep_a_token_from_being_issued(
    held: bool | None, gateway: KisGateway
) -> None:
    class Unlockable(MemoryTokenStore):
        @contextmanager
        def lock(self, key: str, *, timeout: float, lease: float) -> Iterator[bool]:
            if held is None:
                raise OSError("no locks here")
            yield held

    manager = made(gateway, store=Unlockable())
    first = manager.token()
    gateway.expire()
    assert manager.refresh(first) != first
    assert gateway.counts.token_requests == 2


def test_with_a_clock_a_day_ahead_four_processes_share_the_token_that_just_appeared(
    timed: KisGateway, clock: FakeClock, tmp_path: Path
) -> None:
    """Before: two of them got TokenIssueLimited after 71 seconds."""

    class Counting(FileTokenStore):
        loads = 0

        def load(self, key: str) -> AccessToken | None:
            self.loads += 1
            return super().load(key)

    clock.skew = 25 * 3_600
    timed.hang("tokens", 1)
    stores = [Counting(tmp_path / "cache") for _ in range(4)]
    managers = [made(timed, clock, store) for store in stores]
    got: list[AccessToken] = []
    threads = [threading.Thread(target=lambda m=m: got.append(m.token()), daemon=True) for m in managers]
    for thread in threads:
        thread.start()
    until(lambda: timed.counts.token_requests == 1)
    until(lambda: min(store.loads for store in stores) == 2)  # the others are on their way to the lock
    timed.heal()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(got) == 4
    assert len(set(got)) == 1
    assert timed.counts.token_requests == 1
    assert sum(clock.slept) == 0


def test_with_a_clock_a_day_ahead_a_process_that_comes_later_takes_the_token_in_the_end(
    timed: KisGateway, clock: FakeClock
) -> None:
    clock.skew = 25 * 3_600
    store = MemoryTokenStore()
    token = made(timed, clock, store).token()
    timed.refuse_tokens(code="EGW00133")  # others are always quicker
    assert made(timed, clock, store).token() == token
    assert sum(clock.slept) == pytest.approx(70)


def test_where_kis_says_what_time_it_is_a_wrong_clock_costs_no_waiting(
    timed: KisGateway, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.skew = 25 * 3_600
    store = MemoryTokenStore()
    token = made(timed, clock, store).token()
    monkeypatch.setattr(issuer.TokenIssuer, "_compare_clocks", lambda self, _: setattr(self, "clock_ahead", -90_000.0))
    assert made(timed, clock, store).token() == token
    assert sum(clock.slept) == 0


@pytest.mark.parametrize(("minute", "issue_wait", "served"), [(5, 0.2, 1), (0.1, 20, 4)])
def test_machines_that_share_nothing_get_one_token_a_minute_between_them(
    minute: float, issue_wait: float, served: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KIS's rule: the n-th waits n - 1 minutes, so `issue_wait` has to be as long."""
    monkeypatch.setattr(request, "MINUTE", minute)
    with KisGateway(issue_interval=minute) as gateway:
        managers = [made(gateway, issue_wait=issue_wait) for _ in range(4)]
        got: list[AccessToken] = []

        def ask(manager: TokenManager) -> None:
            with suppress(TokenIssueLimited):
                got.append(manager.token())

        threads = [threading.Thread(target=ask, args=[manager], daemon=True) for manager in managers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(got) == served
    assert len(set(got)) == 1


# --- standing still


def test_issue_wait_bounds_a_store_that_never_answers(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: eight seconds took fifty."""

    class Silent(MemoryTokenStore):
        silent = threading.Event()

        def load(self, key: str) -> AccessToken | None:
            if self.silent.is_set():
                answered.wait(PATIENCE)
            return super().load(key)

    answered, store = threading.Event(), Silent()
    manager = made(gateway, store=store)
    client = KisClient(tokens=manager)
    call(client)
    gateway.expire()
    store.silent.set()
    manager._policy = RetryPolicy(issue_wait=0.1)
    monkeypatch.setattr("kis_retry.tokens.refresher._GRACE", 0.1)
    began = time.monotonic()
    assert call(client) == "EGW00123"
    assert time.monotonic() - began < PATIENCE / 2
    answered.set()
    store.silent.clear()


def test_a_request_that_trickles_is_bounded_and_asked_again() -> None:
    over = threading.Event()

    class Trickling(requests.Session):
        posts = 0

        def post(self, *arguments: Any, **options: Any) -> requests.Response:
            self.posts += 1
            if self.posts == 1:
                over.wait(PATIENCE)  # as when a byte comes now and then
            return super().post(*arguments, **options)

    policy = RetryPolicy(issue_timeout=0.2)
    with KisGateway(issue_interval=0) as gateway, Trickling() as session:
        manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy, session=session)
        assert gateway._books["real"].judge(manager.token().value, time.time()) is None
        assert session.posts > 1
        over.set()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signals on Windows")
def test_a_stopped_holder_of_the_stores_lock_costs_half_of_issue_wait_and_no_symbol(
    gateway: KisGateway, tmp_path: Path
) -> None:
    """Before: 35 seconds."""
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
        client = KisClient(tokens=made(gateway, store=FileTokenStore(folder), issue_wait=0.6))
        began = time.monotonic()
        assert call(client) == GOOD
        assert 0.25 < time.monotonic() - began < 10
    finally:
        holder.kill()
        holder.communicate()


def test_a_hook_that_asks_for_the_first_token_gets_an_error_and_not_silence(
    timed: KisGateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Before: it waited for itself."""
    timed.issue_elsewhere()
    manager = made(timed, clock)
    told: list[Exception] = []

    def hook(event: RefreshEvent) -> None:
        try:
            manager.token()
        except TokenIssueError as error:
            told.append(error)
            raise

    unsubscribe = on_event(hook)
    try:
        assert manager.token().value == timed.current_token
    finally:
        unsubscribe()
    assert len(told) == 1
    assert "would wait for itself" in str(told[0])
    assert told[0].__context__ is None
    assert any("hook_failed" in record.getMessage() for record in caplog.records)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such signals on Windows")
class TestSignals:
    @pytest.fixture(autouse=True)
    def _restored(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGALRM)
        yield
        signal.signal(signal.SIGALRM, before)

    def test_a_handler_that_makes_a_protected_call_during_a_refresh_gets_its_answer(self, gateway: KisGateway) -> None:
        """Before: a deadlock."""
        client = KisClient(tokens=made(gateway))
        call(client)
        gateway.expire()
        gateway.hang("tokens", 1)
        answers: list[str] = []

        def handler(*_: object) -> None:
            gateway.heal()
            answers.append(call(client))

        signal.signal(signal.SIGALRM, handler)
        with alarm_once(lambda: gateway.counts.token_requests == 2):
            assert call(client) == GOOD
        assert answers == [GOOD]
        assert gateway.counts.tokens_issued == 2

    @pytest.mark.parametrize("refused", [True, False], ids=["at a refusal", "at a cold start"])
    def test_a_users_own_time_limit_reaches_the_caller_and_the_refresh_goes_on(
        self, refused: bool, gateway: KisGateway
    ) -> None:
        """Before: swallowed as a refresh that failed. TimeoutError is what urllib3 would take for its own."""
        manager = made(gateway)
        rejected = manager.token() if refused else None
        gateway.expire()
        gateway.hang("tokens", 1)
        asked = gateway.counts.token_requests

        def limit(*_: object) -> None:
            raise TimeoutError("the user's own")

        signal.signal(signal.SIGALRM, limit)
        under_way = alarm_once(lambda: gateway.counts.token_requests > asked)
        with pytest.raises(TimeoutError, match="the user's own"), under_way:
            manager.replace(rejected.value if rejected else None)
        gateway.heal()
        assert manager.replace(rejected.value if rejected else None).token.value == gateway.current_token
        assert gateway.counts.tokens_issued == (2 if refused else 1), "what the refresh got, and no cool-down"


async def test_jobs_that_fill_the_loops_executor_do_not_stop_a_refresh(gateway: KisGateway) -> None:
    """Before: 0 of 6 answered, since all threads waited for the refresh that waited for a thread."""
    manager = made(gateway)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))

    @refresh_on_expired_token(tokens=manager)
    async def fetch(headers: dict[str, str]) -> dict[str, str]:
        return {"rt_cd": "0"}

    def job() -> dict[str, str]:
        return asyncio.run_coroutine_threadsafe(fetch({}), loop).result(PATIENCE)

    assert await asyncio.wait_for(asyncio.to_thread(job), PATIENCE) == {"rt_cd": "0"}


async def test_a_task_that_stops_waiting_takes_the_token_from_nobody(gateway: KisGateway) -> None:
    manager = made(gateway)
    gateway.hang("tokens", 1)
    tasks = [asyncio.create_task(manager.token_async()) for _ in range(5)]
    await until_async(lambda: gateway.counts.token_requests == 1)
    tasks[3].cancel()  # one that joined
    await asyncio.sleep(0)
    gateway.heal()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes.pop(3), asyncio.CancelledError)
    assert {getattr(outcome, "value", None) for outcome in outcomes} == {gateway.current_token}


async def test_on_a_loop_headers_are_got_without_stopping_it(gateway: KisGateway) -> None:
    manager = made(gateway)
    gateway.hang("tokens", 1)
    getting = asyncio.create_task(manager.headers_async("FHKST01010100", custtype="P"))
    await until_async(lambda: gateway.counts.token_requests == 1)
    assert not getting.done()
    gateway.heal()
    assert await getting == manager.headers("FHKST01010100", custtype="P")
    assert await manager.token_async() is manager.token()


async def test_a_source_that_fails_with_a_token_in_hand_leaves_the_call_to_kis() -> None:
    class Failing:
        def token(self) -> AccessToken:
            if asked:
                raise TokenIssueError("none to be had")
            asked.append(1)
            return AccessToken("old", some.token().expires_at)

        def refresh(self, rejected: AccessToken) -> AccessToken:
            raise TokenIssueError("none to be had")

    asked: list[int] = []
    with KisGateway() as gateway:
        some = made(gateway)
        source = Failing()

        @refresh_on_expired_token(tokens=source)
        async def fetch(headers: dict[str, str]) -> dict[str, str]:
            return {"rt_cd": "1", "msg_cd": "EGW00123"}

        headers: dict[str, str] = {}
        assert (await fetch(headers))["msg_cd"] == "EGW00123"
        assert headers["authorization"] == "Bearer old"
        assert (await fetch(headers))["msg_cd"] == "EGW00123"


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent")
def test_ctrl_c_ends_a_program_on_a_loop_whose_token_does_not_come(gateway: KisGateway) -> None:
    """Before: 24 seconds."""
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
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), given.app_key, given.app_secret, gateway.url],
        stderr=subprocess.PIPE,
        env=unmeasured(),
    )
    try:
        until(lambda: gateway.counts.token_requests == 1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert time.monotonic() - began < 9, "the request for the token takes ten seconds"
    finally:
        process.kill()
        process.communicate()


# --- memory


def test_a_cool_down_keeps_no_call_alive_and_no_failure_grows(timed: KisGateway, clock: FakeClock) -> None:
    """Before: 20,000 calls left 40,000 entries of one traceback, and every call's arguments."""

    class Argument:
        pass

    timed.refuse_tokens(code="EGW00105")
    manager = made(timed, clock)
    alive: list[weakref.ref[Argument]] = []

    def failing(argument: Argument) -> TokenIssueError:
        alive.append(weakref.ref(argument))
        with pytest.raises(TokenIssueError) as caught:
            manager.token()
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None
        return caught.value

    depths = set()
    for _ in range(200):
        trace, depth = failing(Argument()).__traceback__, 0
        while trace is not None:
            trace, depth = trace.tb_next, depth + 1
        depths.add(depth)
    del trace
    gc.collect()
    assert [reference() for reference in alive] == [None] * 200
    assert len(depths) <= 2, "the first, and those in the cool-down"
    kept = manager._refresher.memory.cooldown.failure
    assert kept is not None
    assert kept.__traceback__ is None, "nor does the one from which theirs are made"
    assert timed.counts.token_requests == 1


# --- what is told


def test_an_expired_token_that_cannot_be_renewed_is_one_event_in_a_cool_down(
    timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    manager = made(timed, clock)
    old = manager.token()
    clock.pass_by(86_401)
    timed.refuse_tokens(code="EGW00105")
    for _ in range(100):
        assert manager.token() == old
        clock.pass_by(0.05)
    (event,) = events
    assert event == RefreshEvent(
        name="token_refresh_failed",
        msg_cd="EGW00105",
        previous_token=old.fingerprint,
        expires_at=old.expires_at,
        elapsed=event.elapsed,
        error="TokenIssueError",
    )


def test_a_renewal_past_the_expiry_is_told_in_full(
    timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    manager = made(timed, clock)
    old = manager.token()
    clock.pass_by(86_401)
    new = manager.token()
    (event,) = events
    assert event == RefreshEvent(
        name="token_refreshed",
        token=new.fingerprint,
        previous_token=old.fingerprint,
        expires_at=new.expires_at,
        source="issued",
        elapsed=event.elapsed,
    )


def test_a_refresh_by_hand_is_told_in_full(timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]) -> None:
    store = MemoryTokenStore()
    manager, other = made(timed, clock, store), made(timed, clock, store)
    old = other.token()
    manager.token()
    timed.expire()
    new = manager.refresh(old)
    assert other.refresh(old) == new
    assert manager.refresh(old) == new
    told = [(event.name, event.source, event.token, event.previous_token, event.expires_at) for event in events]
    assert told == [
        (name, source, new.fingerprint, old.fingerprint, new.expires_at)
        for name, source in (("token_refreshed", "issued"), ("token_adopted", "store"), ("token_adopted", "memory"))
    ]
    assert all(event.callable is None and event.error is None and event.msg_cd is None for event in events)


def test_the_wait_for_the_minute_is_told_with_the_call_it_is_for(
    timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    timed.issue_elsewhere()
    call(KisClient(tokens=made(timed, clock)))
    (event,) = events
    assert event == RefreshEvent(
        name="token_issue_waiting",
        callable="KisClient.fetch_domestic_price",
        msg_cd="EGW00133",
        elapsed=60,
        error="TokenIssueLimited",
    )


# --- revoking, and redirects


def test_a_revocation_waits_for_the_stores_lock(gateway: KisGateway, tmp_path: Path) -> None:
    class Counting(FileTokenStore):
        locks = 0

        def lock(self, key: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
            self.locks += 1
            return super().lock(key, timeout=timeout, lease=lease)

    store = Counting(tmp_path / "cache")
    manager = made(gateway, store=store)
    manager.token()
    store.locks = 0
    revoked: list[bool] = []
    with FileTokenStore(tmp_path / "cache").lock(key_of(gateway.credentials), timeout=1, lease=10) as held:
        assert held
        revoking = threading.Thread(target=lambda: revoked.append(manager.revoke()), daemon=True)
        revoking.start()
        until(lambda: revoked or store.locks)
        assert revoked == []
    revoking.join(PATIENCE)
    assert revoked == [True]


def test_a_given_session_does_not_carry_the_secret_to_another_host_either(gateway: KisGateway) -> None:
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def redirect() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(
                f"HTTP/1.1 307 X\r\nLocation: {gateway.url}/oauth2/tokenP\r\nContent-Length: 2\r\n\r\n{{}}".encode()
            )

    threading.Thread(target=redirect, daemon=True).start()
    with listener, requests.Session() as session:
        from kis_retry import Credentials

        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        given = gateway.credentials
        manager = TokenManager(
            Credentials(given.app_key, given.app_secret, base_url=url),
            store=MemoryTokenStore(),
            policy=RetryPolicy(issue_wait=0),
            session=session,
        )
        with pytest.raises(TokenIssueError, match="307"):
            manager.token()
    assert gateway.counts.token_requests == 0
