"""Tell an exception that a signal handler raised (a user's own time limit) from one of the code it interrupted."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

__all__ = ["code_of", "is_from_signal_handler"]


def is_from_signal_handler(error: BaseException) -> bool:
    """Say whether `error`, or what it was raised from, was raised inside a handler that is set now."""
    codes = {code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while codes and waiting:
        found = waiting.pop()
        if found is None or found in seen:
            continue
        seen.append(found)
        waiting += [found.__cause__, found.__context__]
        trace = found.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in codes:
                return True
            trace = trace.tb_next
    return False


def code_of(function: Any) -> Any:
    """Return the code behind a function, a method, a `partial` or an object with `__call__`; None where C is."""
    while isinstance(function, partial):
        function = function.func
    found = getattr(getattr(function, "__func__", function), "__code__", None)
    return found or getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004  # its code
