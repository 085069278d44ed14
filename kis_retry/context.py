"""What is under way here: the innermost decorated call, and requests of this package's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

__all__ = ["ACTIVE", "Activity", "is_unprotected", "unprotected"]


class Activity(Protocol):
    """A decorated call, as those see it who know nothing of protection."""

    def note_handed(self, source: object, value: str) -> None:
        """Take note that the function asked `source` for its token."""


ACTIVE: ContextVar[Activity | None] = ContextVar("kis_retry_active", default=None)
"""The innermost decorated call that is under way here: threads and tasks have their own."""

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
