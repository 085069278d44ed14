"""Telling an exception that a signal handler raised (a user's own time limit) from one of the code it interrupted."""

from __future__ import annotations

import signal
from types import CodeType
from typing import Any

__all__ = ["is_from_signal_handler"]


def is_from_signal_handler(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, was raised inside a handler that is set now."""
    codes = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None}
    seen: set[int] = set()
    current: BaseException | None = error
    while codes and current is not None and id(current) not in seen:
        seen.add(id(current))
        trace = current.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in codes:
                return True
            trace = trace.tb_next
        current = current.__cause__ or current.__context__
    return False


def _code_of(handler: Any) -> CodeType | None:
    """The code of a handler written in Python: a function, a method, or an object with `__call__`."""
    function = getattr(handler, "__func__", handler)
    code = getattr(function, "__code__", None) or getattr(getattr(type(handler), "__call__", None), "__code__", None)  # noqa: B004  # its code, not whether it can be called
    return code if isinstance(code, CodeType) else None
