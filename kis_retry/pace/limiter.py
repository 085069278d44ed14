"""`RateLimiter`: one pace for everybody with an app key."""

from __future__ import annotations

import math
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeGuard

from ..credentials import Credentials
from ..errors import ConfigurationError
from ..forking import after_fork
from ..settings import Environment
from ..stores.base import key_of
from ..stores.base import documents_of
from ..stores.from_env import store_from_env
from .queue import SlotQueue
from .shared import MemoryPace, PaceStore, monotonic
from .waiting import Reservation, Ticket

if TYPE_CHECKING:
    from ..stores.base import TokenStore

__all__ = ["RateLimiter", "checked_rate", "is_limiter", "parse_rate", "rate_from_env"]

REAL_RATE, PAPER_RATE = 18.0, 1.0  # calls a second for an app key (KIS's notice of 2026-04-20)
LEAST_RATE, MOST_RATE = 0.1, 1_000  # beyond, calls would be less apart than a sleep is exact
RATE_VARIABLE = "KIS_RATE_LIMIT"
RATE_TAKES = "a number of calls a second from 0.1 to 1,000, or 0 for no pace"


class RateLimiter:
    """
    One pace for everybody with that app key: threads, tasks, processes and machines.

    Calls leave evenly spaced, so that no second holds more of them than KIS takes; orders go before reads, else it is
    first come first served. The pace is shared where the token is: the file store's folder shares it among the
    processes of one machine, Redis among machines. Where the store fails the machine's file store takes its place,
    then each process paces itself (one warning `store_unavailable`). A process with a lower rate slows nobody else.

    If KIS refuses most calls and a pace just under what gets through is refused less, that is the pace, until more
    gets through (`rate_lowered`, `rate_raised`). Refusals at random, which KIS has within its limit, do not slow it
    down. While nothing gets through at all, a few probes a second leave.

    Safe to share between threads and event loops, to use after `os.fork`, and to pickle to spawned workers.

    Args:
        credentials: whose calls; one app key of one host has one pace.
        rate: calls a second, 0.1 to 1,000, or 0 for no pace; without one, what `KIS_RATE_LIMIT` sets, else 18, or 1 on
            paper.
        store: where the pace is shared; without one, what `KIS_TOKEN_STORE` names.

    Raises:
        ConfigurationError: `rate` cannot be used.
        TypeError: `credentials` are none.
    """

    def __init__(self, credentials: Credentials, *, rate: float | None = None, store: TokenStore | None = None) -> None:
        if not isinstance(credentials, Credentials):
            raise TypeError(
                f"RateLimiter takes Credentials, not {type(credentials).__name__}; "
                "the pace is a keyword: RateLimiter(Credentials.from_env(), rate=18)"
            )
        self.credentials = credentials
        self._given_rate = None if rate is None else checked_rate(rate)
        self._given_store = store
        self._found: SlotQueue | None = None
        self._rate = self._given_rate

    @classmethod
    def from_env(cls, prefix: str = "KIS_") -> RateLimiter:
        """
        Make a limiter from the environment: credentials, rate and store.

        Raises:
            ConfigurationError: a variable is missing or unusable; the message names it.
        """
        limiter = cls(Credentials.from_env())
        limiter._queue()
        return limiter

    @property
    def rate(self) -> float:
        """
        Calls a second that are in force, 0 where there is no pace.

        Less than was set while KIS lets less through.
        """
        queue = self._queue()
        return queue.in_force if queue else 0.0

    @property
    def is_away(self) -> bool:
        """Whether nothing gets through to KIS, as far as this process knows."""
        queue = self._queue()
        return queue is not None and queue.is_away

    def acquire(self, timeout: float | None = None) -> bool:
        """
        Wait for a slot: one request may leave now.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            False where there was no slot in time; none is used up then.
        """
        reservation = self._reserve(timeout=timeout)
        try:
            reservation.future.result()
        except BaseException:  # Ctrl-C, or what a signal handler raised
            reservation.cancel()
            raise
        return reservation.granted

    async def acquire_async(self, timeout: float | None = None) -> bool:
        """
        Wait for a slot as `acquire` does, without stopping the event loop or occupying a thread.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            False where there was no slot in time; none is used up then.
        """
        import asyncio  # a third of the package's import, and loaded by whoever has a loop

        reservation = self._reserve(timeout=timeout)
        try:
            await asyncio.wrap_future(reservation.future)
        except BaseException:  # cancelled
            reservation.cancel()
            raise
        return reservation.granted

    def reserve(self, *, order: bool = False, ticket: Ticket | None = None) -> Reservation:
        """
        Begin to wait for a slot; `future` of the reservation is done when the request may leave.

        Args:
            order: whether it goes before reads.
            ticket: that of an earlier reservation for the same call, which keeps its place for ten seconds.
        """
        return self._reserve(order=order, ticket=ticket)

    def report(self, reservation: Reservation, outcome: str) -> None:
        """
        Tell what became of a request that had a slot. Never waits, never raises; others learn of it with the next slot.

        Args:
            reservation: of the request.
            outcome: "answered"; "limited" with EGW00201; "failed" where nobody answered, a 5xx without a verdict too.
        """
        queue = self._queue()
        if queue is not None:
            queue.report(reservation, outcome)

    def _reserve(
        self, *, order: bool = False, ticket: Ticket | None = None, timeout: float | None = None
    ) -> Reservation:
        if timeout is not None and (math.isnan(timeout) or timeout < 0):
            timeout = 0.0
        queue = self._queue()
        if queue is not None:
            return queue.reserve(order=order, ticket=ticket, timeout=timeout)
        now = monotonic()
        reservation = Reservation(ticket or Ticket(now), arrived=now, order=order)
        reservation.grant()
        return reservation

    def _queue(self) -> SlotQueue | None:
        """Return the queue of this process; None where there is no pace."""
        if self._rate is None:
            self._rate = rate_from_env(self.credentials)
        if self._found is None and self._rate:
            store = store_from_env() if self._given_store is None else self._given_store
            published = PAPER_RATE if self.credentials.paper else REAL_RATE
            self._found = _shared_queue(store, key_of(self.credentials), self._rate, published)
        return self._found

    def __getstate__(self) -> dict[str, Any]:
        return {"credentials": self.credentials, "rate": self._given_rate, "store": self._given_store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["credentials"], rate=state["rate"], store=state["store"])  # type: ignore[misc]  # remade

    def __repr__(self) -> str:
        rate = f"{self._found.in_force:g} calls a second" if self._found else "not used yet"
        return f"RateLimiter({self.credentials!r}, {rate})"


