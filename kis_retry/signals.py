"""Telling an exception that a signal handler raised (a user's own time limit) from one of the code it interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from types import CodeType, FrameType
from typing import Any

__all__ = ["is_from_signal_handler"]


def is_from_signal_handler(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, was raised inside a handler that is set now."""
    codes = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None}
    return bool(codes) and any(frame.f_code in codes for raised in _behind(error) for frame in _frames_of(raised))


def _behind(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, and what was being handled then."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__]


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _code_of(handler: Any) -> CodeType | None:
    """The code of a handler written in Python: a function, a method, a `partial`, or an object with `__call__`."""
    while isinstance(handler, partial):
        handler = handler.func
    function = getattr(handler, "__func__", handler)
    code = getattr(function, "__code__", None) or getattr(getattr(type(handler), "__call__", None), "__code__", None)  # noqa: B004  # its code, not whether it can be called
    return code if isinstance(code, CodeType) else None
