"""What the suite for token stores finds: stores that break the contract, one rule each; and what it lets pass."""

from __future__ import annotations

import inspect
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock
from kis_retry.stores.memory import MemoryTokenStore
from kis_retry.testing import store_contract
from kis_retry.testing.store_contract import KEY, OTHER_KEY, TokenStoreCompliance, token_named
from kis_retry.token import AccessToken
from patience import PATIENCE

if TYPE_CHECKING:
    from kis_retry.stores.base import TokenStore


def run(name: str, store: TokenStore, second_store: TokenStore | None = None, zone: timezone = timezone.utc) -> None:
    """One test of the suite, on these two views of a place; one view is both where there is no second."""
    test = getattr(TokenStoreCompliance(), name)
    views = {"store": store, "second_store": second_store or store, "zone": zone}
    test(**{parameter: views[parameter] for parameter in inspect.signature(test).parameters})


def run_and_fail(name: str, store: TokenStore, second_store: TokenStore | None = None) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(name, store, second_store)


# -- entries


class Forgets(MemoryTokenStore):
    def save(self, key: str, token: AccessToken) -> None:
        pass


class Full(MemoryTokenStore):
    def load(self, key: str) -> AccessToken | None:
        return super().load(key) or token_named("of-nobody")


class Later(MemoryTokenStore):
    by = timedelta(minutes=1)

    def load(self, key: str) -> AccessToken | None:
        token = super().load(key)
        return token and AccessToken(token.value, token.expires_at + self.by)


class Earlier(Later):
    by = timedelta(minutes=-1)


class InUtc(MemoryTokenStore):
    zone = timezone.utc

    def load(self, key: str) -> AccessToken | None:
        token = super().load(key)
        return token and AccessToken(token.value, token.expires_at.astimezone(self.zone))


class FarEast(InUtc):
    zone = timezone(timedelta(hours=10))


class Tidy(MemoryTokenStore):
    """It throws away what has been over for a minute."""

    def load(self, key: str) -> AccessToken | None:
        token = super().load(key)
        return token if token and token.expires > time.time() - 60 else None


class FirstWins(MemoryTokenStore):
    def save(self, key: str, token: AccessToken) -> None:
        if self.load(key) is None:
            super().save(key, token)


class KeepsAll(MemoryTokenStore):
    def delete(self, key: str) -> None:
        pass


class DeletedForGood(MemoryTokenStore):
    dead = False

    def delete(self, key: str) -> None:
        self.dead = True
        super().delete(key)

    def save(self, key: str, token: AccessToken) -> None:
        if not self.dead:
            super().save(key, token)


class LeavesTrace(MemoryTokenStore):
    def delete(self, key: str) -> None:
        self.save(key, token_named("deleted"))


class OneForAll(MemoryTokenStore):
    def load(self, key: str) -> AccessToken | None:
        return super().load(OTHER_KEY if key == KEY else KEY) or super().load(key)


class LatestForAll(MemoryTokenStore):
    """Each key that was ever saved has the token that was saved last."""

    latest: AccessToken | None = None

    def save(self, key: str, token: AccessToken) -> None:
        self.latest = token
        super().save(key, token)

    def load(self, key: str) -> AccessToken | None:
        return super().load(key) and self.latest


class DeletesAll(MemoryTokenStore):
    def delete(self, key: str) -> None:
        for each in (KEY, OTHER_KEY):
            super().delete(each)


class Blind(MemoryTokenStore):
    """It sees nothing of what is saved; others do."""

    def load(self, key: str) -> AccessToken | None:
        return None


class Talkative(MemoryTokenStore):
    def __repr__(self) -> str:
        token = self.load(KEY)
        return f"Talkative({token and token.value})"


class TalkativeInPrint(MemoryTokenStore):
    def __str__(self) -> str:
        token = self.load(KEY)
        return f"a store with {token and token.value}"


