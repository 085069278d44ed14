"""Where a token is shared: the contract of a store, its key, the base of this package's stores, and the nearest one."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..forking import after_fork
from ..token import AccessToken

if TYPE_CHECKING:
    from ..credentials import Credentials

__all__ = ["MAX_DOCUMENT", "PROCESS_MEMORY", "TOKEN", "DocumentStore", "MemoryTokenStore", "TokenStore", "key_of"]

TOKEN = "token"  # noqa: S105  # the kind of document, no secret
MAX_DOCUMENT = 16 * 1024  # bytes; KIS's tokens have at most 350 (tokenP page)

_LEAST_TTL = 60.0  # seconds a token is kept even where this clock says that it is over: the clock may be wrong


@runtime_checkable
class TokenStore(Protocol):
    """
    A place for tokens, by key (`key_of`). Called from any thread; every method may block on disk or network.

    A damaged, foreign or unreadable entry is a miss, and the next `save` heals it. An engine that cannot be reached is
    an exception of its own: `TokenManager` makes one warning of it and goes on with the machine's file store, or with
    the memory of the process.
    """

    def load(self, key: str) -> AccessToken | None:
        """Return the entry, be it expired or not; None where there is none that can be used."""

    def save(self, key: str, token: AccessToken) -> None:
        """Put `token` in the place of whatever is there. Readers see the old one or the new one, never a half."""

    def delete(self, key: str) -> None:
        """Remove the entry; where there is none, nothing happens."""

    def lock(self, key: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
        """
        Wait for the one lock of `key`; the context's value says whether this caller holds it.

        One holder at a time among everybody who shares the place. Not reentrant. A lock that cannot be released is let
        go silently: what the body did must not be lost to that.

        Args:
            key: other keys have locks of their own.
            timeout: seconds to wait at most; 0: one try.
            lease: seconds after which a holder that died no longer blocks the rest. A live one must be done by then.
        """


class DocumentStore(ABC):
    """A store of this package: tokens, and other small documents (a shared pace), by key and kind, each with a lock."""

    def load(self, key: str) -> AccessToken | None:
        data = self.read(key, TOKEN)
        try:
            entry = json.loads((data or b"")[:MAX_DOCUMENT].decode())
            token = AccessToken(entry["access_token"], datetime.fromisoformat(entry["expires_at"]))
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            return None
        return token if entry == _entry_of(key, token) else None  # else it was not written for `key`

    def save(self, key: str, token: AccessToken) -> None:
        data = json.dumps(_entry_of(key, token)).encode()
        self.write(key, TOKEN, data, max(token.expires - time.time(), _LEAST_TTL))

    @abstractmethod
    def read(self, key: str, kind: str) -> bytes | None:
        """Return the document as it was written; None where there is none that this user may believe."""

    @abstractmethod
    def write(self, key: str, kind: str, data: bytes, ttl: float) -> None:
        """Put `data` in the place of whatever is there, in one step; nobody needs it after `ttl` seconds."""

    @abstractmethod
    def delete(self, key: str, kind: str = TOKEN) -> None:
        """Remove the document; where there is none, nothing happens."""

    @abstractmethod
    def lock(self, key: str, kind: str = TOKEN, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
        """Wait for the one lock of `key` and `kind`, as `TokenStore.lock` does."""


class MemoryTokenStore(DocumentStore):
    """
    Tokens shared by the threads of one process that hold this instance.

    After `os.fork` and pickling there are two stores, with the same entries and locks of their own.
    """

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], bytes] = {}
        self._remake_locks()
        # The thread that held a lock at the moment of a fork does not exist in the child and would never release it.
        after_fork(self, MemoryTokenStore._remake_locks)

    def read(self, key: str, kind: str) -> bytes | None:
        return self._documents.get((key, kind))

    def write(self, key: str, kind: str, data: bytes, ttl: float) -> None:
        self._documents[key, kind] = data

    def delete(self, key: str, kind: str = TOKEN) -> None:
        self._documents.pop((key, kind), None)

    @contextmanager
    def lock(self, key: str, kind: str = TOKEN, *, timeout: float, lease: float) -> Iterator[bool]:
        lock = self._locks.setdefault((key, kind), threading.Lock())
        held = lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        try:
            yield held
        finally:
            if held:
                lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryTokenStore, (), {"_documents": dict(self._documents)}

    def __repr__(self) -> str:
        return "MemoryTokenStore()"

    def _remake_locks(self) -> None:
        self._locks: dict[tuple[str, str], threading.Lock] = {}


PROCESS_MEMORY = MemoryTokenStore()
"""One for all: two clients that were both told `memory` must not issue twice within the minute."""


def key_of(credentials: Credentials) -> str:
    """
    Return where the token of `credentials` is kept: 32 hex digits of a SHA-256, from which no key can be read.

    The base URL is in it, since paper trading refuses a token of real trading (observed), and the secret, so that who
    has a wrong one never gets another's token.
    """
    identity = f"{credentials.base_url}\0{credentials.app_key}\0{credentials.app_secret}"
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _entry_of(key: str, token: AccessToken) -> dict[str, Any]:
    # With its key, so that one copied to another place is seen to be foreign.
    return {"version": 1, "key": key, "access_token": token.value, "expires_at": token.expires_at.isoformat()}
