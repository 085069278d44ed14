"""
The contract of `TokenStore` as tests, for the stores of this package and for one of your own.

Nothing but a fixture is needed; pytest finds the tests through the base class:

    import pytest
    from kis_retry.testing import TokenStoreCompliance

    class TestMyStore(TokenStoreCompliance):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path / "tokens.db")

        @pytest.fixture
        def second_store(self, store, tmp_path):  # as another process would open it; may be left out
            return MyStore(tmp_path / "tokens.db")

Where entries live outside of the process, inherit `kis_retry.testing.DamagedEntryCompliance` as well.
"""

# ruff: noqa: S101 - asserts are what a test suite is made of

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ..stores.base import TokenStore
from ..token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["KEY", "OTHER_KEY", "TokenStoreCompliance", "TwoViews", "token_named"]

KEY = "0123456789abcdef0123456789abcdef"
OTHER_KEY = "fedcba9876543210fedcba9876543210"
_SEOUL = timezone(timedelta(hours=9))
_LEASE = 60.0  # seconds; no test here lasts as long
_MOMENT = 0.05  # seconds; how long somebody waits for a lock that is not let go
_PATIENCE = 30.0  # seconds; how long something that must happen may take before it counts as not happening


def token_named(name: str, *, hours: float = 24) -> AccessToken:
    """A token with `name` in it, for a test."""
    expires_at = datetime.now(_SEOUL).replace(microsecond=0) + timedelta(hours=hours)
    return AccessToken(f"eyJ0eXAi.{name}.c2ln", expires_at)


def _one_try(store: TokenStore, key: str = KEY) -> AbstractContextManager[bool]:
    return store.lock(key, timeout=0, lease=_LEASE)


