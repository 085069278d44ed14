"""
One app key's place in a store, as the manager wants it: nothing raises.

A store that cannot be used is one warning. The machine's file store takes its place, so that its processes go on
sharing, or else the memory of the process, until the first, tried after pauses that grow, works again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..events import warn
from ..token import AccessToken
from .file import FileTokenStore
from .memory import PROCESS_MEMORY, MemoryTokenStore

if TYPE_CHECKING:
    from .base import DocumentStore, TokenStore

__all__ = ["StoreEntry", "fallback_documents", "warn_unavailable"]

_PAUSES = 1.0, 2.0, 5.0, 10.0, 30.0, 60.0  # seconds without a store that failed: each try may take its time-out
_FAILED: Any = object()


class StoreEntry:
    """Load, save, delete and lock one key of one store, or of what takes its place; `clock` counts seconds."""

    def __init__(self, store: TokenStore, key: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._key = key
        self._clock = clock
        self._places = [_Place(each, clock) for each in (store, *_instead_of(store))]

    def load(self) -> AccessToken | None:
        """Return the token that is shared, be it expired or not; None where there is none that can be used."""
        found = []
        for place in self._places:
            token = place.ask("load", lambda store: store.load(self._key))
            if isinstance(token, AccessToken):
                found.append(token)
            if not place.failing:
                break
        return max(found, key=lambda token: token.expires, default=None)

    def save(self, token: AccessToken) -> None:
        self._change("save", lambda store: store.save(self._key, token))

    def delete(self) -> None:
        self._change("delete", lambda store: store.delete(self._key))

    @contextmanager
    def lock(self, *, timeout: float, lease: float) -> Iterator[bool | None]:
        """
        Wait up to `timeout` seconds for the lock; True where this caller holds it, False where somebody else does.

        None where nobody could look: somebody may be asking KIS for a token just now.
        """
        ends = self._clock() + timeout

        def enter(store: TokenStore) -> tuple[AbstractContextManager[bool], bool]:
            manager = store.lock(self._key, timeout=max(ends - self._clock(), 0.0), lease=lease)
            return manager, manager.__enter__()

        with ExitStack() as stack:
            held = None
            for place in self._places:
                entered = place.ask("lock", enter)
                if entered is not _FAILED:
                    manager, held = entered
                    stack.callback(_leave, manager)
                    break
            yield held

    def _change(self, operation: str, change: Callable[[TokenStore], object]) -> None:
        for place in self._places:
            # While a store fails, and when it works again, others may still look where this process went meanwhile.
            failing = place.failing
            if place.ask(operation, change) is not _FAILED and not failing:
                break


class _Place:
    """A store that is asked such that nothing raises, and for a while not at all after it failed."""

    def __init__(self, store: TokenStore, clock: Callable[[], float]) -> None:
        self.failing = False
        self._store = store
        self._clock = clock
        self._failures = itertools.count()  # tells one thread that it was first, without a lock to be held at a fork
        self._again_at = 0.0

    def ask(self, operation: str, ask: Callable[[TokenStore], Any]) -> Any:
        """Return what `ask` gives back, or `_FAILED`."""
        if self.failing and self._clock() < self._again_at:
            return _FAILED
        try:
            result = ask(self._store)
        except Exception as error:  # any engine, any fault: a store never costs a call
            failures = next(self._failures)
            self.failing, self._again_at = True, self._clock() + _PAUSES[min(failures, len(_PAUSES) - 1)]
            if failures == 0:
                warn_unavailable(self._store, operation, error)
            return _FAILED
        if self.failing and operation in {"lock", "save"}:  # a store that can be read and emptied alone is of no use
            self.failing, self._failures = False, itertools.count()
        return result


def fallback_documents() -> DocumentStore:
    """Return what takes the place of a store that cannot be used: the machine's file store, else this process's."""
    try:
        return FileTokenStore()
    except ConfigurationError:  # no home folder
        return PROCESS_MEMORY


def warn_unavailable(store: TokenStore, operation: str, error: Exception | str) -> None:
    """Log that `store` cannot do `operation`, and why: an exception, or words of this package."""
    cause = error if isinstance(error, str) else _cause(error)
    warn("store_unavailable", store=_shown(store), operation=operation, error=cause)


def _instead_of(store: TokenStore) -> list[DocumentStore]:
    """Return what takes the place of `store`, in this order. Who chose memory has nothing written to a disk."""
    fallback = fallback_documents()
    same = isinstance(store, FileTokenStore) and repr(store) == repr(fallback)
    return [PROCESS_MEMORY] if same or isinstance(store, MemoryTokenStore) else [fallback, PROCESS_MEMORY]


def _leave(manager: AbstractContextManager[bool]) -> None:
    with suppress(Exception):  # what the body did must not be lost to it
        manager.__exit__(None, None, None)


def _shown(store: TokenStore) -> str:
    """Return a store of this package as its `repr`; another's as its class, since its `repr` may show a password."""
    written_in = getattr(type(store).__repr__, "__module__", "")
    return repr(store) if written_in.startswith("kis_retry.stores.") else type(store).__qualname__


def _cause(error: Exception) -> str:
    """Return the type of an error, and what the operating system said; an engine's own text may hold anything."""
    link: BaseException | None = error
    for _ in range(8):  # causes may go in a ring
        if isinstance(link, OSError) and link.strerror:
            return f"{type(error).__name__}: {link.strerror}"
        link = link and (link.__cause__ or link.__context__)
    return type(error).__name__