@pytest.mark.parametrize(
    ("broken", "failing"),
    [
        (object, "test_it_has_the_four_methods"),
        (Full, "test_what_was_never_saved_is_a_miss"),
        (Forgets, "test_a_saved_token_comes_back"),
        (Later, "test_a_saved_token_comes_back"),
        (InUtc, "test_a_saved_token_comes_back"),
        (FarEast, "test_a_saved_token_comes_back"),
        (Later, "test_an_expiry_of_any_zone_is_the_same_instant"),
        (Earlier, "test_an_expiry_of_any_zone_is_the_same_instant"),
        (Forgets, "test_an_expiry_of_any_zone_is_the_same_instant"),
        (Tidy, "test_an_expired_token_is_still_an_entry"),
        (FirstWins, "test_the_latest_save_wins"),
        (KeepsAll, "test_a_deleted_token_is_a_miss"),
        (DeletedForGood, "test_a_deleted_token_is_a_miss"),
        (LeavesTrace, "test_deleting_what_is_not_there_does_nothing"),
        (OneForAll, "test_keys_are_independent"),
        (LatestForAll, "test_keys_are_independent"),
        (DeletesAll, "test_keys_are_independent"),
        (Full, "test_a_second_view_sees_what_the_first_saved"),
        (Forgets, "test_loading_saving_and_deleting_need_no_lock_and_work_under_it"),
        (Later, "test_loading_saving_and_deleting_need_no_lock_and_work_under_it"),
        (KeepsAll, "test_loading_saving_and_deleting_need_no_lock_and_work_under_it"),
        (Full, "test_the_lock_is_no_entry"),
        (Talkative, "test_no_token_is_in_the_repr"),
        (TalkativeInPrint, "test_no_token_is_in_the_repr"),
    ],
)
def test_the_suite_finds_a_store_that_breaks_a_rule_of_entries(broken: Any, failing: str) -> None:
    run_and_fail(failing, broken())


@pytest.mark.parametrize(
    "failing",
    [
        "test_the_latest_save_wins",
        "test_a_deleted_token_is_a_miss",
        "test_a_second_view_sees_what_the_first_saved",
        "test_loading_saving_and_deleting_need_no_lock_and_work_under_it",
        "test_the_lock_keeps_the_second_view_out",
        "test_who_did_not_get_the_lock_does_not_release_it",
    ],
)
def test_the_suite_finds_two_views_that_share_nothing(failing: str) -> None:
    run_and_fail(failing, MemoryTokenStore(), MemoryTokenStore())


@pytest.mark.parametrize(
    "failing",
    ["test_the_latest_save_wins", "test_loading_saving_and_deleting_need_no_lock_and_work_under_it"],
)
def test_the_suite_finds_a_view_that_does_not_see_what_it_saves(failing: str) -> None:
    blind, other = Blind(), MemoryTokenStore()
    blind.documents = other.documents
    run_and_fail(failing, blind, other)


def test_the_suite_takes_a_store_that_is_tidy_for_one_that_knows_the_time_of_every_zone() -> None:
    for zone in (timezone.utc, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))):
        run("test_an_expiry_of_any_zone_is_the_same_instant", Tidy(), zone=zone)


def test_the_suite_tries_utc_and_a_zone_whose_distance_is_west_and_no_whole_hours() -> None:
    (mark,) = TokenStoreCompliance.test_an_expiry_of_any_zone_is_the_same_instant.pytestmark  # type: ignore[attr-defined]
    assert [zone.utcoffset(None) / timedelta(minutes=1) for zone in mark.args[1]] == [0, -210]


class HalfWritten(MemoryTokenStore):
    """The second save waits for somebody who reads; the next few let him see half an entry before the whole."""

    def __init__(self) -> None:
        super().__init__()
        self._half: AccessToken | None = None
        self._is_read = threading.Event()
        self._saves = 0

    def save(self, key: str, token: AccessToken) -> None:
        self._saves += 1
        if self._saves == 2:
            self._is_read.wait(PATIENCE)
        if 1 < self._saves < 9:
            self._is_read.clear()
            self._half = AccessToken(token.value[:9], token.expires_at)
            self._is_read.wait(0.02)
            self._half = None
        super().save(key, token)

    def load(self, key: str) -> AccessToken | None:
        found = self._half or super().load(key)
        self._is_read.set()
        return found


class SavesOnce(MemoryTokenStore):
    def save(self, key: str, token: AccessToken) -> None:
        if self.load(key) is not None:
            raise OSError("the disk is full")
        super().save(key, token)


def test_the_suite_finds_a_reader_that_sees_half_an_entry() -> None:
    run_and_fail("test_readers_never_see_half_an_entry", HalfWritten())


def test_the_suite_finds_a_writer_that_does_not_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # the writer's error is the store's
    run_and_fail("test_readers_never_see_half_an_entry", SavesOnce())


