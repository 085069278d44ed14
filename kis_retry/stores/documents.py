"""
Bytes and locks, apart from what is kept in them: `DocumentStore`, and a token store made of one.

A document is named by whose it is (`key_of`) and by its kind: the token is one, a shared pace another. A store of this
package keeps any kind; a `TokenStore` that somebody else wrote keeps tokens alone.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from .codec import MAX_ENTRY, decode, encode

if TYPE_CHECKING:
    from ..token import AccessToken

__all__ = ["MAX_DOCUMENT", "TOKEN", "DocumentStore", "DocumentTokenStore", "documents_of"]

TOKEN = "token"  # noqa: S105  # the kind of document, no secret
MAX_DOCUMENT = MAX_ENTRY
"""Bytes that a document may have, of whatever kind; a reader need not take in more than one byte beyond."""

_LEAST_TTL = 60.0  # seconds a token is kept even where this clock says that it is over: the clock may be wrong


class DocumentStore(Protocol):
    """
    Small documents by key and kind, each kind with a lock of its own. Called from any thread; every method may block.

    What it reads is not to be trusted: anybody may have written it. A kind is a short word that this package chose.
    Where the engine cannot be reached or written, its own exception comes out (`OSError`, the Redis client's).
    """

    def read(self, key: str, kind: str) -> bytes | None:
        """Hand back the document as it was written; None where there is none that this user may believe."""

    def write(self, key: str, kind: str, data: bytes, ttl: float | None) -> None:
        """
        Put `data` in the place of whatever is there. Readers see the old document or the new one, never a half.

        Args:
            key: whose it is.
            kind: what it is.
            data: `MAX_DOCUMENT` bytes at most.
            ttl: seconds after which nobody needs it; an engine that can drops it then. None: it is kept.
        """

    def delete(self, key: str, kind: str) -> None:
        """Take the document away; where there is none, nothing happens."""

    def lock(self, key: str, kind: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
        """Wait for the one lock of `key` and `kind`, as `TokenStore.lock` does."""


class DocumentTokenStore:
    """A `TokenStore` whose tokens are documents of kind `TOKEN` in `documents`."""

    def __init__(self, documents: DocumentStore) -> None:
        self.documents = documents

    def load(self, key: str) -> AccessToken | None:
        """
        Hand back the entry, be it expired or not; None where there is none that can be used.

        Raises:
            Exception: the engine's own (`OSError`, redis-py's), where it cannot be read.
        """
        data = self.documents.read(key, TOKEN)
        return None if data is None else decode(data, key)

    def save(self, key: str, token: AccessToken) -> None:
        """
        Put `token` in the place of whatever is there, until it expires.

        Raises:
            Exception: the engine's own, where it cannot be written; the old entry is as it was then.
        """
        ttl = max(token.expires - time.time(), _LEAST_TTL)
        self.documents.write(key, TOKEN, encode(key, token).encode("ascii"), ttl)

    def delete(self, key: str) -> None:
        """
        Take the entry away; where there is none, nothing happens.

        Raises:
            Exception: the engine's own, where it cannot be written.
        """
        self.documents.delete(key, TOKEN)

    def lock(self, key: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
        """
        Wait up to `timeout` seconds for the lock of `key`; the context's value says whether this caller holds it.

        Where no operating system releases the lock of a holder that died (Redis), it is free after `lease` seconds.

        Raises:
            Exception: the engine's own, while waiting.
        """
        return self.documents.lock(key, TOKEN, timeout=timeout, lease=lease)


def documents_of(store: object) -> DocumentStore | None:
    """The documents behind a token store of this package; None for one of somebody else's, whatever its attributes."""
    return store.documents if isinstance(store, DocumentTokenStore) else None
