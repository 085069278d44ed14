"""Where a token is shared: the contract of a store (`TokenStore`), and by which key."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..token import AccessToken

if TYPE_CHECKING:
    from ..credentials import Credentials

__all__ = ["TokenStore", "key_of"]


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
