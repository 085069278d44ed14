"""
The thread that serves everybody who waits for a slot in this process.

The line belongs to that thread alone. Callers put what they want into an inbox, which takes no lock of Python's:
wherever an exception of a signal handler meets them, they leave nothing locked behind.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from ..clock import Monotonic
from ..events import RefreshEvent, emit
from ..forking import after_fork
from .state import Ask, Block
from .waiting import Reservation, WaitingLine

__all__ = ["PaceStore", "SlotQueue", "tell"]

IDLE = 1.0  # seconds that the thread waits for work before it ends


class PaceStore(Protocol):
    """One pace, for everybody who shares the place. Called from any thread; raises nothing."""

    blocks: bool
    """Whether `reserve` reads or writes a disk or the network."""

    def reserve(self, ask: Ask) -> Block:
        """Do what `PaceState.reserve` says, on what is kept here; times are of `Monotonic.now`."""


class SlotQueue:
    """All who wait in this process for slots of one pace, at a `rate` that is set where KIS has `published` another."""

    def __init__(self, store: PaceStore, rate: float, published: float) -> None:
        self._store, self._rates = store, (rate, published)
        self._begin()
        after_fork(self, SlotQueue._begin)

    def _begin(self) -> None:
        """Begin anew, in a child too: the parent's waiters and slots are the parent's."""
        self.line = WaitingLine(*self._rates)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._serving = threading.Lock()  # held by the thread that serves
        self._served = False  # there is such a thread, or one is being started

    def reserve(self, reservation: Reservation) -> Reservation:
        """Begin to wait for a slot."""
        self._inbox.put(partial(self.line.add, reservation))
        if not self._served:
            # Two may be started, for there is no lock: a signal handler could leave it locked.
            try:
                self._served = True
                _start(self._serve)
            except RuntimeError:  # the interpreter ends, or the system's limit is reached: the caller does it itself
                self._serve(until=reservation.done)
            except BaseException:  # of a signal handler
                self._served = False
                raise
        return reservation

    def report(self, reservation: Reservation, outcome: str) -> None:
        """Tell what became of a request."""
        self._inbox.put(partial(self.line.report, reservation.generation, outcome, Monotonic.now()))

    def _serve(self, until: Callable[[], bool] = lambda: False) -> None:
        with self._serving:
            if self._inbox.empty():  # another thread has served it
                return
            self._served = True
            try:
                while self._do_what_is_due() or (not until() and self._wait()):
                    pass
            finally:
                self._served = False

    def _do_what_is_due(self) -> bool:
        """Hand out slots and ask for more; return whether there may be more to do at once."""
        now = Monotonic.now()
        self.line.hand_out(now)
        ask = self.line.ask(now)
        if ask is None:
            return False
        if self._store.blocks:  # slots are handed out meanwhile
            inbox = self._inbox
            with suppress(RuntimeError):
                _start(lambda: inbox.put(partial(self._learn, self._store.reserve(ask), Monotonic.now())))
                return False
        self._learn(self._store.reserve(ask), Monotonic.now())
        return True

    def _wait(self) -> bool:
        """Wait until something is due or told; return False where that took too long to go on waiting."""
        now = Monotonic.now()
        try:
            self._inbox.get(timeout=min(max(self.line.wake_at(now) - now, 0.0), IDLE))()
        except queue.Empty:
            if not self.line.is_idle:
                return True
            self._served = False  # before the last look: whoever puts something in looks at this afterwards
            self._served = not self._inbox.empty()
            return self._served
        while not self._inbox.empty():
            self._inbox.get()()
        return True

    def _learn(self, block: Block, now: float) -> None:
        before = self.line.in_force
        self.line.learn(block, now)
        after = self.line.in_force
        if after != before:
            tell(emit, RefreshEvent(name="rate_lowered" if after < before else "rate_raised", rate=after))


def tell(function: Callable[..., object], *given: object) -> None:
    """Call `function` on a thread of its own: a log handler or a hook may take its time, or raise anything."""

    def call() -> None:
        with suppress(BaseException):
            function(*given)

    with suppress(RuntimeError):
        _start(call)


def _start(target: Callable[[], Any]) -> None:
    """Start a thread that has nothing of its starter's context: no call, no protection, no token."""
    thread = threading.Thread(target=target, name="kis_retry-pace", daemon=True)
    contextvars.Context().run(thread.start)
