"""What the running code is in: a decorated call, a request of this package's own, a signal's handler."""

from __future__ import annotations

import signal
from contextvars import ContextVar
from functools import partial
from itertools import islice
from traceback import walk_tb
from typing import Any

__all__ = ["ACTIVE", "UNPROTECTED", "attribute_of", "behind", "code_of", "is_from_signal_handler", "is_unprotected"]

ACTIVE: ContextVar[Any] = ContextVar("kis_retry_active", default=None)
"""The innermost `Protection` that is in force here, or None: threads and tasks have their own."""

UNPROTECTED: ContextVar[bool] = ContextVar("kis_retry_unprotected", default=False)
"""Every request here leaves as it is: a token request that waited for a token would wait for itself."""

is_unprotected = UNPROTECTED.get


def is_from_signal_handler(error: BaseException) -> bool:
    """Say whether a handler that is set now (a user's own time limit) raised `error`, or what that was raised from."""
    codes = {code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    traces = [found.__traceback__ for found in behind(error)] if codes else []
    return any(frame.f_code in codes for trace in traces for frame, _ in walk_tb(trace))


def behind(error: BaseException, *, context: bool = True) -> list[BaseException]:
    """Return `error`, its cause, its context, its reason, the exceptions among its arguments, and theirs."""
    found = [error]
    for each in islice(found, 100):  # far more than any library makes
        parts = (each.__cause__, each.__context__ if context else None, attribute_of(each, "reason"), *each.args)
        found += [part for part in parts if isinstance(part, BaseException) and part not in found]
    return found


def attribute_of(target: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of somebody else's object; the default also where its property or a proxy raises."""
    try:
        return getattr(target, name, default)
    except Exception:
        return default


def code_of(function: Any) -> Any:
    """Return the code behind a function, a method, a `partial` or an object with `__call__`; None where C is."""
    while isinstance(function, partial):
        function = function.func
    found = getattr(getattr(function, "__func__", function), "__code__", None)
    return found or getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004  # its code
