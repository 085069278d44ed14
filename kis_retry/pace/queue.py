"""
The thread that serves everybody who waits for a slot in this process.

The line belongs to that thread alone. Callers put what they want into an inbox, which takes no lock of Python's:
wherever an exception of a signal handler meets them, they leave nothing locked behind.
"""

from __future__ import annotations

import contextvars
import math
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from ..clock import Monotonic
from ..events import RefreshEvent, emit
from ..forking import after_fork
from .state import Ask, Block
from .waiting import Reservation, Ticket, WaitingLine

__all__ = ["PaceStore", "SlotQueue", "tell"]

IDLE = 1.0  # seconds that the thread waits for work before it ends

_Asks: TypeAlias = "queue.SimpleQueue[Ask | None] | None"


class PaceStore(Protocol):
    """One pace, for everybody who shares the place. Called from any thread."""

    blocks: bool
    """Whether `reserve` reads or writes a disk or the network."""

    def reserve(self, ask: Ask) -> Block:
        """Do what `PaceState.reserve` says, on what is kept here; times are of `Monotonic.now`."""


class SlotQueue:
    """
    All who wait in this process for slots of one pace.

    Args:
        store: where the pace is kept; its `reserve` raises nothing.
        rate: calls a second that the settings of this process allow.
        published: calls a second that KIS announces for such an account.
    """

    def __init__(self, store: PaceStore, rate: float, published: float) -> None:
        self._store = store
        self.line = WaitingLine(rate, published)
        self._begin()
        after_fork(self, SlotQueue._begin)

    def _begin(self) -> None:
        """Begin anew, in a child too: the parent's waiters and slots are the parent's."""
        self.line = WaitingLine(self.line.rate, self.line.published)
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._serving = threading.Lock()  # held by the thread that serves
        self._served = False  # there is such a thread, or one is being started

    def reserve(self, *, order: bool, ticket: Ticket | None, timeout: float = math.inf) -> Reservation:
        """Begin to wait for a slot."""
        ticket = Ticket() if ticket is None else ticket.renewed()
        reservation = Reservation(ticket, arrived=Monotonic.now(), order=order, timeout=timeout)
        self._inbox.put((self.line.add, reservation))
        if not self._served:
            self._start_serving(reservation)
        return reservation

    def report(self, reservation: Reservation, outcome: str) -> None:
        """Tell what became of a request."""
        self._inbox.put((self.line.report, reservation.generation, outcome, Monotonic.now()))

    def _start_serving(self, reservation: Reservation) -> None:
        """Start the thread. Two may be started, for there is no lock: a signal handler could leave it locked."""
        try:
            self._served = True
            _start(self._serve)
        except RuntimeError:  # the interpreter ends, or the system's limit is reached: the caller does it itself
            self._serve(until=reservation.future.done)
        except BaseException:  # of a signal handler
            self._served = False
            raise

    def _serve(self, until: Callable[[], bool] = lambda: False) -> None:
        with self._serving:
            if self._inbox.empty():  # another thread has served it
                return
            self._served = True
            asks = self._start_asking() if self._store.blocks else None
            try:
                while self._do_what_is_due(asks) or (not until() and self._wait()):
                    pass
            finally:
                self._served = False
                if asks is not None:
                    asks.put(None)

    def _do_what_is_due(self, asks: _Asks) -> bool:
        """Hand out slots and ask for more; return whether there may be more to do at once."""
        now = Monotonic.now()
        self.line.hand_out(now)
        ask = self.line.ask(now)
        if ask is None:
            return False
        if asks is not None:
            asks.put(ask)
            return False
        self._learn(self._store.reserve(ask), Monotonic.now())
        return True

    def _wait(self) -> bool:
        """Wait until something is due or told; return False where that took too long to go on waiting."""
        now = Monotonic.now()
        try:
            self._receive(self._inbox.get(timeout=min(max(self.line.wake_at(now) - now, 0.0), IDLE)))
        except queue.Empty:
            return not self.line.is_idle or not self._retires()
        while not self._inbox.empty():
            self._receive(self._inbox.get())
        return True

    def _receive(self, message: tuple[Any, ...]) -> None:
        function, *given = message
        function(*given)

    def _retires(self) -> bool:
        self._served = False  # before the last look: whoever puts something in looks at this afterwards
        self._served = not self._inbox.empty()
        return not self._served

    def _learn(self, block: Block, now: float) -> None:
        before = self.line.in_force
        self.line.learn(block, now)
        after = self.line.in_force
        if after != before:
            tell(emit, RefreshEvent(name="rate_lowered" if after < before else "rate_raised", rate=after))

    def _start_asking(self) -> _Asks:
        """Ask the store on a thread of its own, so that slots are handed out meanwhile."""
        asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        inbox = self._inbox

        def answer_all() -> None:
            while (ask := asks.get()) is not None:
                inbox.put((self._learn, self._store.reserve(ask), Monotonic.now()))

        try:
            _start(answer_all)
        except RuntimeError:
            return None
        return asks


def tell(function: Callable[..., object], *given: object) -> None:
    """Call `function` on a thread of its own: a log handler or a hook may take its time, or raise anything."""

    def call() -> None:
        with suppress(BaseException):
            function(*given)

    with suppress(RuntimeError):
        _start(call)


def _start(target: Callable[[], object]) -> None:
    """Start a thread that has nothing of its starter's context: no call, no protection, no token."""
    thread = threading.Thread(target=target, name="kis_retry-pace", daemon=True)
    contextvars.Context().run(thread.start)
