"""
Asking a source from an event loop without stopping it: in a worker thread, one for all tasks.

However many tasks meet an expiry at once, the source is asked by one thread, and the others wait for it as tasks. A
task that is cancelled leaves the refresh alone: others wait for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from typing import TypeVar

from ..token import AccessToken
from ..tokens.source import NonBlockingSource, Replacement

__all__ = ["replace", "token"]

T = TypeVar("T")

_ANY = "any token will do"  # not a token: it holds spaces


class _UnderWay:
    """What one event loop has asked of one source, and for which refused token."""

    def __init__(self, rejected: str | None, future: asyncio.Future[Replacement]) -> None:
        self.rejected = rejected
        self.future = future


_under_way: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[NonBlockingSource, _UnderWay]] = (
    weakref.WeakKeyDictionary()
)


async def token(source: NonBlockingSource) -> AccessToken:
    """`source.token()` off the loop."""
    return (await _shared(source, _ANY, lambda: Replacement(source.token(), "memory"))).token


async def replace(source: NonBlockingSource, rejected: str | None) -> Replacement:
    """`source.replace(rejected)` off the loop; those who joined another task's request adopt what it got."""
    return await _shared(source, rejected, lambda: source.replace(rejected))


async def _shared(source: NonBlockingSource, rejected: str | None, ask: Callable[[], Replacement]) -> Replacement:
    requests = _under_way.setdefault(asyncio.get_running_loop(), {})
    while True:
        joined = requests.get(source)
        if joined is None:
            return await asyncio.shield(_begin(requests, source, rejected, ask))
        alive = source.current_unless(None) if rejected is _ANY else None
        if alive is not None:  # it is being renewed ahead of its expiry, and good until then
            return Replacement(alive, "memory")
        if joined.rejected == rejected:
            return Replacement((await asyncio.shield(joined.future)).token, "memory")
        await asyncio.wait([joined.future])  # about another token: look again when it is done
        other = source.current_unless(None if rejected is _ANY else rejected)
        if other is not None:
            return Replacement(other, "memory")


def _begin(
    requests: dict[NonBlockingSource, _UnderWay],
    source: NonBlockingSource,
    rejected: str | None,
    ask: Callable[[], Replacement],
) -> asyncio.Future[Replacement]:
    context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(None, context.run, ask)
    requests[source] = _UnderWay(rejected, future)

    def done(finished: asyncio.Future[Replacement]) -> None:
        del requests[source]
        if not finished.cancelled():
            finished.exception()  # looked at, so that asyncio does not complain where every waiter was cancelled

    future.add_done_callback(done)
    return future
