"""
One app key's place in a store, as the manager wants it: nothing raises.

A store that cannot be read or written is one warning, and the batch goes on with the token in memory; once it works
again, the next failure is worth a warning again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..events import warn
from ..token import AccessToken

if TYPE_CHECKING:
    from .base import TokenStore

__all__ = ["StoreEntry", "warn_unavailable"]

T = TypeVar("T")
_DEPTH = 8  # causes of an error that are looked at; a chain may be a ring


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
                warn_unavailable(self.store, operation, error)
            self._failing.add(operation)
            return None
        self._failing -= {operation, "delete"} if operation == "save" else {operation}
        return result


def _enter(store: TokenStore, key: str, timeout: float, lease: float) -> tuple[Any, bool]:
    manager = store.lock(key, timeout=timeout, lease=lease)
    return manager, manager.__enter__()


def warn_unavailable(store: TokenStore, operation: str, error: Exception | str) -> None:
    """Log that `store` cannot do `operation`, and why: an exception, or words of this package."""
    cause = error if isinstance(error, str) else _cause(error)
    warn("store_unavailable", store=_shown(store), operation=operation, error=cause)


def _shown(store: TokenStore) -> str:
    """A store of this package as its `repr`; another's as its class, since its `repr` may show a password."""
    written_in = getattr(type(store).__repr__, "__module__", "")
    return repr(store) if written_in.startswith("kis_retry.stores.") else type(store).__qualname__


def _cause(error: Exception) -> str:
    """The type of an error, and what the operating system said; an engine's own text may hold anything."""
    name = type(error).__name__
    link: BaseException | None = error
    for _ in range(_DEPTH):
        if link is None:
            break
        if isinstance(link, OSError) and link.strerror:
            return f"{name}: {link.strerror}"
        link = link.__cause__ or link.__context__
    return name
