"""
Threads that a decorated function starts carry its protection, and so do the tasks that it hands to a pool.

A pool's worker carries nothing itself: each of its tasks is its submitter's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .protection import ACTIVE, Protection

__all__ = ["run_thread", "start_thread", "submit"]

_CARRIED = "_kis_retry_protection"


def start_thread(wrapped: Callable[..., Any], thread: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `Thread.start`, for `wrapt`."""
    protection = ACTIVE.get()
    if protection is not None:
        setattr(thread, _CARRIED, protection)
    return wrapped(*args, **kwargs)


def run_thread(wrapped: Callable[..., Any], thread: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `Thread.run` and `Timer.run`, for `wrapt`."""
    protection = vars(thread).pop(_CARRIED, None)
    return _under(protection, wrapped, args, kwargs) if protection is not None else wrapped(*args, **kwargs)


def submit(wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `ThreadPoolExecutor.submit`, for `wrapt`."""
    protection = ACTIVE.get()
    if protection is None or not args:
        return wrapped(*args, **kwargs)

    def task(*given: Any, **named: Any) -> Any:
        return _under(protection, args[0], given, named)

    before = ACTIVE.set(None)  # of the worker that this may start
    try:
        return wrapped(task, *args[1:], **kwargs)
    finally:
        ACTIVE.reset(before)


def _under(
    protection: Protection, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    before = ACTIVE.set(protection)
    try:
        return function(*args, **kwargs)
    finally:
        ACTIVE.reset(before)
