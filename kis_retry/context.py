"""What is under way here: the innermost decorated call, and requests of this package's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["ACTIVE", "is_unprotected", "unprotected"]

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
