"""
Which store is used: the one that `KIS_TOKEN_STORE` names, and what takes the place of one that fails.

A store that cannot be used is one warning. The machine's file store takes its place, so that its processes go on
sharing, or else the memory of the process, until the first, tried after pauses that grow, works again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..clock import Monotonic
from ..context import behind
from ..errors import ConfigurationError
from ..events import warn
from ..forking import no_fork
from ..settings import Environment
from ..token import AccessToken
from .base import PROCESS_MEMORY, DocumentStore, MemoryTokenStore
from .file import FileTokenStore

if TYPE_CHECKING:
    from .base import TokenStore

__all__ = ["FAILED", "STORE_VARIABLE", "Candidate", "StoreEntry", "candidates_for", "store_from_env", "store_named"]
__all__ += ["warn_unavailable"]

STORE_VARIABLE = "KIS_TOKEN_STORE"
FAILED: Any = object()

_TAKES = "file, memory, a folder's path with a / in it (./tokens), redis://… or rediss://…"
_ADDRESS = re.compile(r"(?![A-Za-z]:)[^/\\]*:")  # a mistyped address is no folder; one letter is a drive
_REDIS = ("redis://", "rediss://", "unix://", "valkey://", "valkeys://")
_PAUSES = 1.0, 2.0, 5.0, 10.0, 30.0, 60.0  # seconds without a store that failed: each try may take its time-out


def store_from_env() -> TokenStore:
    """Return the store that `KIS_TOKEN_STORE` names, by default `file`; `ConfigurationError` where it names none."""
    setting = Environment().find(STORE_VARIABLE)
    return store_named(setting.text if setting else "file")


def store_named(name: str) -> TokenStore:
    """Return the store for one value of the variable; no error shows what may hold a password."""
    word = name.lower()
    is_path = os.sep in name or "/" in name or name.startswith(("~", "."))
    try:
        if word == "memory":
            return PROCESS_MEMORY
        if word.startswith(_REDIS):
            with no_fork():
                from .redis import RedisTokenStore

            return RedisTokenStore(name)
        if word == "file" or (is_path and not _ADDRESS.match(name)):
            return FileTokenStore(None if word == "file" else name)
    except ConfigurationError as error:
        problem = f"{STORE_VARIABLE} is not usable: {error}"
    else:
        # Of what looks like an address the scheme alone is shown, for a password may be anywhere in it.
        shown = re.sub(r"(?<=://).*|^(?!.*://).*[:@?=].*", "…", name, flags=re.DOTALL)
        problem = f"{STORE_VARIABLE}={shown!r} is not usable: it takes {_TAKES}"
    del name, word  # what reports an error shows the locals of its frames, too
    raise ConfigurationError(problem)


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
    def lock(self, *, timeout: float, lease: float) -> Iterator[bool]:
        """Wait up to `timeout` seconds for the lock; the context's value says whether this caller holds it."""
        ends = self._clock() + timeout

        def enter(store: TokenStore) -> tuple[AbstractContextManager[bool], bool]:
            lock = store.lock(self._key, timeout=max(ends - self._clock(), 0.0), lease=lease)
            return lock, lock.__enter__()

        asked = (candidate.ask("lock", enter) for candidate in self._candidates)
        lock, held = next(entered for entered in asked if entered is not FAILED)  # memory always has one
        try:
            yield held
        finally:
            with suppress(Exception):  # what the body did must not be lost to it
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
        self._store, self._clock, self._tell = store, clock, tell
        self._failures, self._again_at = 0, 0.0

    @property
    def failing(self) -> bool:
        """Whether it could not be used when it was last asked."""
        return self._failures > 0

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
            self._failures += 1
            self._again_at = self._clock() + _PAUSES[min(self._failures, len(_PAUSES)) - 1]
            if self._failures == 1:
                self._tell(self._store, operation, error)
            return FAILED
        self._again_at = 0.0
        if operation not in ("load", "delete"):  # a store that can do these alone is of no use
            self._failures = 0
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
    shown, cause = repr(store) if isinstance(store, DocumentStore) else type(store).__qualname__, type(error).__name__
    said = next((each.strerror for each in behind(error) if isinstance(each, OSError) and each.strerror), None)
    warn("store_unavailable", store=shown, operation=operation, error=f"{cause}: {said}" if said else cause)
