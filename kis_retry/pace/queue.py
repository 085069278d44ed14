"""
The thread that serves everybody who waits for a slot in this process: `SlotQueue`.

The line and its slots belong to that thread alone. Callers put what they want into an inbox, which takes no lock of
Python's: wherever an exception of a signal handler meets them, they leave nothing locked behind.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..events import RefreshEvent, emit
from ..forking import after_fork
from .shared import monotonic
from .waiting import Reservation, Ticket, WaitingLine

if TYPE_CHECKING:
    from .shared import PaceStore
    from .state import Ask

__all__ = ["SlotQueue"]

IDLE = 2.0  # seconds that the thread waits for work before it ends


class SlotQueue:
    """
    All who wait in this process for slots of one pace.

    Args:
        store: where the pace is kept.
        rate: calls a second that the settings of this process allow.
        published: calls a second that KIS announces for such an account.
    """

    def __init__(self, store: PaceStore, rate: float, published: float) -> None:
        self._store = store
        self._rate, self._published = rate, published
        self._begin()
        after_fork(self, SlotQueue._begin)

    def _begin(self) -> None:
        """Begin anew in a child: the parent's waiters and slots are the parent's."""
        self._line = WaitingLine(self._rate, self._published)
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._starting = threading.Lock()  # guards the start of a thread
        self._serving = threading.Lock()  # held by the thread that serves
        self._served = False  # there is such a thread, or one is being started

    @property
    def in_force(self) -> float:
        """Calls a second that this process may send as far as it knows."""
        return self._line.in_force

    @property
    def is_away(self) -> bool:
        """Whether nothing gets through to KIS, as far as this process knows."""
        return self._line.away

    def reserve(
        self, *, order: bool = False, ticket: Ticket | None = None, timeout: float | None = None
    ) -> Reservation:
        """Begin to wait for a slot."""
        now = monotonic()
        ticket = Ticket(now) if ticket is None else ticket.renewed(now)
        reservation = Reservation(ticket, arrived=now, order=order, timeout=timeout)
        self._inbox.put((self._line.add, reservation))
        if not self._served:
            self._start_serving(reservation)
        return reservation

    def report(self, reservation: Reservation, outcome: str) -> None:
        """Tell what became of a request."""
        self._inbox.put((self._line.report, reservation.generation, outcome, monotonic()))

    def _start_serving(self, reservation: Reservation) -> None:
        with self._starting:
            if self._served:
                return
            self._served = True
            try:
                _start(self._serve)
            except RuntimeError:  # the interpreter ends, or the system's limit is reached: the caller does it itself
                self._serve(until=reservation)
            except BaseException:  # of a signal handler
                self._served = False
                raise

    def _serve(self, until: Reservation | None = None) -> None:
        with self._serving:  # two may have been started where a signal handler's exception met the first start
            self._served = True
            asks = self._start_asking() if self._store.blocks and until is None else None
            try:
                while (until is None or not until.future.done()) and self._serve_once(asks):
                    pass
            finally:
                self._served = False
                if asks is not None:
                    asks.put(None)

    def _serve_once(self, asks: queue.SimpleQueue[Ask | None] | None) -> bool:
        """Do what is due and wait for more; return False where nothing came for long."""
        now = monotonic()
        self._line.hand_out(now)
        ask = self._line.ask(now)
        if ask is not None and asks is not None:
            asks.put(ask)
        elif ask is not None:
            self._learn(self._store.reserve(ask), monotonic())
            return True
        wake = self._line.wake_at() - now
        with suppress(queue.Empty):
            receive, *given = self._inbox.get(timeout=min(max(wake, 0.0), IDLE))
            receive(*given)
            return True
        return wake <= IDLE or not self._retires()

    def _retires(self) -> bool:
        self._served = False  # before the last look: who puts something in looks at this afterwards
        if self._inbox.empty():
            return True
        self._served = True
        return False

    def _learn(self, block: Any, now: float) -> None:
        before = self._line.in_force
        self._line.learn(block, now)
        after = self._line.in_force
        if after != before:
            _tell(emit, RefreshEvent(name="rate_lowered" if after < before else "rate_raised", rate=after))

    def _start_asking(self) -> queue.SimpleQueue[Ask | None] | None:
        """Ask the store beside serving: what it has handed out becomes due meanwhile."""
        asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        inbox = self._inbox

        def answer_all() -> None:
            while (ask := asks.get()) is not None:
                block = self._store.reserve(ask)
                inbox.put((self._learn, block, monotonic()))

        try:
            _start(answer_all)
        except RuntimeError:
            return None
        return asks


def _start(target: Callable[..., object], *given: object) -> None:
    """Start a thread that carries nothing of its starter's: no call, no protection, no token."""
    thread = threading.Thread(target=target, args=given, name="kis_retry-pace", daemon=True)
    contextvars.Context().run(thread.start)


def _tell(function: Callable[..., object], *given: object) -> None:
    """Tell on a thread of its own: a log handler or a hook may take its time, or raise anything."""

    def tell() -> None:
        with suppress(BaseException):
            function(*given)

    with suppress(RuntimeError):
        _start(tell)
