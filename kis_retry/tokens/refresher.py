"""
One refresh for everybody: `Refresher`.

Look for another token in memory, in the store, and once more under the store's lock; only then ask KIS.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..errors import TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit
from ..policy import RetryPolicy
from ..stores.base import TokenStore
from ..stores.entry import StoreEntry, store_from_env
from ..token import AccessToken
from .single_flight import without_traceback
from .source import CachedToken, LiveSource, Memory, Replacement

__all__ = ["Refresher"]

_MINUTE = 60.0  # seconds in which KIS issues one token for an app key (observed since 2023-10-27)
_LEAST_WAIT = 0.01  # seconds; less is the rounding of a sum of waits
_LOOK = 0.5  # seconds between two looks into the store while waiting for somebody else's token
_BACKOFF, _LONGEST = 0.2, 2.0  # seconds; so much longer is each pause while the endpoint is away, with jitter
_LAST_TRY = 0.5  # seconds that a token request gets at least, however little of issue_wait is left
_LOCK_MARGIN = 2.0  # seconds beyond issue_timeout in which a live holder of the store's lock is done
_OTHERS_TAKE = 1.0  # seconds after which it is looked again what came of another process's early renewal

_AskKis = Callable[[float], AccessToken]


class Refresher(LiveSource):
    """What KIS issues to one app key, in memory and in a store, and the way to the next one; `ask` asks KIS once."""

    def __init__(
        self, ask: _AskKis, key: str, store: TokenStore | None, policy: RetryPolicy | None, clock: Any
    ) -> None:
        self._ask_kis, self._key, self._clock, self._memory = ask, key, clock, Memory()
        self._policy, entry = policy, StoreEntry(store, key) if store is not None else None
        self._entry: StoreEntry = entry  # type: ignore[assignment]  # `_bounds` makes it before it is asked
        self._issued_at = self._minute_ends = -math.inf  # on the monotonic clock
        self._reissued = ""  # the last token of KIS's, where it was an old one

    @property
    def policy(self) -> RetryPolicy:  # type: ignore[override]  # only read
        """The policy given, or the environment's, read when first needed."""
        if self._policy is None:
            self._policy = RetryPolicy.from_env()
        return self._policy

    def adopt(self, token: AccessToken) -> None:
        self._keep_issued(token)
        self._submit(f"share {token.value}", lambda _: self._entry.save(token))

    def _bounds(self) -> RetryPolicy:
        policy = self.policy
        self._entry = self._entry or StoreEntry(store_from_env(), self._key)
        return policy

    def _renew_early(self, cached: CachedToken, _: float) -> Replacement:
        """Get a token in place of `cached`, which is good still: one try, and no waiting for anything."""
        now = self._clock.monotonic()
        self._memory.next_early = now + _OTHERS_TAKE
        with self._store_lock(0) as held:
            renewed = self._adopt(cached.token.value, self._entry.load())
            if self._memory.current is not cached or not held:
                return renewed or Replacement(cached.token, "memory")
            self._memory.next_early = now + self.policy.issue_cooldown
            return self._issue(self.policy.issue_timeout)

    def _ask(self, rejected: str | None, ends: float) -> Replacement:
        before, failure = self._entry.load(), self._cooling()
        adopted = self._adopt(rejected, before)
        if adopted is None and failure is not None:
            raise without_traceback(failure)
        failures, told = 0, set[float]()
        while adopted is None:
            try:
                adopted = self._attempt(rejected, before, ends)
            except TokenIssueError as error:
                left = ends - self._clock.monotonic()
                if not error.retryable or not self.policy.issue_wait or left < _LEAST_WAIT:
                    raise
                failures, is_minute = failures + 1, isinstance(error, TokenIssueLimited)
                if self._minute_ends not in told:  # each minute that is waited out, and one wait for the endpoint
                    told.add(self._minute_ends)
                    most, name = min(self._minute_left(), left) if is_minute else left, type(error).__name__
                    emit(RefreshEvent(name="token_issue_waiting", msg_cd=error.code, wait=most, error=name))
                jitter = random.uniform(0, _BACKOFF)  # noqa: S311  # no key
                pause = min(_LOOK, self._minute_left()) if is_minute else min(_BACKOFF * failures, _LONGEST) + jitter
                self._clock.sleep(min(pause, left))
        return adopted

    def _attempt(self, rejected: str | None, before: AccessToken | None, ends: float) -> Replacement:
        """Go through the store's lock to KIS, once."""
        timeout, left = self.policy.issue_timeout, ends - self._clock.monotonic()
        with self._store_lock(min(timeout + _LOCK_MARGIN, left / 2)):
            adopted = self._adopt(rejected, before)
            if adopted is None and self._minute_left() > _LEAST_WAIT:  # KIS said so a moment ago
                raise TokenIssueLimited("KIS issues one token a minute", code="EGW00133", retryable=True)
            return adopted or self._issue(max(min(timeout, ends - self._clock.monotonic()), _LAST_TRY))

    def _issue(self, timeout: float) -> Replacement:
        """Ask KIS once."""
        try:
            token = self._ask_kis(timeout)
        except TokenIssueLimited as error:
            now, ours = self._clock.monotonic(), self._issued_at + _MINUTE
            self._minute_ends = ours if ours > now else now + _MINUTE
            if now < ours and self._reissued in self._memory.refused:
                # KIS hands the refused one out again, as it does for six hours: waiting would only bring it back.
                raise TokenIssueLimited("KIS refuses a token that it hands out again", code=error.code) from None
            raise
        self._keep_issued(token)
        self._entry.save(token)
        return Replacement(token, "issued")

    def _adopt(self, rejected: str | None, before: AccessToken | None) -> Replacement | None:
        """
        Take a live token from the store: not the refused one, nor another that KIS refused before.

        One that took the place of `before` since this refresh began was just issued, whatever this machine's clock
        makes of its expiry.
        """
        token, now = self._entry.load(), self._clock.time()
        if token is None or token.value == rejected or token.value in self._memory.refused:
            return None
        if token == before and now >= token.expires:
            return None
        self._memory.keep(token, now, margin=self.policy.refresh_margin, just_issued=token != before)
        return Replacement(token, "store")

    def _keep_issued(self, token: AccessToken) -> None:
        self._reissued = token.value if self.is_dead(token.value) else ""
        self._issued_at, margin = self._clock.monotonic(), self.policy.refresh_margin
        self._memory.keep(token, self._clock.time(), margin=margin, just_issued=True)

    def _store_lock(self, timeout: float) -> AbstractContextManager[bool]:
        """Wait for the store's lock; whoever waits longer than a live holder needs goes on without."""
        return self._entry.lock(timeout=timeout, lease=2 * self.policy.issue_timeout + 10)

    def _minute_left(self) -> float:
        return float(self._minute_ends - self._clock.monotonic())
