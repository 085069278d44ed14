"""`RateLimiter`: one pace for everybody with an app key."""

from __future__ import annotations

import math
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from ..clock import Monotonic
from ..credentials import Credentials
from ..errors import ConfigurationError
from ..settings import Environment
from ..stores.base import key_of
from ..stores.entry import store_from_env
from .queue import SlotQueue
from .stores import pace_of
from .waiting import Reservation

if TYPE_CHECKING:
    from ..stores.base import TokenStore

__all__ = ["PAPER_RATE", "RATE_TAKES", "REAL_RATE", "RateLimiter", "checked_rate", "is_limiter", "parse_rate"]

REAL_RATE, PAPER_RATE = 18.0, 1.0  # calls a second for an app key (KIS's notice of 2026-04-20)
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
            raise TypeError(
                f"RateLimiter takes Credentials, not {type(credentials).__name__}; the pace is given by name: "
                "RateLimiter(Credentials.from_env(), rate=18)"
            )
        self.credentials = credentials
        self._given_rate = self._rate = None if rate is None else checked_rate(rate)
        self._given_store = store
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
        queue = self._queue()
        return queue.line.in_force if queue else 0.0

    @property
    def is_away(self) -> bool:
        """Whether nothing gets through to KIS, as far as this process knows."""
        queue = self._queue()
        return queue.line.away if queue else False

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
            reservation.result()
            return reservation.granted
        except BaseException:  # Ctrl-C, or what a signal handler raised
            reservation.cancel()
            raise

    async def acquire_async(self, timeout: float | None = None) -> bool:
        """Wait for a slot, `timeout` seconds at most, as `acquire` does, but without stopping the event loop."""
        import asyncio  # by now it is loaded: a loop runs

        reservation = self.reserve(timeout=timeout)
        try:
            await asyncio.wrap_future(reservation)
            return reservation.granted
        except BaseException:  # cancelled
            reservation.cancel()
            raise

    def reserve(
        self, *, order: bool = False, earlier: Reservation | None = None, timeout: float | None = None
    ) -> Reservation:
        """
        Begin to wait for a slot; the reservation is a future that is done when the request may leave.

        Args:
            order: whether it goes before reads.
            earlier: that of the same request's last attempt, whose place it keeps for twelve slots.
            timeout: seconds to wait at most.
        """
        limit = math.inf if timeout is None else timeout
        reservation, queue = Reservation(Monotonic.now(), order=order, earlier=earlier, timeout=limit), self._queue()
        if queue is None:
            reservation.end(granted=True)
        else:
            queue.reserve(reservation)
        return reservation

    def report(self, reservation: Reservation, outcome: str) -> None:
        """
        Tell what became of a request that had a slot. Never waits, never raises.

        Args:
            reservation: the request's.
            outcome: "answered"; "limited" with EGW00201; "failed" where nobody answered, a 5xx without a verdict too.
        """
        if self._found is not None:
            self._found.report(reservation, outcome)

    def _queue(self) -> SlotQueue | None:
        """Return what paces this process; None where there is no pace."""
        if self._rate is None:
            self._rate = _rate_from_env(self.credentials)
        if self._found is None and self._rate:
            store = store_from_env() if self._given_store is None else self._given_store
            self._found = _shared_queue(store, self.credentials, self._rate)
        return self._found

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RateLimiter, rate=self._given_rate, store=self._given_store), (self.credentials,)

    def __repr__(self) -> str:
        rate = f"{self._found.line.in_force:g} calls a second" if self._found else "not used yet"
        return f"RateLimiter({self.credentials!r}, {rate})"


def is_limiter(value: object) -> TypeGuard[RateLimiter]:
    """Return whether `value` paces requests."""
    return isinstance(value, RateLimiter)


def checked_rate(rate: object) -> float:
    """Return a rate as a caller gave it; `ConfigurationError` where it is none."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not (rate == 0 or 0.1 <= rate <= 1_000):
        raise ConfigurationError(f"rate={rate!r} is not usable: it takes {RATE_TAKES}")
    return float(rate)


def parse_rate(text: str) -> float:
    """Return a variable's text as a rate; `ValueError` where it is none."""
    if "_" in text:  # Python reads "1_0" as ten; a person who typed it meant something else
        raise ValueError(text)
    return checked_rate(float(text))


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
