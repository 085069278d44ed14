"""
One refresh for everybody: `Refresher`.

Look for another token in memory, in the store, and once more under the store's lock; only then ask KIS.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

from ..errors import TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit
from ..policy import RetryPolicy
from ..stores.base import TokenStore
from ..stores.entry import StoreEntry
from ..stores.from_env import store_from_env
from ..token import AccessToken
from .single_flight import done, then, without_traceback
from .source import CachedToken, LiveSource, Memory, Replacement

__all__ = ["Refresher"]

_MINUTE = 60.0  # seconds in which KIS issues one token for an app key (observed since 2023-10-27)
_LEAST_WAIT = 0.01  # seconds; less is the rounding of a sum of waits
_LOOK = 0.5  # seconds between two looks into the store while waiting for somebody else's token
_LAST_TRY = 0.5  # seconds that a token request gets at least, however little of issue_wait is left
_PROBE_TIMEOUT = 2.0  # seconds that a look in the cool-down, whether the endpoint is back, takes at most
_LOCK_MARGIN = 2.0  # seconds beyond issue_timeout in which a live holder of the store's lock is done
_OTHERS_TAKE = 1.0  # seconds after which it is looked again what came of another process's early renewal

_backoff = wait_exponential(multiplier=0.2, max=2) + wait_random(0, 0.2)


class Refresher(LiveSource):
    """What KIS issues to one app key, in memory and in a store, and the way to the next one; `ask` asks KIS once."""

    _entry: Any  # its place in the store, once the bounds of the first refresh are known

    def __init__(
        self,
        ask: Callable[[float], AccessToken],
        key: str,
        store: TokenStore | None,
        policy: RetryPolicy | None,
        clock: Any,
    ) -> None:
        self._ask_kis, self._key, self._clock, self._memory = ask, key, clock, Memory()
        self._policy, self._entry = policy, StoreEntry(store, key) if store is not None else None
        self._next_early = self._issued_at = self._minute_ends = -math.inf  # on the monotonic clock
        self._reissued = ""  # the last token of KIS's, where it was an old one

    @property
    def policy(self) -> RetryPolicy:  # type: ignore[override]  # only read
        """The policy given, or the environment's, read when first needed."""
        if self._policy is None:
            self._policy = RetryPolicy.from_env()
        return self._policy

    def _bounds(self) -> RetryPolicy:
        policy = self.policy
        if self._entry is None:
            self._entry = StoreEntry(store_from_env(), self._key)
        return policy

    def peek(self) -> AccessToken | None:
        cached, now = self._memory.current, self._clock.time()
        if cached is None or now >= cached.expired_at:
            return None
        if now < cached.stale_at or self._memory.flights.flights or self._clock.monotonic() < self._next_early:
            return cached.token  # others renew it
        return None

    def adopt(self, token: AccessToken) -> None:
        self._keep_issued(token)
        self._submit(f"share {token.value}", lambda _: self._entry.save(token))

    def token_future(self) -> Future[AccessToken]:
        token, cached = self.peek(), self._memory.current
        if token is not None:
            return done(token)
        if cached is None or self._clock.time() >= cached.expired_at:
            return self._renewed(cached, "replace", partial(self._replace, None))
        return self._renewed(cached, "early renewal", partial(self._renew_early, cached))

    def renewed_future(self) -> Future[AccessToken]:
        fresh, cached = super().peek(), self._memory.current
        if fresh is not None:
            return done(fresh)
        old = cached.token.value if cached is not None else None
        return self._renewed(cached, "replace", partial(self._replace, old))

    def _renewed(
        self, cached: CachedToken | None, key: str, renew: Callable[[float], Replacement]
    ) -> Future[AccessToken]:
        """Have `cached` renewed; where that fails, it is handed out, unless KIS refused it."""
        old = cached.token if cached is not None else None

        def token_of(ended: Future[Replacement]) -> AccessToken:
            token = self.current_unless(None) or old
            if ended.exception() is None or token is None or token.value in self._memory.refused:
                return ended.result().token
            return token

        return then(self._refreshed(key, renew if old is None else partial(self._telling, old, renew)), token_of)

    def _telling(self, old: AccessToken, renew: Callable[[float], Replacement], ends: float) -> Replacement:
        """Renew `old`, and tell what came of it."""
        began = self._clock.monotonic()
        try:
            replacement = renew(ends)
        except BaseException as error:
            if self._cooling() is None:  # else it was told when that began
                found = {"msg_cd": getattr(error, "code", None), "error": type(error).__name__}
                self._tell("token_refresh_failed", old.fingerprint, began, expires_at=old.expires_at, **found)
            raise
        if replacement.origin != "memory":
            self._tell_renewed(replacement, old.fingerprint, began)
        return replacement

    def _replace(self, rejected: str | None, ends: float) -> Replacement:
        found = self.current_unless(rejected)
        before = self._entry.load()
        adopted = Replacement(found, "memory") if found is not None else self._adopt(rejected, before)
        if adopted is not None:
            return adopted
        failure = self._cooling()
        if failure is not None:
            if not getattr(failure, "retryable", False):
                raise without_traceback(failure)
            with suppress(TokenIssueLimited):
                return self._ask(rejected, before, self._clock.monotonic() + _PROBE_TIMEOUT, once=True)
            self._memory.failure = (
                None  # it is back, and to wait out its minute, with whoever joins, is certain to help
            )
        return self._ask(rejected, before, ends, once=not self.policy.issue_wait)

    def _renew_early(self, cached: CachedToken, _: float) -> Replacement:
        """Get a token in place of `cached`, which is good still: one try, and no waiting for anything."""
        now = self._clock.monotonic()
        self._next_early = now + _OTHERS_TAKE
        with self._store_lock(0) as held:
            renewed = self._adopt(cached.token.value, self._entry.load())
            if self._memory.current is not cached or held is False:
                return renewed or Replacement(cached.token, "memory")
            self._next_early = now + self.policy.issue_cooldown
            return self._issue(self.policy.issue_timeout)

    def _ask(self, rejected: str | None, before: AccessToken | None, ends: float, *, once: bool) -> Replacement:
        """Go through the store's lock to KIS, until there is a token or the time is over."""
        told: list[float] = []

        def left() -> Any:
            return max(ends - self._clock.monotonic(), 0.0)

        def attempt() -> Replacement:
            with self._store_lock(min(self.policy.issue_timeout + _LOCK_MARGIN, left() / 2)):
                adopted = self._adopt(rejected, before)
                if adopted is None and self._minute_left() > _LEAST_WAIT:  # KIS said so a moment ago
                    raise TokenIssueLimited("KIS issues one token a minute", code="EGW00133", retryable=True)
                return adopted or self._issue(max(min(self.policy.issue_timeout, left()), _LAST_TRY))

        def wait(state: RetryCallState) -> float:
            return float(min(min(_LOOK, self._minute_left()) if _is_minute(state) else _backoff(state), left()))

        def tell(state: RetryCallState) -> None:
            is_new = state.attempt_number == 1 or (_is_minute(state) and self._minute_ends not in told)
            if is_new:  # each minute that is waited out is told, of an endpoint that is away the first wait
                told.append(self._minute_ends)
                seconds, error = min(self._minute_left(), left()) if _is_minute(state) else left(), _error_of(state)
                code, name = getattr(error, "code", None), type(error).__name__
                emit(RefreshEvent(name="token_issue_waiting", msg_cd=code, wait=seconds, error=name))

        return Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, TokenIssueError) and error.retryable),
            stop=lambda _: once or left() < _LEAST_WAIT,
            wait=wait,
            sleep=self._clock.sleep,
            before_sleep=tell,
            reraise=True,
        )(attempt)

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
        token = self._entry.load()
        if token is None or token.value == rejected or token.value in self._memory.refused:
            return None
        if token == before and self._clock.time() >= token.expires:
            return None
        now, margin = self._clock.time(), self.policy.refresh_margin
        self._memory.keep(token, now, margin=margin, just_issued=token != before)
        return Replacement(token, "store")

    def _keep_issued(self, token: AccessToken) -> None:
        self._reissued = token.value if self.is_dead(token.value) else ""
        self._issued_at, margin = self._clock.monotonic(), self.policy.refresh_margin
        self._memory.keep(token, self._clock.time(), margin=margin, just_issued=True)

    def _store_lock(self, timeout: float) -> AbstractContextManager[bool | None]:
        """Wait for the store's lock; whoever waits longer than a live holder needs goes on without."""
        lock: AbstractContextManager[bool | None] = self._entry.lock(
            timeout=timeout, lease=2 * self.policy.issue_timeout + 10
        )
        return lock

    def _minute_left(self) -> float:
        return float(self._minute_ends - self._clock.monotonic())

    def _tell_renewed(self, replacement: Replacement, previous: str | None, began: float) -> None:
        token, origin = replacement
        found = {"token": token.fingerprint, "expires_at": token.expires_at, "source": origin}
        self._tell("token_refreshed" if origin == "issued" else "token_adopted", previous, began, **found)

    def _tell(self, name: Any, previous: str | None, began: float, **found: Any) -> None:
        if self.credentials is None:  # it is the websocket key, and events are about tokens
            return
        elapsed, level = self._clock.monotonic() - began, logging.DEBUG if found.get("source") == "memory" else None
        emit(RefreshEvent(name=name, previous_token=previous, elapsed=elapsed, **found), level)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _is_minute(state: RetryCallState) -> bool:
    return isinstance(_error_of(state), TokenIssueLimited)
