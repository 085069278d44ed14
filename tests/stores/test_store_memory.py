"""`MemoryTokenStore`: copies of it, and forks."""

from __future__ import annotations

import copy
import pickle
import threading
from datetime import datetime, timezone

import pytest

from children import Child
from kis_retry import AccessToken, MemoryTokenStore
from patience import PATIENCE

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = AccessToken("eyJ0eXAi.abc.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))


def is_free(store: MemoryTokenStore) -> bool:
    with store.lock(KEY, timeout=0, lease=1) as held:
        return held


def test_a_copy_has_the_entries_and_locks_of_its_own() -> None:
    store = MemoryTokenStore()
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=1):
        for copied in (pickle.loads(pickle.dumps(store)), copy.copy(store), copy.deepcopy(store)):
            assert copied.load(KEY) == TOKEN
            assert is_free(copied)
            copied.delete(KEY)
    assert store.load(KEY) == TOKEN
    assert pickle.loads(pickle.dumps(MemoryTokenStore())).load(KEY) is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, of a fork beside threads: that is the test
@pytest.mark.parametrize("copied", [False, True], ids=["made", "unpickled"])
def test_a_lock_held_by_another_thread_at_the_fork_does_not_block_the_child(copied: bool) -> None:
    store = pickle.loads(pickle.dumps(MemoryTokenStore())) if copied else MemoryTokenStore()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock(KEY, timeout=0, lease=1):
            held.set()
            done.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    child = Child(lambda: is_free(store))
    still_held = not is_free(store)
    done.set()
    holder.join(PATIENCE)
    assert child.ended_well()
    assert still_held
