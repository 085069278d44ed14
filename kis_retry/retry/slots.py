"""
Who waits for a slot in this process, and in which order: threads and tasks in one queue.

One thread takes the slots for all of them, one at a time and no further ahead than the next, and sleeps until it is
due. So a process that dies costs the others one slot, and no task occupies a thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from ..events import RefreshEvent, emit
from .reports import Reports

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .ledger import Ledger
    from .pace import Grant

__all__ = ["SlotQueue"]

_AT_ONCE = 0.0005  # seconds: less than a sleep is exact to
_SLICE = 0.1  # seconds that the thread sleeps at most before it looks whether a probe got through
_PARKED = 2.0  # seconds that the thread waits for work before it ends
_ROUND_TRIP = 0.05  # seconds that a task waits at least, since even a free slot is told by the thread


class _Waiter:
    """One thread or task. `grant` is its slot once it has one, `gone` that it waits no longer; both under the lock."""

    def __init__(self, wake: Callable[[], object], timeout: float | None) -> None:
        self.wake = wake
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.grant: Grant | None = None
        self.gone = False


class _NoThreadError(RuntimeError):
    """The thread cannot be started: the interpreter ends, or the system's limit is reached."""


class SlotQueue:
    """
    The slots of one pace for this process, and what became of its calls.

    Args:
        ledger: where the pace is kept.
        rate: calls a second; 0: no pace, only outages.
    """

    def __init__(self, ledger: Ledger, rate: float) -> None:
        self.rate = self.in_force = rate
        self._ledger = ledger
        self._begin()

    def _begin(self) -> None:
        self.reports = Reports()
        self._lock = threading.Lock()  # guards the rest; the ledger is never asked under it
        self._waiters: deque[_Waiter] = deque()
        self._busy = False  # somebody is asking the ledger, or is about to; who comes now waits behind
        self._unused: Grant | None = None  # a slot whose waiter has gone
        self._thread: threading.Thread | None = None
        self._work = threading.Semaphore(0)

    def after_fork(self) -> None:
        """Begin anew in a child: the parent's waiters, slots and reports are the parent's."""
        self._ledger.after_fork()
        self._begin()

    @property
    def is_away(self) -> bool:
        """Whether this is an outage, as far as this process knows."""
        return self.reports.away

    @property
    def seconds_waited(self) -> float:
        """How long threads and tasks have waited for slots, all together."""
        return self.reports.seconds_waited

    # Waiting.

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for a slot, `timeout` seconds at most; say whether there was one."""
        if not self.rate and not self.reports.trouble:
            return True
        woken = threading.Lock()
        woken.acquire()
        waiter = _Waiter(woken.release, timeout)
        try:
            if not self._enter(waiter, ask_here=True):
                with self.reports.waiting():
                    _wait(woken, waiter.deadline)
        except _NoThreadError:
            self._serve_alone(waiter)
        except BaseException:  # Ctrl-C
            self._abandon(waiter)
            raise
        return self._served(waiter)

    async def acquire_async(self, timeout: float | None = None) -> bool:
        """Wait for a slot as a task; only a ledger in memory is asked on the loop's own thread."""
        if not self.rate and not self.reports.trouble:
            return True
        import asyncio  # late: a third of the import, and only coroutine functions need it

        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        waiter = _Waiter(lambda: loop.call_soon_threadsafe(_settle, woken), timeout)
        try:
            if not self._enter(waiter, ask_here=not self._ledger.blocks):
                with self.reports.waiting():
                    await asyncio.wait([woken], timeout=None if timeout is None else max(timeout, _ROUND_TRIP))
        except BaseException as error:  # cancelled
            self._abandon(waiter, alone=isinstance(error, _NoThreadError))
            raise
        return self._served(waiter)

    def report(self, outcome: str) -> None:
        """Count what became of a call."""
        if self.rate or self.reports.trouble or outcome == "failed":
            self.reports.add(outcome)

    def _enter(self, waiter: _Waiter, *, ask_here: bool) -> bool:
        """Ask the ledger in this thread if nobody is before `waiter`, else enqueue it; say whether it is settled."""
        with self._lock:
            if self._busy or not ask_here:
                waiter.gone = ask_here and waiter.deadline is not None and waiter.deadline <= time.monotonic()
                if not waiter.gone:
                    self._waiters.append(waiter)
                if not self._busy:
                    self._go_on()
                return waiter.gone
            self._busy = True
        grant = None
        try:
            grant = self._take_first(waiter)
        finally:
            self._settle_first(waiter, grant)
        return waiter.gone or waiter.grant is not None

    def _take_first(self, waiter: _Waiter) -> Grant:
        with self._lock:
            grant, self._unused = self._usable(self._unused), None
        return grant or self._take(waiter)

    def _settle_first(self, waiter: _Waiter, grant: Grant | None) -> None:
        with self._lock:
            if grant is not None and grant.slot and grant.at - time.monotonic() <= _AT_ONCE:
                waiter.grant = grant
            elif grant is None or (not grant.slot and _too_late(waiter, grant)):
                waiter.gone = True
            else:  # the thread sees to it, and to this waiter first
                self._unused = grant if grant.slot else None
                self._waiters.appendleft(waiter)
            self._go_on()

    def _served(self, waiter: _Waiter) -> bool:
        with self._lock:
            waiter.gone = True
            grant = waiter.grant
        if grant is None:
            return False
        if self.rate:
            self.reports.add_late(time.monotonic() - grant.at)
        return True

    def _abandon(self, waiter: _Waiter, *, alone: bool = False) -> None:
        """A waiter that was interrupted leaves its slot, if it has one by now, to the next."""
        with self._lock:
            waiter.gone = True
            self._busy = self._busy and not alone
            self._unused = self._unused or waiter.grant

    # Serving. One at a time, the one that `_busy` stands for.

    def _go_on(self) -> None:
        """Hand over to the thread if anybody waits. Called under the lock."""
        self._busy = bool(self._waiters)
        if self._busy and self._thread is not None:
            self._work.release()
        elif self._busy:
            thread = threading.Thread(target=self._serve, name="kis_retry-pace", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise _NoThreadError(str(error)) from None
            self._thread = thread

    def _serve(self) -> None:
        while True:
            while self._serve_next():
                pass
            if not self._work.acquire(timeout=_PARKED) and self._retire():
                return

    def _serve_alone(self, waiter: _Waiter) -> None:
        """Serve in the thread of `waiter`, where no other can be started."""
        try:
            while self._serve_next():
                pass
        except BaseException:  # Ctrl-C
            self._abandon(waiter, alone=True)
            raise

    def _retire(self) -> bool:
        with self._lock:
            if not self._busy:
                self._thread = None
            return not self._busy

    def _serve_next(self) -> bool:
        """Get the first waiter its slot; False where nobody waits."""
        with self._lock:
            while self._waiters and self._waiters[0].gone:
                self._waiters.popleft()
            if not self._waiters:
                self._busy = False
                return False
            first = self._waiters[0]
        grant = self._take_first(first)
        if not grant.slot and _too_late(first, grant):
            self._dismiss(first)
            return True
        self._sleep(grant)
        if grant.slot:
            self._hand_over(grant)
        return True

    def _take(self, waiter: _Waiter) -> Grant:
        limit = None if waiter.deadline is None else max(waiter.deadline - time.monotonic(), 0.0)
        grant = self._ledger.take(self.reports.take(), self.rate, limit)
        self.reports.learn(grant)
        self.in_force = grant.rate
        if grant.changed is not None:
            emit(RefreshEvent(name="rate_lowered" if grant.rate < grant.changed else "rate_raised", rate=grant.rate))
        return grant

    def _usable(self, grant: Grant | None) -> Grant | None:
        """A slot that was left over, if it is not so old that it would be beside the next one."""
        now = time.monotonic()
        if grant is None or now - grant.at >= grant.interval / 2:
            return None
        return replace(grant, at=max(grant.at, now))

    def _sleep(self, grant: Grant) -> None:
        while (left := grant.at - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))
            if not grant.slot and self.reports.got_through():
                return

    def _hand_over(self, grant: Grant) -> None:
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.gone and _wake(waiter, grant):
                    return
            self._unused = grant

    def _dismiss(self, waiter: _Waiter) -> None:
        with self._lock:
            waiter.gone = True
            _wake(waiter, None)


def _too_late(waiter: _Waiter, grant: Grant) -> bool:
    return waiter.deadline is not None and grant.at > waiter.deadline


def _wake(waiter: _Waiter, grant: Grant | None) -> bool:
    waiter.grant = grant
    try:
        waiter.wake()
    except RuntimeError:  # its event loop is closed
        waiter.grant = None
        return False
    return True


def _wait(woken: threading.Lock, deadline: float | None) -> None:
    if deadline is None:
        woken.acquire()
        return
    # In turns: up to Python 3.10 a time-out ends early when somebody sets the clock.
    while (left := deadline - time.monotonic()) > 0:
        if woken.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
            return


def _settle(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
