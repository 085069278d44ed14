"""Forked processes that cannot keep a test waiting for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from patience import until

__all__ = ["Child", "in_child"]


class Child:
    """A forked process; `ask` says in it whether all is well. One that hangs is killed by whoever waits for it."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._status: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            status = 2
            try:
                status = 0 if ask() else 1
            finally:
                os._exit(status)

    def ended_well(self) -> bool:
        """Wait for its end, and say what it said."""
        try:
            until(lambda: not self.lives())
        except AssertionError:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise
        return self._status == 0

    def lives(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is None


def in_child(ask: Callable[[], bool]) -> bool:
    """What `ask` says in a forked child."""
    return Child(ask).ended_well()
