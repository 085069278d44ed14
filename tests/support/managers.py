"""What tests of tokens share: the type of their `make`, and threads that end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from kis_retry import TokenManager, TokenStore
from patience import PATIENCE

__all__ = ["Make", "ended", "started"]


class Make(Protocol):
    """Make a manager; on a machine of its own where it is given no store."""

    def __call__(self, store: TokenStore | None = None, **policy: Any) -> TokenManager: ...


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
