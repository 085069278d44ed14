"""
Where a token is shared: the contract (`TokenStore`), what an entry looks like, and the store of one process.

An entry is JSON and is believed in nothing: whatever is not exactly what `encode` writes reads as "no token".
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from weakref import WeakSet

from .token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .token import Credentials

__all__ = ["MAX_ENTRY", "MemoryTokenStore", "TokenStore", "decode", "encode", "key_of"]

MAX_ENTRY = 16 * 1024
"""Characters that an entry may have; KIS's tokens have at most 350 (tokenP page)."""

_VERSION = 1


@runtime_checkable
class TokenStore(Protocol):
    """
    A place for tokens, by key (`key_of`). Called from any thread; every method may block on disk or network.

    What a place holds is not trusted: a damaged, foreign or unreadable entry is a miss, and the next `save` heals it.
    An engine that cannot be reached is an exception (`OSError`, the Redis client's own): `TokenManager` makes one
    warning of it and goes on with the token in memory.

    `kis_retry.testing.TokenStoreCompliance` tests a store of your own against this contract.
    """

    def load(self, key: str) -> AccessToken | None:
        """Hand back the entry, be it expired or not; None where there is none that can be used."""

    def save(self, key: str, token: AccessToken) -> None:
        """Put `token` in the place of whatever is there. Readers see the old one or the new one, never a half."""

    def delete(self, key: str) -> None:
        """Take the entry away; where there is none, nothing happens."""

    def lock(self, key: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
        """
        Wait for the one lock of `key`; the context's value says whether this caller holds it.

        One holder at a time among everybody who shares the place. Not reentrant. A lock that cannot be released (the
        lease ran out, the server is gone) is let go silently: what the body did must not be lost to that.

        Args:
            key: other keys have locks of their own.
            timeout: seconds to wait at most; 0: one try.
            lease: seconds after which a holder that died no longer blocks the rest, where no operating system
                releases it. A live holder must be done by then.
        """


def key_of(credentials: Credentials) -> str:
    """
    Where the token of `credentials` is kept: 32 hex digits of a SHA-256, from which no app key can be read.

    Of the base URL too: a token of real trading is refused by paper trading and the other way round (observed).
    """
    identity = f"{credentials.base_url}\0{credentials.app_key}"
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def encode(key: str, token: AccessToken) -> str:
    """Write an entry: JSON, with the key, so that one copied to another place is seen to be foreign."""
    expires_at = token.expires_at.isoformat()
    return json.dumps({"version": _VERSION, "key": key, "access_token": token.value, "expires_at": expires_at})


def decode(data: str | bytes, key: str) -> AccessToken | None:
    """
    Read an entry; None for anything that `encode` did not write for `key`. Never raises.

    Damage that is caught: not JSON, oversized, another version or key, a date that is naive or out of this world, a
    token that is no plain ASCII word and so could break out of a header.
    """
    try:
        if len(data) > MAX_ENTRY:
            return None
        return _token_of(json.loads(data if isinstance(data, str) else data.decode()), key)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _token_of(entry: Any, key: str) -> AccessToken | None:
    version = entry.get("version") if isinstance(entry, dict) else None
    if type(version) is not int or version != _VERSION or entry.get("key") != key:  # `True == 1`, and 1.0 too
        return None
    value, stamp = entry.get("access_token"), entry.get("expires_at")
    if not isinstance(value, str) or not value.isascii() or not isinstance(stamp, str):
        return None
    expires_at = datetime.fromisoformat(stamp)
    # What fromisoformat takes differs between Pythons; what isoformat writes does not.
    if expires_at.isoformat() != stamp:
        return None
    return AccessToken(value, expires_at)


class MemoryTokenStore:
    """
    Tokens shared by the threads of one process that hold this instance.

    For one process that needs nothing on disk, and for tests. It survives `os.fork` (the child gets a copy and fresh
    locks) and pickling (entries travel, locks are remade); after either the two no longer share.
    """

    def __init__(self) -> None:
        self._restore({})

    def load(self, key: str) -> AccessToken | None:
        """Hand back what was saved last, or None."""
        return self._entries.get(key)

    def save(self, key: str, token: AccessToken) -> None:
        """Keep `token`."""
        self._entries[key] = token

    def delete(self, key: str) -> None:
        """Forget the entry."""
        self._entries.pop(key, None)

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """Wait up to `timeout` seconds for the lock of `key` among this process's threads; `lease` means nothing."""
        lock = self._locks.setdefault(key, threading.Lock())
        held = lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        try:
            yield held
        finally:
            if held:
                lock.release()

    def __getstate__(self) -> dict[str, AccessToken]:
        return dict(self._entries)

    def __setstate__(self, entries: dict[str, AccessToken]) -> None:
        self._restore(entries)

    def __repr__(self) -> str:
        return "MemoryTokenStore()"

    def _restore(self, entries: dict[str, AccessToken]) -> None:
        self._entries = entries
        self._remake_locks()
        _memory_stores.add(self)

    def _remake_locks(self) -> None:
        self._locks: dict[str, threading.Lock] = {}


_memory_stores: WeakSet[MemoryTokenStore] = WeakSet()


def _remake_all_locks() -> None:
    for store in _memory_stores:
        store._remake_locks()  # noqa: SLF001  # of this module


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has no fork
    # The thread that held a lock at the moment of the fork does not exist in the child and would never release it.
    os.register_at_fork(after_in_child=_remake_all_locks)