# -- the lock


class NoLock(MemoryTokenStore):
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        return nullcontext(enter_result=True)


class NeverFree(MemoryTokenStore):
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        return nullcontext(enter_result=False)


class NoSingleTry(MemoryTokenStore):
    """A timeout of 0 is none to it."""

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        if timeout == 0:
            yield False
        else:
            with super().lock(key, timeout=timeout, lease=lease) as held:
                yield held


class NeverReleased(MemoryTokenStore):
    def __init__(self) -> None:
        super().__init__()
        self._taken: list[Any] = []  # a context that is collected releases its lock

    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        self._taken.append(super().lock(key, timeout=timeout, lease=lease))
        return nullcontext(self._taken[-1].__enter__())


class AnyoneReleases(MemoryTokenStore):
    """Whoever leaves lets the next one in, be he the holder or not."""

    def __init__(self) -> None:
        super().__init__()
        self._is_taken = False

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        held, self._is_taken = not self._is_taken, True
        yield held
        self._is_taken = False


class OneLock(MemoryTokenStore):
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        return super().lock(KEY, timeout=timeout, lease=lease)


class Swallows(MemoryTokenStore):
    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        with super().lock(key, timeout=timeout, lease=lease) as held, suppress(ZeroDivisionError):
            yield held


class NoAfterWaiting(MemoryTokenStore):
    """Who had to wait gets the lock and is told that he does not have it."""

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        with super().lock(key, timeout=timeout, lease=lease) as held:
            yield held and timeout == 0


class LockIsEntry(MemoryTokenStore):
    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        with super().lock(key, timeout=timeout, lease=lease) as held:
            self.save(key, token_named("lock"))
            yield held
            self.delete(key)


class LockHarmsEntry(MemoryTokenStore):
    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        with super().lock(key, timeout=timeout, lease=lease) as held:
            yield held
            self.delete(key)


class Says(MemoryTokenStore):
    """It answers with something else than True or False, which `if held:` takes for the same."""

    yes: object = True
    no: object = False

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        with super().lock(key, timeout=timeout, lease=lease) as held:
            yield self.yes if held else self.no


class SaysOne(Says):
    yes = 1


class SaysTwo(Says):
    yes = 2


class SaysZero(Says):
    no = 0


class SaysNo(Says):
    yes = False


@pytest.mark.parametrize(
    ("broken", "failing"),
    [
        (NoLock, "test_the_lock_keeps_other_threads_out"),
        (NeverFree, "test_the_lock_keeps_other_threads_out"),
        (SaysOne, "test_the_lock_keeps_other_threads_out"),
        (SaysZero, "test_the_lock_keeps_other_threads_out"),
        (NoLock, "test_the_lock_keeps_the_second_view_out"),
        (SaysZero, "test_the_lock_keeps_the_second_view_out"),
        (NoLock, "test_only_one_at_a_time_holds_the_lock"),
        (NeverFree, "test_only_one_at_a_time_holds_the_lock"),
        (SaysNo, "test_only_one_at_a_time_holds_the_lock"),
        (NoLock, "test_the_lock_is_not_reentrant"),
        (NeverFree, "test_the_lock_is_not_reentrant"),
        (SaysOne, "test_the_lock_is_not_reentrant"),
        (SaysZero, "test_the_lock_is_not_reentrant"),
        (NoLock, "test_a_timeout_of_zero_is_one_try"),
        (NeverFree, "test_a_timeout_of_zero_is_one_try"),
        (NoSingleTry, "test_a_timeout_of_zero_is_one_try"),
        (SaysOne, "test_a_timeout_of_zero_is_one_try"),
        (SaysZero, "test_a_timeout_of_zero_is_one_try"),
        (NoLock, "test_waiting_ends_when_the_time_is_up"),
        (NoSingleTry, "test_waiting_ends_when_the_time_is_up"),
        (SaysZero, "test_waiting_ends_when_the_time_is_up"),
        (NeverFree, "test_waiting_ends_when_the_lock_is_released"),
        (NoAfterWaiting, "test_waiting_ends_when_the_lock_is_released"),
        (SaysTwo, "test_waiting_ends_when_the_lock_is_released"),
        (NoLock, "test_who_did_not_get_the_lock_does_not_release_it"),
        (AnyoneReleases, "test_who_did_not_get_the_lock_does_not_release_it"),
        (SaysZero, "test_who_did_not_get_the_lock_does_not_release_it"),
        (NeverReleased, "test_an_exception_in_the_body_comes_out_and_releases_the_lock"),
        (SaysOne, "test_an_exception_in_the_body_comes_out_and_releases_the_lock"),
        (Swallows, "test_an_exception_in_the_body_comes_out_and_releases_the_lock"),
        (Swallows, "test_an_exception_without_the_lock_comes_out_too"),
        (OneLock, "test_the_locks_of_two_keys_do_not_block_each_other"),
        (SaysTwo, "test_the_locks_of_two_keys_do_not_block_each_other"),
        (NeverReleased, "test_the_lock_can_be_taken_again_and_again"),
        (SaysOne, "test_the_lock_can_be_taken_again_and_again"),
        (LockIsEntry, "test_the_lock_is_no_entry"),
        (LockHarmsEntry, "test_the_lock_is_no_entry"),
    ],
)
def test_the_suite_finds_a_store_that_breaks_a_rule_of_the_lock(broken: type[MemoryTokenStore], failing: str) -> None:
    run_and_fail(failing, broken())


