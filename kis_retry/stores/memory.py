"""Where a token is shared by the threads of one process: `MemoryTokenStore`."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..forking import after_fork
from .documents import DocumentTokenStore

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MemoryTokenStore"]

_Name = tuple[str, str]


class MemoryTokenStore(DocumentTokenStore):
    """
    Tokens shared by the threads of one process that hold this instance.

    For one process that needs nothing on disk, and for tests. It survives `os.fork` (the child gets a copy and fresh
    locks) and pickling (entries travel, locks are remade); after either the two no longer share.
    """

    def __init__(self) -> None:
        super().__init__(MemoryDocuments())

    def __repr__(self) -> str:
        return "MemoryTokenStore()"


class MemoryDocuments:
    """Documents in a dict; `ttl` and `lease` mean nothing here."""

    def __init__(self) -> None:
        self._restore({})

    def read(self, key: str, kind: str) -> bytes | None:
        """Hand back what was written last, or None."""
        return self._documents.get((key, kind))

    def write(self, key: str, kind: str, data: bytes, ttl: float | None) -> None:
        """Keep `data`."""
        self._documents[key, kind] = data

    def delete(self, key: str, kind: str) -> None:
        """Forget the document."""
        self._documents.pop((key, kind), None)

    @contextmanager
    def lock(self, key: str, kind: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """Wait up to `timeout` seconds for the lock of `key` and `kind` among this process's threads."""
        lock = self._locks.setdefault((key, kind), threading.Lock())
        held = lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        try:
            yield held
        finally:
            if held:
                lock.release()

    def __getstate__(self) -> dict[_Name, bytes]:
        return dict(self._documents)

    def __setstate__(self, documents: dict[_Name, bytes]) -> None:
        self._restore(documents)

    def _restore(self, documents: dict[_Name, bytes]) -> None:
        self._documents = documents
        self._remake_locks()
        # The thread that held a lock at the moment of a fork does not exist in the child and would never release it.
        after_fork(self, MemoryDocuments._remake_locks)

    def _remake_locks(self) -> None:
        self._locks: dict[_Name, threading.Lock] = {}
