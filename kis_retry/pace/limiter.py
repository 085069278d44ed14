"""`RateLimiter`: one pace for everybody with an app key; and the thread that serves who waits in this process."""

from __future__ import annotations

import math
import queue
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..clock import Monotonic
from ..credentials import Credentials
from ..errors import ConfigurationError
from ..events import RefreshEvent, emit
from ..forking import after_fork
from ..settings import Environment
from ..stores.base import key_of
from ..stores.entry import store_from_env
from .schedule import Block
from .stores import DocumentPace, FallbackPace, pace_of, start
from .waiting import Reservation, WaitingLine

if TYPE_CHECKING:
    from ..stores.base import TokenStore

__all__ = ["PAPER_RATE", "RATE_TAKES", "REAL_RATE", "RateLimiter", "checked_rate", "parse_rate"]

REAL_RATE, PAPER_RATE = 18.0, 1.0  # calls a second for an app key (KIS's notice of 2026-04-20)
IDLE = 1.0  # seconds that the thread waits for work before it ends
RATE_TAKES = "a number of calls a second from 0.1 to 1,000, or 0 for no pace"


class RateLimiter:
    """
    One pace for everybody with that app key: threads, tasks, processes and machines.

    Calls leave evenly spaced, in the order in which they came, so that no second holds more of them than KIS takes. The
    pace is shared where the token is: in a folder by the processes of one machine, on Redis by machines; a process that
    is set to less slows nobody else. Where the store fails the machine's file store takes its place, then memory.

    If KIS refuses most calls, and fewer at a pace just under what gets through, that is the pace until more gets
    through (`rate_lowered`, `rate_raised`); refusals at random do not slow it down. While nothing gets through at all,
    a few calls a second try whether KIS is back.

    Safe to share between threads and event loops, to use after `os.fork`, and to pickle to spawned workers.

    Args:
        credentials: whose calls; one app key of one host has one pace.
        rate: calls a second, 0.1 to 1,000, or 0 for no pace; without one, what `KIS_RATE_LIMIT` sets, else 18, or 1 on
            paper.
        store: where the pace is shared; without one, what `KIS_TOKEN_STORE` names.

    Raises:
        ConfigurationError: `rate` cannot be used.
        TypeError: `credentials` is something else.
    """

    def __init__(self, credentials: Credentials, *, rate: float | None = None, store: TokenStore | None = None) -> None:
        if not isinstance(credentials, Credentials):
            raise TypeError(f"RateLimiter takes Credentials, not {type(credentials).__name__}, and rate=18 by name")
        self.credentials = credentials
        self._rate = None if rate is None else checked_rate(rate)
        self._store = store
        self._found: SlotQueue | None = None

    @classmethod
    def from_env(cls, prefix: str = "KIS_") -> RateLimiter:
        """
        Make a limiter for the environment's credentials, `KIS_RATE_LIMIT` and store.

        Args:
            prefix: what the names of credentials and rate begin with, for a second pair of keys.

        Raises:
            ConfigurationError: a variable is missing or cannot be used; the message names it.
        """
        credentials = Credentials.from_env(prefix)
        limiter = cls(credentials, rate=_rate_from_env(credentials, prefix))
        limiter._queue()  # checks the store
        return limiter

    @property
    def rate(self) -> float:
        """Calls a second that are in force, fewer than were set while KIS lets fewer through, 0 for no pace."""
        return found.line.in_force if (found := self._queue()) else 0.0

    @property
    def is_away(self) -> bool:
        """Whether nothing gets through to KIS, as far as this process knows."""
        return found.line.away if (found := self._queue()) else False

    def acquire(self, timeout: float | None = None) -> bool:
        """
        Wait for a slot: one request may leave now.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            False where there was no slot in time; none is used up then.
        """
        reservation = self.reserve(timeout=timeout)
        try:
            reservation.over.get()
            return reservation.granted
        finally:
            reservation.cancel()  # where Ctrl-C ended it, or what a signal handler raised

    async def acquire_async(self, timeout: float | None = None) -> bool:
        """Wait for a slot, `timeout` seconds at most, as `acquire` does, but without stopping the event loop."""
        import asyncio  # by now it is loaded: a loop runs

        reservation = self.reserve(timeout=timeout)
        try:
            await asyncio.wrap_future(reservation)
            return reservation.granted
        finally:
            reservation.cancel()  # where the task was cancelled

    def reserve(
        self, *, order: bool = False, earlier: Reservation | None = None, timeout: float | None = None
    ) -> Reservation:
        """
        Begin to wait for a slot; the reservation is a future that is done when the request may leave.

        An `order` goes before reads. A repeat keeps the place of its `earlier` attempt, for twelve slots.
        """
        deadline = math.inf if timeout is None else Monotonic.now() + max(0.0, timeout)  # of a NaN it makes 0
        reservation, found = Reservation(deadline, order=order, earlier=earlier), self._queue()
        if found is None:
            reservation.end(granted=True)
        else:
            found.reserve(reservation)
        return reservation

    def report(self, reservation: Reservation, outcome: str) -> None:
        """Tell that a request was "answered", "limited" (EGW00201) or "failed" (no verdict came). Never waits."""
        if self._found is not None:
            self._found.inbox.put(partial(self._found.line.report, reservation.generation, outcome, Monotonic.now()))

    def _queue(self) -> SlotQueue | None:
        """Return what paces this process; None where there is no pace."""
        if self._rate is None:
            self._rate = _rate_from_env(self.credentials)
        if self._found is None and self._rate:
            store = store_from_env() if self._store is None else self._store
            self._found = _shared_queue(store, self.credentials, self._rate)
        return self._found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_found": None}

    def __repr__(self) -> str:
        rate = f"{self._found.line.in_force:g} calls a second" if self._found else "not used yet"
        return f"RateLimiter({self.credentials!r}, {rate})"


