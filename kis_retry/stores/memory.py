"""Where a token is shared by the threads of one process: `MemoryTokenStore`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..forking import after_fork
from .base import TOKEN, DocumentStore

__all__ = ["PROCESS_MEMORY", "MemoryTokenStore"]


class MemoryTokenStore(DocumentStore):
    """
    Tokens shared by the threads of one process that hold this instance.

    After `os.fork` and pickling there are two stores, with the same entries and locks of their own.
    """

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], bytes] = {}
        self._remake_locks()
        # The thread that held a lock at the moment of a fork does not exist in the child and would never release it.
        after_fork(self, MemoryTokenStore._remake_locks)

    def read(self, key: str, kind: str) -> bytes | None:
        return self._documents.get((key, kind))

    def write(self, key: str, kind: str, data: bytes, ttl: float | None) -> None:
        self._documents[key, kind] = data

    def delete(self, key: str, kind: str = TOKEN) -> None:
        self._documents.pop((key, kind), None)

    @contextmanager
    def lock(self, key: str, kind: str = TOKEN, *, timeout: float, lease: float) -> Iterator[bool]:
        lock = self._locks.setdefault((key, kind), threading.Lock())
        held = lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        try:
            yield held
        finally:
            if held:
                lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryTokenStore, (), dict(self._documents)

    def __setstate__(self, documents: dict[tuple[str, str], bytes]) -> None:
        self._documents.update(documents)

    def __repr__(self) -> str:
        return "MemoryTokenStore()"

    def _remake_locks(self) -> None:
        self._locks: dict[tuple[str, str], threading.Lock] = {}


PROCESS_MEMORY = MemoryTokenStore()
"""One for all: two clients that were both told `memory` must not issue twice within the minute."""
