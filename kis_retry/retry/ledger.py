"""Where a pace is kept (`Ledger`), and one in memory; those that processes share are in `shared_ledger`."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .pace import Grant, PaceState
    from .tally import Tally

__all__ = ["Ledger", "MemoryLedger"]


class Ledger(Protocol):
    """One pace. `take` is what `PaceState.take` says, on what is kept here; it is called from any thread."""

    blocks: bool
    """Whether `take` reads or writes a disk or the network."""

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        """Take the next slot; its time is of `time.monotonic`."""

    def after_fork(self) -> None:
        """Make again, in a child, what a thread of the parent may have held."""


class MemoryLedger:
    """For one process."""

    blocks = False

    def __init__(self) -> None:
        self._state: PaceState | None = None
        self._lock = threading.Lock()  # guards _state

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        """Take the next slot."""
        with self._lock:
            now = time.monotonic()
            if self._state is None or not self._state.usable(now):
                from .pace import PaceState  # late: a process whose calls go well without a pace does without

                self._state = PaceState()
            return self._state.take(tally, now, rate, limit)

    def after_fork(self) -> None:
        """Make the lock again."""
        self._lock = threading.Lock()
