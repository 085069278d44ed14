"""Where a token is shared by the threads of one process: `MemoryTokenStore`."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from ..token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MemoryTokenStore"]


class MemoryTokenStore:
    """
    Tokens shared by the threads of one process that hold this instance.

    For one process that needs nothing on disk, and for tests. It survives `os.fork` (the child gets a copy and fresh
    locks) and pickling (entries travel, locks are remade); after either the two no longer share.
    """

    def __init__(self) -> None:
        self._restore({})

    def load(self, key: str) -> AccessToken | None:
        """Hand back what was saved last, or None."""
        return self._entries.get(key)

    def save(self, key: str, token: AccessToken) -> None:
        """Keep `token`."""
        self._entries[key] = token

    def delete(self, key: str) -> None:
        """Forget the entry."""
        self._entries.pop(key, None)

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """Wait up to `timeout` seconds for the lock of `key` among this process's threads; `lease` means nothing."""
        lock = self._locks.setdefault(key, threading.Lock())
        held = lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        try:
            yield held
        finally:
            if held:
                lock.release()

    def __getstate__(self) -> dict[str, AccessToken]:
        return dict(self._entries)

    def __setstate__(self, entries: dict[str, AccessToken]) -> None:
        self._restore(entries)

    def __repr__(self) -> str:
        return "MemoryTokenStore()"

    def _restore(self, entries: dict[str, AccessToken]) -> None:
        self._entries = entries
        self._remake_locks()
        _memory_stores.add(self)

    def _remake_locks(self) -> None:
        self._locks: dict[str, threading.Lock] = {}


_memory_stores: WeakSet[MemoryTokenStore] = WeakSet()


def _remake_all_locks() -> None:
    for store in _memory_stores:
        store._remake_locks()  # noqa: SLF001  # of this module


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has no fork
    # The thread that held a lock at the moment of the fork does not exist in the child and would never release it.
    os.register_at_fork(after_in_child=_remake_all_locks)