class SlotQueue:
    """
    All who wait in this process for slots of one pace, at a `rate` that is set where KIS has `published` another.

    The line belongs to one thread alone. Callers put what they want into an inbox, which takes no lock of Python's:
    wherever an exception of a signal handler meets them, they leave nothing locked behind.
    """

    def __init__(self, store: DocumentPace | FallbackPace, rate: float, published: float) -> None:
        self._store, self._rates = store, (rate, published)
        self._begin()
        after_fork(self, SlotQueue._begin)

    def _begin(self) -> None:
        """Begin anew, in a child too: the parent's waiters and slots are the parent's."""
        self.line = WaitingLine(*self._rates)
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._serving = threading.Lock()  # held by the thread that serves
        self._served = False  # there is such a thread, or one is being started

    def reserve(self, reservation: Reservation) -> None:
        """Begin to wait for a slot."""
        self.inbox.put(partial(self.line.add, reservation))
        if self._served:
            return
        started = False
        try:  # two may be started, for there is no lock: a signal handler could leave it locked
            self._served = True
            started = start(self._serve)
        finally:
            if not started:
                self._served = False
        if not started:
            reservation.end(granted=True)  # nobody can serve it

    def _serve(self) -> None:
        with self._serving:
            if self.inbox.empty():  # another thread has served it
                return
            self._served = True
            try:
                while self._do_what_is_due() or self._wait():
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
        if self._store.blocks and start(  # slots are handed out meanwhile
            lambda: self.inbox.put(partial(self._learn, self._store.reserve(ask), Monotonic.now()))
        ):
            return False
        self._learn(self._store.reserve(ask), Monotonic.now())
        return True

    def _wait(self) -> bool:
        """Wait until something is due or told; return False where that took too long to go on waiting."""
        now = Monotonic.now()
        try:
            self.inbox.get(timeout=min(max(self.line.wake_at(now) - now, 0.0), IDLE))()
        except queue.Empty:
            if self.line.waiters:
                return True
            self._served = False  # before the last look: whoever puts something in looks at this afterwards
            self._served = not self.inbox.empty()
            return self._served
        while not self.inbox.empty():
            self.inbox.get()()
        return True

    def _learn(self, block: Block, now: float) -> None:
        before = self.line.in_force
        self.line.learn(block, now)
        after = self.line.in_force
        if after != before:
            start(emit, RefreshEvent(name="rate_lowered" if after < before else "rate_raised", rate=after))


def checked_rate(rate: object) -> float:
    """Return a rate as a caller gave it; `ConfigurationError` where it is none."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not (rate == 0 or 0.1 <= rate <= 1_000):
        raise ConfigurationError(f"rate={rate!r} is not usable: it takes {RATE_TAKES}")
    return float(rate)


def parse_rate(text: str) -> float:
    """Return a variable's text as a rate; `ValueError` where it is none."""
    return checked_rate(math.nan if "_" in text else float(text))  # who typed "1_0" did not mean ten


def _rate_from_env(credentials: Credentials, prefix: str = "KIS_") -> float:
    found = Environment().read(parse_rate, RATE_TAKES, f"{prefix}RATE_LIMIT")
    return (PAPER_RATE if credentials.paper else REAL_RATE) if found is None else found


_queues: weakref.WeakValueDictionary[Any, SlotQueue] = weakref.WeakValueDictionary()  # keeps no store alive


def _shared_queue(store: TokenStore, credentials: Credentials, rate: float) -> SlotQueue:
    """Return the one queue of this process for that store, key and rate, however many limiters are made."""
    key, published = key_of(credentials), PAPER_RATE if credentials.paper else REAL_RATE
    whose = (getattr(store, "folder", None) or getattr(store, "url", None) or id(store), key, rate)
    # No lock: a signal handler's exception could leave it locked. Two queues for one pace do no harm.
    return _queues.get(whose) or _queues.setdefault(whose, SlotQueue(pace_of(store, key), rate, published))
