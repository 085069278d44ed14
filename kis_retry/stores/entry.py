"""
One app key's place in a store, as the manager wants it: nothing raises.

A store that cannot be read or written is one warning, and the batch goes on with the token in memory; once it works
again, the next failure is worth a warning again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..token import AccessToken

if TYPE_CHECKING:
    from .base import TokenStore

__all__ = ["StoreEntry"]

T = TypeVar("T")
_logger = logging.getLogger("kis_retry")


class StoreEntry:
    """Load, save, delete and lock one key of one store."""

    def __init__(self, store: TokenStore, key: str) -> None:
        self.store = store
        self._key = key
        self._failing: set[str] = set()  # operations that have not worked since they failed

    def load(self) -> AccessToken | None:
        """The token that is shared; None where there is none, or none that can be read."""
        token = self._try("load", self.store.load, self._key)
        return token if isinstance(token, AccessToken) else None

    def save(self, token: AccessToken) -> None:
        """Share `token`."""
        self._try("save", self.store.save, self._key, token)

    def delete(self) -> None:
        """Share none."""
        self._try("delete", self.store.delete, self._key)

    @contextmanager
    def lock(self, *, timeout: float, lease: float) -> Iterator[bool]:
        """
        Hold the store's lock for this key; False where somebody else holds it for longer than `timeout` seconds.

        True too where the store cannot lock at all: then there is nobody to wait for.
        """
        entered = self._try("lock", _enter, self.store, self._key, timeout, lease)
        if entered is None:
            yield True
            return
        manager, held = entered
        try:
            yield held
        finally:
            self._try("unlock", manager.__exit__, None, None, None)

    def _try(self, operation: str, function: Callable[..., T], *arguments: object) -> T | None:
        try:
            result = function(*arguments)
        except Exception as error:  # any engine, any fault: a store never costs a call
            if not self._failing:
                _warn(self.store, operation, error)
            self._failing.add(operation)
            return None
        self._failing -= {operation, "delete"} if operation == "save" else {operation}
        return result


def _enter(store: TokenStore, key: str, timeout: float, lease: float) -> tuple[Any, bool]:
    manager = store.lock(key, timeout=timeout, lease=lease)
    return manager, manager.__enter__()


def _warn(store: TokenStore, operation: str, error: Exception) -> None:
    reason = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        reason = f"{reason}: {error.strerror}"
    _logger.warning(
        "kis_retry.store_unavailable",
        extra={"kis_store": type(store).__name__, "kis_operation": operation, "kis_error": reason},
    )
