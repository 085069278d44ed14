"""What the running code is in: a decorated call, a request of this package's own, a signal's handler."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

__all__ = ["ACTIVE", "code_of", "is_from_signal_handler", "is_unprotected", "unprotected"]

ACTIVE: ContextVar[Any] = ContextVar("kis_retry_active", default=None)
"""The innermost `Protection` that is in force here, or None: threads and tasks have their own."""

_unprotected: ContextVar[bool] = ContextVar("kis_retry_unprotected", default=False)

is_unprotected = _unprotected.get


@contextmanager
def unprotected() -> Iterator[None]:
    """Let every request inside leave as it is: a token request that waited for a token would wait for itself."""
    before = _unprotected.set(True)
    try:
        yield
    finally:
        _unprotected.reset(before)


def is_from_signal_handler(error: BaseException) -> bool:
    """Say whether a handler that is set now (a user's own time limit) raised `error`, or what that was raised from."""
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
