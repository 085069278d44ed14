"""`RateLimiter`: one pace for everybody with an app key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..credentials import Credentials
from ..stores.base import key_of
from ..stores.from_env import store_from_env

if TYPE_CHECKING:
    from ..stores.base import TokenStore
    from .slots import SlotQueue

__all__ = ["RateLimiter"]


class RateLimiter:
    """
    One pace for everybody with that app key: threads, tasks, processes and machines.

    Calls go out evenly spaced, so that no second holds more of them than KIS takes, and nobody gets ahead of others
    who wait. The pace is shared where the token is: the file store's folder shares it among the processes of one
    machine, Redis among machines. Where the store fails, and in a store of your own, each process paces itself (one
    warning `store_unavailable`).

    If KIS refuses most calls for several seconds (a new customer has 3 a second), the pace falls to what gets through
    and feels its way back up (`rate_lowered`, `rate_raised`). Refusals at random, which KIS has within its limit, do
    not slow it down.

    Safe to share between threads and event loops, to use after `os.fork`, and to pickle to spawned workers.

    Args:
        credentials: whose calls; one app key of one host has one pace.
        rate: calls a second, 0.1 to 1,000, or 0 for no pace (outages are then this process's own knowledge); without
            one, what `KIS_RATE_LIMIT` sets, else 18, or 1 on paper.
        store: where the pace is shared; without one, what `KIS_TOKEN_STORE` names.

    Raises:
        ConfigurationError: `rate` cannot be used.
    """

    def __init__(self, credentials: Credentials, *, rate: float | None = None, store: TokenStore | None = None) -> None:
        # With the first limiter: earlier, who makes none would pay for it; and later, in the thread that waits first, a
        # child that is forked while it loads would wait for it for ever.
        from .rate import checked_rate
        from .shared_queues import shared_queue

        self.credentials = credentials
        self._shared_queue = shared_queue
        self._given_rate = None if rate is None else checked_rate(rate)
        self._given_store = store
        self._found: SlotQueue | None = None

    @classmethod
    def from_env(cls) -> RateLimiter:
        """
        Credentials, rate and store from the environment.

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

        Less than was set after several seconds in which KIS let less through.
        """
        return self._queue().in_force

    @property
    def is_away(self) -> bool:
        """Whether KIS is away and nothing gets through, as far as this process knows."""
        return self._queue().is_away

    @property
    def seconds_waited(self) -> float:
        """How many seconds the threads and tasks of this process have waited for slots, all together."""
        return self._queue().seconds_waited

    def acquire(self, timeout: float | None = None) -> bool:
        """
        Wait for a slot: one request may go out now.

        Threads and tasks of this process are served in the order in which they came, processes in turn. While nothing
        gets through to KIS, a few probes a second are let out from everybody together.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            False where there was no slot in time; none is used up then.
        """
        return self._queue().acquire(timeout)

    async def acquire_async(self, timeout: float | None = None) -> bool:
        """
        Wait for a slot as `acquire` does, without stopping the event loop or occupying a thread.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            False where there was no slot in time; none is used up then.
        """
        return await self._queue().acquire_async(timeout)

    def report(self, outcome: str) -> None:
        """
        Tell what became of a request that had a slot. Never waits, never raises; others learn of it with the next slot.

        Args:
            outcome: "answered"; "refused" with EGW00201; "failed" where nobody answered, a 5xx without a verdict too.
        """
        self._queue().report(outcome)

    def _queue(self) -> SlotQueue:
        if self._found is None:
            from .rate import rate_from_env  # loaded by now

            rate = rate_from_env(self.credentials) if self._given_rate is None else self._given_rate
            store = store_from_env() if self._given_store is None else self._given_store
            self._found = self._shared_queue(store, key_of(self.credentials), rate)
        return self._found

    def __getstate__(self) -> dict[str, Any]:
        return {"credentials": self.credentials, "rate": self._given_rate, "store": self._given_store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["credentials"], rate=state["rate"], store=state["store"])  # type: ignore[misc]  # remade

    def __repr__(self) -> str:
        rate = f"{self._found.in_force:g} calls a second" if self._found else "not used yet"
        return f"RateLimiter({self.credentials!r}, {rate})"
