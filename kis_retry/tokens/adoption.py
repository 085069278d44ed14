"""Taking over a token that another process put into the store, and sharing one with it: `TokenAdoption`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from ..errors import TokenIssueError, TokenIssueLimited
from ..policy import RetryPolicy
from ..stores.entry import StoreEntry
from ..token import AccessToken
from .freshness import CachedToken
from .issuer import TokenIssuer
from .memory import TokenMemory
from .source import Replacement

__all__ = ["TokenAdoption"]

_LOCK_MARGIN = 2.0  # seconds beyond issue_timeout in which a live holder of the store's lock is done


class TokenAdoption:
    """
    The token in the store, as one refresh finds it, and its lock. Runs on the thread of the refresh.

    Args:
        memory: where an adopted token goes.
        entry: what is shared in the store, when first needed.
        policy: the bounds, when first needed.
        issuer: knows how far KIS's clock is ahead.
    """

    def __init__(
        self,
        memory: TokenMemory,
        entry: Callable[[], StoreEntry],
        policy: Callable[[], RetryPolicy],
        issuer: TokenIssuer,
    ) -> None:
        self._memory = memory
        self._entry = entry
        self._policy = policy
        self._issuer = issuer

    @property
    def patience(self) -> float:
        """Seconds in which a live holder of the store's lock is done."""
        return self._policy().issue_timeout + _LOCK_MARGIN

    def lock(self, timeout: float) -> AbstractContextManager[bool]:
        """Whoever waits longer than a live holder needs goes on without: the holder hangs, or is stopped."""
        return self._entry().lock(timeout=timeout, lease=2 * self._policy().issue_timeout + 10)

    def value(self) -> str:
        """What the store holds now; empty where there is none."""
        found = self._entry().load()
        return found.value if found is not None else ""

    def adopt(self, rejected: str | None, before: str | None = None) -> Replacement | None:
        """
        A live token from the store: not the refused one, nor another that KIS refused before.

        One that took the place of `before` (a value, or empty where there was none) since this refresh began was just
        issued, whatever this machine's clock makes of its expiry.
        """
        token = self._shared(rejected)
        if token is None:
            return None
        appeared = before is not None and token.value != before
        if time.time() >= token.expires and not appeared:
            return None
        return self._adopted(token, issued=appeared)

    def adopt_doubtful(self, rejected: str | None, error: TokenIssueError) -> Replacement | None:
        """
        The token in the store that looks expired, where somebody just got one and this clock may be wrong.

        KIS's clock says whether it lives; where its answers have no date, KIS itself does, by refusing it.
        """
        token = self._shared(rejected) if isinstance(error, TokenIssueLimited) else None
        ahead = self._issuer.clock_ahead
        if token is None or (ahead is not None and time.time() + ahead >= token.expires):
            return None
        return self._adopted(token, issued=True)

    def adopt_later(self, cached: CachedToken) -> Replacement | None:
        """A token from the store that lives longer than the good one in memory."""
        token = self._shared(None)
        if token is None or token.expires <= cached.token.expires:
            return None
        return self._adopted(token, issued=False)

    def is_there(self, rejected: str | None, before: str) -> bool:
        """Whether there is another token by now, here or in the store."""
        return self._memory.current_unless(rejected) is not None or self.adopt(rejected, before) is not None

    def share(self, token: AccessToken) -> None:
        """Have the others adopt `token`, which this process got from KIS."""
        self._entry().save(token)

    def _shared(self, rejected: str | None) -> AccessToken | None:
        token = self._entry().load()
        return None if token is None or token.value == rejected or self._memory.has_refused(token.value) else token

    def _adopted(self, token: AccessToken, *, issued: bool) -> Replacement:
        self._memory.keep(token, margin=self._policy().refresh_margin, issued=issued)
        return Replacement(token, "store")
