"""What tests of tokens share: the type of their `make`, threads that end, and a store whose lock a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kis_retry import AccessToken, MemoryTokenStore, TokenManager, TokenStore
from patience import PATIENCE

__all__ = ["LockedStore", "Make", "ended", "started"]


class Make(Protocol):
    """Make a manager; on a machine of its own where it is given no store."""

    def __call__(self, store: TokenStore | None = None, **policy: Any) -> TokenManager: ...


class LockedStore(MemoryTokenStore):
    """A store whose lock answers what a test says (None: it raises), and that counts what is read."""

    def __init__(self, held: bool | None) -> None:
        super().__init__()
        self.held = held
        self.loads = 0

    def load(self, key: str) -> AccessToken | None:
        self.loads += 1
        return super().load(key)

    @contextmanager
    def lock(self, key: str, kind: str = "", *, timeout: float, lease: float) -> Iterator[bool]:
        if self.held is None:
            raise OSError("no locks here")
        yield self.held


def started(number: int, work: Callable[[], object]) -> list[threading.Thread]:
    """Have so many threads do the work."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def ended(threads: list[threading.Thread]) -> None:
    """Wait until they are done."""
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
