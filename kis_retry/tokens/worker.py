"""
Asking a source from an event loop without stopping it: on a thread of this package's own, one for all tasks.

However many tasks meet an expiry at once, the source is asked by one thread, and the others wait for it as tasks. A
task that is cancelled leaves the refresh alone: others wait for it. Never on the loop's default executor: its threads
may all be waiting for tasks that wait for this refresh, and a program that ends waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..token import AccessToken
from .companions import Companions
from .single_flight import Flight, SingleFlight
from .source import NonBlockingSource, Replacement

__all__ = ["replace", "token"]

_ANY = "any token will do"  # not a token: it holds spaces

_flights: Companions[SingleFlight[Replacement]] = Companions(partial(SingleFlight, "kis_retry-worker"))


async def token(source: NonBlockingSource) -> AccessToken:
    """`source.token()` off the loop."""
    return (await _shared(source, _ANY, lambda: Replacement(source.token(), "memory"))).token


async def replace(source: NonBlockingSource, rejected: str | None) -> Replacement:
    """`source.replace(rejected)` off the loop; those who joined another task's request adopt what it got."""
    return await _shared(source, rejected, lambda: source.replace(rejected))


async def _shared(source: NonBlockingSource, key: str | None, ask: Callable[[], Replacement]) -> Replacement:
    flights = _flights.of(source.identity)
    while True:
        flight, mine = flights.begin(key, ask)
        alive = source.current_unless(None) if key is _ANY and not mine else None
        if alive is not None:  # it is being renewed ahead of its expiry, and good until then
            return Replacement(alive, "memory")
        await _end_of(flight)
        if flight.state != "abandoned" and (mine or flight.key == key):
            replacement = flight.outcome()
            return replacement if mine else Replacement(replacement.token, "memory")
        other = source.current_unless(None if key is _ANY else key)
        if other is not None:  # that one was about another token
            return Replacement(other, "memory")


async def _end_of(flight: Flight[Replacement]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def wake_from_thread() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake)

    flight.when_done(wake_from_thread)
    await ended