def is_limiter(value: object) -> TypeGuard[RateLimiter]:
    """Return whether `value` can pace requests."""
    return isinstance(value, RateLimiter)


def rate_from_env(credentials: Credentials) -> float:
    """
    Return what `KIS_RATE_LIMIT` sets; without it 18 calls a second, 1 on paper.

    Raises:
        ConfigurationError: the variable holds something else than it takes.
    """
    found = Environment().read(parse_rate, RATE_TAKES, RATE_VARIABLE)
    if found is not None:
        return found
    return PAPER_RATE if credentials.paper else REAL_RATE


def checked_rate(rate: object) -> float:
    """
    Return a rate as a caller gave it.

    Raises:
        ConfigurationError: it is no number, or out of range.
    """
    try:
        return _in_range(rate)
    except ValueError:
        raise ConfigurationError(f"rate={rate!r} is not usable: it takes {RATE_TAKES}") from None


def parse_rate(text: str) -> float:
    """Return the variable's text as a rate; `ValueError` where it takes something else."""
    if "_" in text:  # Python reads "1_0" as ten; a person who typed it meant something else
        raise ValueError(text)
    return _in_range(float(text))


def _in_range(rate: object) -> float:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise ValueError(rate)
    if rate != 0 and not LEAST_RATE <= rate <= MOST_RATE:  # true for NaN too
        raise ValueError(rate)
    return float(rate)


_finding = threading.Lock()  # guards the rest, which keeps no store and no queue alive
_queues: weakref.WeakValueDictionary[tuple[object, str, float], SlotQueue] = weakref.WeakValueDictionary()
_in_memory: weakref.WeakKeyDictionary[object, dict[str, PaceStore]] = weakref.WeakKeyDictionary()


def _shared_queue(store: TokenStore, key: str, rate: float, published: float) -> SlotQueue:
    """Return the queue of this process for that store, key and rate, however many limiters are made."""
    place: Any = documents_of(store) or store
    with _finding:
        name = id(place), key, rate
        queue = _queues.get(name)
        if queue is None:
            pace = _in_memory.setdefault(place, {}).setdefault(key, MemoryPace())
            queue = _queues[name] = SlotQueue(pace, rate, published)
        return queue


def _begin_anew(_: object) -> None:
    global _finding
    _finding = threading.Lock()


after_fork(sys.modules[__name__], _begin_anew)
