"""Paces that processes share: in a file, or on a Redis server; and what happens when the store fails."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ..stores.documents import documents_of
from ..stores.entry import warn_unavailable
from ..stores.folder import FileDocuments
from ..stores.redis_documents import RedisDocuments
from .ledger import MemoryLedger
from .pace import PaceState

if TYPE_CHECKING:
    from ..stores.base import TokenStore
    from .ledger import Ledger
    from .pace import Grant
    from .tally import Tally

__all__ = ["FileLedger", "SharedLedger", "ledger_of"]

KIND = "pace"

_LOCK_WAIT = 0.5  # seconds; the lock is held for a tenth of a millisecond
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds without the store after it failed: each try may take its time-out
_APART = 0.9  # of an interval: a server's clock is only known to the half of a round trip


class FileLedger:
    """
    For the processes of one machine: a document beside the token, read and written under its lock.

    They share the machine's monotonic clock, which no setting of the time moves. After a reboot it begins anew, and
    what was written before counts no more.
    """

    blocks = True

    def __init__(self, documents: FileDocuments, key: str) -> None:
        self._documents = documents
        self._key = key

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        """
        Take the next slot.

        Raises:
            OSError: the folder cannot be read or written, or somebody sits on the lock.
        """
        with self._documents.lock(self._key, KIND, timeout=_LOCK_WAIT, lease=_LOCK_WAIT) as held:
            if not held:
                raise TimeoutError("the lock of the pace is held by somebody who does not let it go")
            now = time.monotonic()
            state = PaceState.decode(self._documents.read(self._key, KIND), now)
            grant = state.take(tally, now, rate, limit)
            self._documents.overwrite(self._key, KIND, state.encode())
            return grant

    def after_fork(self) -> None:
        """Nothing is held between two calls."""


class SharedLedger:
    """A ledger in a store, and one in memory for as long as the store fails: then each process paces itself."""

    def __init__(self, shared: Ledger, store: TokenStore) -> None:
        self.blocks = shared.blocks
        self._shared = shared
        self._own = MemoryLedger()
        self._store = store
        self._last = float("-inf")
        self._pause = 0.0
        self._again_at = 0.0

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        """Take the next slot, in the store where it works; never beside this process's own last one."""
        grant = self._take(tally, rate, limit)
        if not grant.slot:
            return grant
        # Machines with a folder in common have no clock in common, and a store that comes back knows of no slots since.
        earliest = self._last + _APART * grant.interval
        self._last = max(grant.at, earliest)
        return grant if grant.at >= earliest else replace(grant, at=earliest)

    def _take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        if time.monotonic() >= self._again_at:
            try:
                grant = self._shared.take(tally, rate, limit)
            except Exception as error:  # any engine, any fault: a store never costs a call
                self._failed(error)
            else:
                self._pause = 0.0
                return grant
        return self._own.take(tally, rate, limit)

    def after_fork(self) -> None:
        """Make again what either holds."""
        self._shared.after_fork()
        self._own.after_fork()

    def _failed(self, error: Exception) -> None:
        if not self._pause:
            warn_unavailable(self._store, KIND, error)
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._again_at = time.monotonic() + self._pause


def ledger_of(store: TokenStore, key: str) -> Ledger:
    """Where `store` keeps the pace of `key`; in memory, with a warning, where it is somebody else's store."""
    documents = documents_of(store)
    if isinstance(documents, FileDocuments):
        return SharedLedger(FileLedger(documents, key), store)
    if isinstance(documents, RedisDocuments):
        from .redis_ledger import RedisLedger

        return SharedLedger(RedisLedger(documents, key), store)
    if documents is None:
        warn_unavailable(store, KIND, "it keeps tokens alone")
    return MemoryLedger()