def _runs(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


class TwoViews:
    """A fixture `second_store` may give another view of the same place; without one it is the same object."""

    @pytest.fixture
    def second_store(self, store: TokenStore) -> TokenStore:
        """Another view of what `store` looks at."""
        return store


class TokenStoreCompliance(TwoViews):
    """What every `TokenStore` must do. A subclass has a fixture `store`, new and empty for each test."""

    def test_it_has_the_four_methods(self, store: TokenStore) -> None:
        """`load`, `save`, `delete` and `lock`."""
        assert isinstance(store, TokenStore), "load, save, delete and lock are what makes a TokenStore"

    def test_what_was_never_saved_is_a_miss(self, store: TokenStore) -> None:
        """None, and no exception."""
        assert store.load(KEY) is None

    def test_a_saved_token_comes_back(self, store: TokenStore) -> None:
        """Value, expiry to the second, and the zone it was given in."""
        token = token_named("saved")
        store.save(KEY, token)
        loaded = store.load(KEY)
        assert loaded == token, "value or expiry changed on the way"
        assert loaded.expires_at.utcoffset() == timedelta(hours=9), "the expiry lost its zone"

    @pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=-3, minutes=-30))], ids=["utc", "west"])
    def test_an_expiry_of_any_zone_is_the_same_instant(self, store: TokenStore, zone: timezone) -> None:
        """A store may not take a stamp for local time."""
        token = AccessToken("abc", token_named("abc").expires_at.astimezone(zone))
        store.save(KEY, token)
        loaded = store.load(KEY)
        assert loaded is not None
        assert loaded.expires == token.expires, "the instant moved"

    def test_an_expired_token_is_still_an_entry(self, store: TokenStore) -> None:
        """Whether it is too old is for the manager to say: it compares it with the one that was refused."""
        token = token_named("expired", hours=-1)
        store.save(KEY, token)
        assert store.load(KEY) == token

    def test_the_latest_save_wins(self, store: TokenStore, second_store: TokenStore) -> None:
        """Also over an entry that another view wrote, and where the newer one is shorter."""
        store.save(KEY, token_named("a-rather-long-first-one"))
        second_store.save(KEY, token_named("second"))
        latest = token_named("3")
        store.save(KEY, latest)
        assert store.load(KEY) == latest
        assert second_store.load(KEY) == latest

    def test_a_deleted_token_is_a_miss(self, store: TokenStore, second_store: TokenStore) -> None:
        """In every view, and it can be saved again."""
        store.save(KEY, token_named("deleted"))
        second_store.delete(KEY)
        assert store.load(KEY) is None
        again = token_named("again")
        store.save(KEY, again)
        assert second_store.load(KEY) == again

    def test_deleting_what_is_not_there_does_nothing(self, store: TokenStore) -> None:
        """Two processes may revoke the same token."""
        store.delete(KEY)
        store.delete(KEY)
        assert store.load(KEY) is None

    def test_keys_are_independent(self, store: TokenStore) -> None:
        """Real and paper trading, and two accounts, live side by side."""
        first, second = token_named("first"), token_named("second")
        store.save(KEY, first)
        assert store.load(OTHER_KEY) is None
        store.save(OTHER_KEY, second)
        assert (store.load(KEY), store.load(OTHER_KEY)) == (first, second)
        store.delete(KEY)
        assert store.load(OTHER_KEY) == second

    def test_a_second_view_sees_what_the_first_saved(self, store: TokenStore, second_store: TokenStore) -> None:
        """At once: the one that waited for the lock looks into the store next."""
        assert second_store.load(KEY) is None
        token = token_named("shared")
        store.save(KEY, token)
        assert second_store.load(KEY) == token

    def test_readers_never_see_half_an_entry(self, store: TokenStore, second_store: TokenStore) -> None:
        """While one writes, the others see the token before or the token after."""
        short, long = tokens = [token_named("short"), token_named("long-" + KEY + OTHER_KEY)]
        store.save(KEY, short)
        done = threading.Event()

        def write() -> None:
            for token in [long, short] * 25:
                store.save(KEY, token)
            done.set()

        writer = _runs(write)
        seen = [second_store.load(KEY)]
        while not done.is_set() and writer.is_alive():
            seen.append(second_store.load(KEY))
        writer.join(_PATIENCE)
        assert done.is_set(), "the writer did not get through"
        assert all(token in tokens for token in seen)

    def test_the_lock_keeps_other_threads_out(self, store: TokenStore) -> None:
        """The rest of the process waits for the one that refreshes."""
        assert self._held_meanwhile(store, store) is False

    def test_the_lock_keeps_the_second_view_out(self, store: TokenStore, second_store: TokenStore) -> None:
        """And so do the other processes, in either direction."""
        for holder, other in ((store, second_store), (second_store, store)):
            assert self._held_meanwhile(holder, other) is False

    def test_only_one_at_a_time_holds_the_lock(self, store: TokenStore, second_store: TokenStore) -> None:
        """Each of a crowd gets it in the end, and none while another has it."""
        inside: list[int] = []
        crowds: list[tuple[int, bool]] = []
        views = [store, second_store] * 3
        start = threading.Barrier(len(views))

        def enter(view: TokenStore, number: int) -> None:
            start.wait(_PATIENCE)
            with view.lock(KEY, timeout=_PATIENCE, lease=_LEASE) as held:
                inside.append(number)
                time.sleep(0.005)
                crowds.append((len(inside), held))
                inside.remove(number)

        threads = [_runs(partial(enter, view, number)) for number, view in enumerate(views)]
        for thread in threads:
            thread.join(_PATIENCE)
        assert crowds == [(1, True)] * len(views)

    def test_the_lock_is_not_reentrant(self, store: TokenStore) -> None:
        """The holder itself does not get it twice, and is not blocked for ever either."""
        with _one_try(store) as held:
            assert held is True
            with _one_try(store) as again:
                assert again is False

    def test_a_timeout_of_zero_is_one_try(self, store: TokenStore, second_store: TokenStore) -> None:
        """True where the lock is free; where it is not, False at once and no exception."""
        with _one_try(store) as held:
            assert held is True
            begin = time.monotonic()
            with _one_try(second_store) as late:
                assert late is False
            assert time.monotonic() - begin < 2, "a timeout of 0 must not wait"

    def test_waiting_ends_when_the_time_is_up(self, store: TokenStore, second_store: TokenStore) -> None:
        """With False, and no exception."""
        begin = time.monotonic()
        with (
            _one_try(store),
            second_store.lock(KEY, timeout=2 * _MOMENT, lease=_LEASE) as late,
        ):
            assert late is False
        assert time.monotonic() - begin >= _MOMENT, "it did not wait at all"

    def test_waiting_ends_when_the_lock_is_released(self, store: TokenStore, second_store: TokenStore) -> None:
        """Those who wait get it long before their time is up."""
        outcome: list[bool] = []

        def wait() -> None:
            with second_store.lock(KEY, timeout=_PATIENCE, lease=_LEASE) as held:
                outcome.append(held)

        with _one_try(store):
            waiter = _runs(wait)
            waiter.join(_MOMENT)
            assert waiter.is_alive(), "the waiter did not wait for the holder"
        waiter.join(_PATIENCE)
        assert outcome == [True]

    def test_who_did_not_get_the_lock_does_not_release_it(self, store: TokenStore, second_store: TokenStore) -> None:
        """Only its holder does."""
        with _one_try(store):
            for view in (second_store, store, second_store):
                with _one_try(view) as late:
                    assert late is False

    def test_an_exception_in_the_body_comes_out_and_releases_the_lock(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """A refresh that failed must not block the next one."""
        with pytest.raises(ZeroDivisionError), _one_try(store):
            raise ZeroDivisionError
        with _one_try(second_store) as held:
            assert held is True

    def test_an_exception_without_the_lock_comes_out_too(self, store: TokenStore, second_store: TokenStore) -> None:
        """The body runs with False, and what it raises is its own."""
        with (
            _one_try(store),
            pytest.raises(ZeroDivisionError),
            _one_try(second_store),
        ):
            raise ZeroDivisionError

    def test_the_locks_of_two_keys_do_not_block_each_other(self, store: TokenStore, second_store: TokenStore) -> None:
        """One account's refresh is nothing to the other's."""
        with (
            _one_try(store) as one,
            _one_try(second_store, OTHER_KEY) as other,
        ):
            assert (one, other) == (True, True)

    def test_the_lock_can_be_taken_again_and_again(self, store: TokenStore, second_store: TokenStore) -> None:
        """A token lives a day, a batch longer."""
        for view in (store, second_store, second_store, store):
            with _one_try(view) as held:
                assert held is True

    def test_loading_saving_and_deleting_need_no_lock_and_work_under_it(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """The refresh saves under the lock; the others go on reading."""
        token = token_named("under-lock")
        with _one_try(store):
            store.save(KEY, token)
            assert store.load(KEY) == second_store.load(KEY) == token
            second_store.delete(KEY)
            assert store.load(KEY) is None

    def test_the_lock_is_no_entry(self, store: TokenStore) -> None:
        """Taking it neither makes an entry nor harms one."""
        with _one_try(store):
            assert store.load(KEY) is None
        token = token_named("kept")
        store.save(KEY, token)
        with _one_try(store):
            pass
        assert store.load(KEY) == token

    def test_no_token_is_in_the_repr(self, store: TokenStore) -> None:
        """A repr ends up in logs."""
        token = token_named("in-repr")
        store.save(KEY, token)
        store.load(KEY)
        assert token.value not in repr(store) + str(store)

    @staticmethod
    def _held_meanwhile(holder: TokenStore, other: TokenStore) -> bool:
        """Whether another thread gets the lock through `other` while `holder` has it."""
        outcome: list[bool] = []

        def attempt() -> None:
            with other.lock(KEY, timeout=_MOMENT, lease=_LEASE) as held:
                outcome.append(held)

        with _one_try(holder) as held:
            assert held is True, "the lock was not free to begin with"
            _runs(attempt).join(_PATIENCE)
        assert outcome, "the other thread got no answer"
        return outcome.pop()
