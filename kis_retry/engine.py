"""One engine for threads and tasks: a flow yields what takes time, and a thread does it or a task awaits it."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

__all__ = ["Flow", "Send", "Sleep", "Step", "Wait", "run", "run_async"]

T = TypeVar("T")


class Wait(NamedTuple):
    """Wait for `future`, for `seconds` at most; the flow gets whether it is done."""

    future: concurrent.futures.Future[Any]
    seconds: float | None = None


class Sleep(NamedTuple):
    """Let `seconds` pass."""

    seconds: float


class Send(NamedTuple):
    """Send the request, or call the function; the flow gets what the driver's `send` returns."""


Step: TypeAlias = Wait | Sleep | Send
Flow: TypeAlias = Generator[Step, Any, T]


def run(flow: Flow[T], send: Callable[[], Any]) -> T:
    """Drive `flow` on this thread. What interrupts it (Ctrl-C, a signal handler's exception) is raised in the flow."""
    resume: Callable[[Any], Step] = flow.send
    given: Any = None
    try:
        while True:
            step = resume(given)
            try:
                resume, given = flow.send, _do(step, send)
            except BaseException as error:  # the flow gives its slot back, and lets it pass
                resume, given = flow.throw, error
    except StopIteration as end:
        return cast("T", end.value)  # in no variable: an error in it and this frame would keep each other alive
    finally:
        del given, resume  # as well


async def run_async(flow: Flow[T], send: Callable[[], Awaitable[Any]]) -> T:
    """Drive `flow` in this task; a task that is cancelled is cancelled in the flow."""
    resume: Callable[[Any], Step] = flow.send
    given: Any = None
    try:
        while True:
            step = resume(given)
            try:
                resume, given = flow.send, await _do_async(step, send)
            except BaseException as error:  # as above
                resume, given = flow.throw, error
    except StopIteration as end:
        return cast("T", end.value)  # in no variable: an error in it and this frame would keep each other alive
    finally:
        del given, resume


def _do(step: Step, send: Callable[[], Any]) -> Any:
    if isinstance(step, Send):
        return send()
    if isinstance(step, Sleep):
        return time.sleep(step.seconds)
    concurrent.futures.wait((step.future,), step.seconds)  # `result(timeout)` may raise a signal handler's TimeoutError
    return step.future.done()


async def _do_async(step: Step, send: Callable[[], Awaitable[Any]]) -> Any:
    import asyncio  # a third of the package's import, and loaded by whoever has a loop

    if isinstance(step, Send):
        return await send()
    if isinstance(step, Sleep):
        return await asyncio.sleep(step.seconds)
    if not step.future.done():
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        step.future.add_done_callback(lambda _: _tell(loop, told))
        await asyncio.wait((told,), timeout=step.seconds)
    return step.future.done()


def _tell(loop: Any, told: Any) -> None:
    """Wake the task that waits; not `asyncio.wrap_future`, which speaks up where nobody waits any more."""
    with suppress(RuntimeError):  # its loop is closed
        loop.call_soon_threadsafe(lambda: told.done() or told.set_result(None))
