"""
One app key's place in a store, as the manager wants it: nothing raises.

A store that cannot be used is one warning. The machine's file store takes its place, so that its processes go on
sharing, or else the memory of the process, until the first, tried after pauses that grow, works again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..clock import Monotonic
from ..errors import ConfigurationError
from ..events import warn
from ..token import AccessToken
from .file import FileTokenStore
from .memory import PROCESS_MEMORY, MemoryTokenStore

if TYPE_CHECKING:
    from .base import TokenStore

__all__ = ["FAILED", "Candidate", "StoreEntry", "candidates_for", "warn_unavailable"]

FAILED: Any = object()

_PAUSES = 1.0, 2.0, 5.0, 10.0, 30.0, 60.0  # seconds without a store that failed: each try may take its time-out


class StoreEntry:
    """Load, save, delete and lock one key of one store, or of what takes its place; `clock` counts seconds."""

    def __init__(self, store: TokenStore, key: str, *, clock: Callable[[], float] = Monotonic.now) -> None:
        self.store, self._key, self._clock = store, key, clock
        self._candidates = [Candidate(each, clock, warn_unavailable) for each in candidates_for(store)]

    def load(self) -> AccessToken | None:
        """Return the token that is shared, be it expired or not; None where there is none that can be used."""
        found = []
        for candidate in self._candidates:
            token = candidate.ask("load", lambda store: store.load(self._key))
            found += [token] if isinstance(token, AccessToken) else []
            if not candidate.failing:
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
            lock = store.lock(self._key, timeout=max(ends - self._clock(), 0.0), lease=lease)
            return lock, lock.__enter__()

        asked = (candidate.ask("lock", enter) for candidate in self._candidates)
        lock, held = next((entered for entered in asked if entered is not FAILED), (None, None))
        try:
            yield held
        finally:
            with suppress(Exception):  # what the body did must not be lost to it
                if lock is not None:
                    lock.__exit__(None, None, None)

    def _change(self, operation: str, change: Callable[[TokenStore], object]) -> None:
        for candidate in self._candidates:
            # While a store fails, and when it works again, others may still look where this process went meanwhile.
            failing = candidate.failing
            if candidate.ask(operation, change) is not FAILED and not failing:
                break


class Candidate:
    """A store that is asked such that nothing raises, and for a while not at all after it failed, of which it tells."""

    def __init__(
        self, store: TokenStore, clock: Callable[[], float], tell: Callable[[TokenStore, str, Exception], object]
    ) -> None:
        self.failing = False
        self._store, self._clock, self._tell = store, clock, tell
        self._failures = itertools.count()  # tells one thread that it was first, without a lock to be held at a fork
        self._again_at = 0.0

    @property
    def rests(self) -> bool:
        """Whether it failed so lately that it is not asked."""
        return self.failing and self._clock() < self._again_at

    def ask(self, operation: str, ask: Callable[[Any], Any]) -> Any:
        """Return what `ask` gives back for the store, or `FAILED`."""
        if self.rests:
            return FAILED
        self._again_at = self._clock() + _PAUSES[-1]  # where it fails, nobody else tries it meanwhile
        try:
            result = ask(self._store)
        except Exception as error:  # any engine, any fault: a store never costs a call
            failures = next(self._failures)
            self.failing, self._again_at = True, self._clock() + _PAUSES[min(failures, len(_PAUSES) - 1)]
            if failures == 0:
                self._tell(self._store, operation, error)
            return FAILED
        self._again_at = 0.0
        if self.failing and operation not in ("load", "delete"):  # a store that can do these alone is of no use
            self.failing, self._failures = False, itertools.count()
        return result


def candidates_for(store: TokenStore) -> list[TokenStore]:
    """Return `store`, and what takes its place, in this order. Who chose memory has nothing written to a disk."""
    with suppress(ConfigurationError):  # no home folder
        fallback = FileTokenStore()
        if not isinstance(store, MemoryTokenStore) and repr(store) != repr(fallback):
            return [store, fallback, PROCESS_MEMORY]
    return [store, PROCESS_MEMORY]


def warn_unavailable(store: TokenStore, operation: str, error: Exception) -> None:
    """Log that `store` cannot do `operation`, and why: the type of the error, and what the operating system said."""
    # Another's store is shown as its class, since its `repr` may hold a password, as the text of its error may.
    is_ours = getattr(type(store).__repr__, "__module__", "").startswith("kis_retry.stores.")
    shown, cause = repr(store) if is_ours else type(store).__qualname__, type(error).__name__
    behind = (error, error.__cause__, error.__context__)
    said = next((each.strerror for each in behind if isinstance(each, OSError) and each.strerror), None)
    warn("store_unavailable", store=shown, operation=operation, error=f"{cause}: {said}" if said else cause)