def test_the_suite_finds_a_lock_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_contract, "_MOMENT", PATIENCE)  # however slow the thread that does not wait is
    run_and_fail("test_waiting_ends_when_the_lock_is_released", NoLock())


class Lasting(MemoryTokenStore):
    """Who does not get the lock is told so after so many seconds more, and such a share of those he would wait."""

    def __init__(self, clock: FakeClock, seconds: float = 0.0, share: float = 1.0) -> None:
        super().__init__()
        self._clock, self._seconds, self._share = clock, seconds, share

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        with super().lock(key, timeout=0, lease=lease) as held:
            if not held:
                self._clock.sleep(self._seconds + timeout * self._share)
            yield held


@pytest.fixture
def suite_clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(now=0.0)
    monkeypatch.setattr(store_contract, "time", clock)
    return clock


def test_one_try_may_last_less_than_two_seconds_on_a_slow_machine(suite_clock: FakeClock) -> None:
    run("test_a_timeout_of_zero_is_one_try", Lasting(suite_clock, seconds=1.99))
    for seconds in (2.0, 3.0):
        run_and_fail("test_a_timeout_of_zero_is_one_try", Lasting(suite_clock, seconds=seconds))


def test_waiting_lasts_half_of_the_time_at_least(suite_clock: FakeClock) -> None:
    for share in (0.0, 0.49):
        suite_clock.now = 8.0
        run_and_fail("test_waiting_ends_when_the_time_is_up", Lasting(suite_clock, share=share))
    for share in (0.5, 1.0):
        suite_clock.now = 0.0
        run("test_waiting_ends_when_the_time_is_up", Lasting(suite_clock, share=share))


# -- what the suite lets pass


class Strict(MemoryTokenStore):
    """It keeps whole seconds, and takes nothing that makes no sense."""

    def save(self, key: str, token: AccessToken) -> None:
        super().save(key, AccessToken(token.value, token.expires_at.replace(microsecond=0)))

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        assert 0 <= timeout < lease
        thread = threading.current_thread()
        assert thread is threading.main_thread() or thread.daemon, "a store that blocks must not keep a run from ending"
        with super().lock(key, timeout=timeout, lease=lease) as held:
            assert held or timeout <= 0.1, "nobody likes to wait for a suite"
            yield held


class TestAStoreThatTakesItStrictly(TokenStoreCompliance):
    @pytest.fixture
    def store(self) -> TokenStore:
        return Strict()

    @pytest.fixture(autouse=True)
    def _naps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sleep = time.sleep

        def nap(seconds: float) -> None:
            assert seconds < 0.1, "nobody likes to wait for a suite"
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", nap)


def test_a_token_with_a_name_lives_a_day_unless_it_says_so() -> None:
    before = datetime.now(timezone.utc)
    token, short = token_named("mine"), token_named("mine", hours=-1)
    assert ".mine." in token.value
    with pytest.raises(TypeError):
        token_named("mine", 1)  # type: ignore[call-arg]  # hours take their name
    assert timedelta(hours=24, seconds=-1) < token.expires_at - before < timedelta(hours=24, seconds=PATIENCE)
    assert token.expires_at - short.expires_at == pytest.approx(timedelta(hours=25), abs=timedelta(seconds=PATIENCE))
