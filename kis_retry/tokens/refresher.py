"""
One refresh for all threads and processes: `TokenRefresher`.

Look for a newer token in memory, again once no other thread of this process refreshes, again under the store's lock,
and only then request one. The refresh runs on a thread of its own, and callers wait for it: so `issue_wait` bounds
their waiting, whatever the refresh itself waits for, and an exception of a signal handler is theirs alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..errors import TokenIssueError
from ..policy import RetryPolicy
from ..stores.entry import StoreEntry
from ..token import AccessToken
from .adoption import TokenAdoption
from .early import EarlyRenewal
from .freshness import CachedToken, Freshness
from .issuer import TokenIssuer
from .memory import TokenMemory
from .refresh_events import emit_renewed
from .request import TokenRequest
from .single_flight import AskedWithinError, SingleFlight, StillUnderWayError
from .source import Replacement

__all__ = ["TokenRefresher"]

_GRACE = 0.75  # seconds more than its own bound that a refresh gets to say how it ended

_EARLY = "early renewal"  # as keys of a request; no token holds a space
_REVOKE = "revoke it"


class TokenRefresher:
    """
    The way from the token in memory to another one. Safe to share between threads.

    Args:
        issuer: asks KIS.
        policy: the bounds, when first needed.
        entry: what is shared in the store, when first needed.
        sleep: waits, in seconds.

    Attributes:
        memory: what this process knows of its tokens.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        policy: Callable[[], RetryPolicy],
        entry: Callable[[], StoreEntry],
        sleep: Callable[[float], None] | None,
    ) -> None:
        self.memory = TokenMemory()
        self._issuer = issuer
        self._policy = policy
        self._entry = entry
        self._adoption = TokenAdoption(self.memory, entry, policy, issuer)
        self._request = TokenRequest(self.memory, self._adoption, issuer, policy, sleep)
        self._early = EarlyRenewal(self.memory, self._adoption, self._request, policy)
        self._flights: SingleFlight[Any] = SingleFlight("kis_retry-refresh")  # the memory changes on its thread

    def peek(self) -> AccessToken | None:
        """The token in memory, if it needs no renewal, or none that this caller should begin. Never blocks."""
        cached = self.memory.cached
        if cached is None:
            return None
        now = time.time()
        if now < cached.stale_at:
            return cached.token
        waived = self._flights.busy or not self._early.may_begin(time.monotonic())
        return cached.token if waived and now < cached.expired_at else None

    def renewal_due(self) -> bool:
        """Whether there is a token in memory, and this caller should renew it before it is used. Never blocks."""
        return self.memory.cached is not None and self.peek() is None

    def replace(self, rejected: str | None) -> Replacement:
        """
        A token in place of `rejected`, which KIS refused (None: any will do).

        Raises:
            TokenIssueError: none can be had.
        """
        if rejected is not None and self.memory.current_unless(rejected) is None:
            self.memory.note_refused(rejected)
        return self._replace(rejected)

    def current_or_refreshed(self, cached: CachedToken) -> AccessToken:
        """The token to use instead of one that is stale or expired; the same one where no other can be had."""
        if cached.freshness(time.time()) is Freshness.EXPIRED:
            return self._renew_expired(cached)
        began = time.monotonic()
        if self._early.may_begin(began) and not self._flights.busy:
            self._renew_early(cached, began)
        return (self.memory.cached or cached).token

    def revoke(self) -> bool:
        """Have KIS forget the shared token, then forget it here and in the store; False where there is none."""
        found: bool = self._wait(_REVOKE, self._revoke, look=lambda: None)[0]
        return found

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._issuer.after_fork()

    def _replace(self, rejected: str | None) -> Replacement:
        def look() -> Replacement | None:
            other = self.memory.current_unless(rejected)
            return Replacement(other, "memory") if other is not None else None

        def refresh() -> Replacement:
            return self._request.replace(rejected, self._limit())

        replacement: Replacement
        replacement, mine = self._wait(rejected, refresh, look)
        return replacement if mine else Replacement(replacement.token, "memory")

    def _renew_expired(self, cached: CachedToken) -> AccessToken:
        """Everybody waits; if there is no other, the old one lets KIS's own answer reach the caller."""
        began = time.monotonic()
        try:
            token, origin = self._replace(cached.token.value)
        except TokenIssueError as error:
            if self.memory.cooldown.failed_at >= began:  # during the cool-down it has been emitted already
                emit_renewed(cached.token, error, began)
            return cached.token
        emit_renewed(cached.token, token if origin == "issued" else None, began)
        return token

    def _renew_early(self, cached: CachedToken, began: float) -> None:
        """One caller renews it; others go on with it meanwhile."""
        flight, mine = self._flights.begin(_EARLY, lambda: self._early.renew(cached))
        if not mine or not flight.wait(self._limit()):
            return
        outcome: AccessToken | TokenIssueError | None
        try:
            outcome = flight.outcome()
        except TokenIssueError as error:
            outcome = error
        emit_renewed(cached.token, outcome, began)

    def _revoke(self) -> bool:
        entry = self._entry()
        with self._adoption.lock(self._adoption.patience):
            cached = self.memory.cached.token if self.memory.cached is not None else None
            known = [token for token in (cached, entry.load()) if token is not None]
            if not known:
                return False
            token = max(known, key=lambda token: token.expires)  # another process may have renewed it since
            self._issuer.revoke(token, self._policy().issue_timeout)
            self.memory.forget(token)
            entry.delete()
            return True

    def _wait(self, key: object, ask: Callable[[], Any], look: Callable[[], Any]) -> tuple[Any, bool]:
        """Have `ask` run on its thread, or join who asks for the same, for as long as the policy allows."""
        limit = self._limit()
        self._entry()  # an unusable setting is the caller's error and no failed refresh
        try:
            return self._flights.run(key, ask, look=look, seconds=limit + _GRACE)
        except AskedWithinError:
            failure = TokenIssueError(
                "a token was asked for by what runs while it is being issued (a hook of on_event, a session or store "
                "of your own), which would wait for itself",
                retryable=True,
            )
        except StillUnderWayError as late:
            found = look()
            if found is not None:
                return found, False
            failure = TokenIssueError(f"no token could be had in {limit:g} seconds", retryable=True)
            if late.seconds >= limit:  # it hangs, in a store most likely, and is nothing to wait for
                self._flights.give_up(late.flight)
                self.memory.cooldown.begin(failure, time.monotonic())
        # Raised out here: in there the error would carry the other one, and with it the frames, as its context.
        raise failure

    def _limit(self) -> float:
        """Seconds that a refresh may take in all; without `issue_wait` it is one try."""
        policy = self._policy()
        return policy.issue_wait or policy.issue_timeout
