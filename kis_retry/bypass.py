"""Requests of this package's own, which no protection may touch: `unprotected`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_unprotected", "unprotected"]

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
