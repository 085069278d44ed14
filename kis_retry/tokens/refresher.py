"""
One refresh for everybody: `Refresher`.

Look for another token in memory, once nobody in this process refreshes, in the store, and once more under the store's
lock; only then ask KIS. The minute between two tokens is waited out, an endpoint that is away is asked again, and after
a failure for good nobody asks for a while.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

from ..errors import ConfigurationError, TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit
from ..forking import after_fork
from ..policy import RetryPolicy
from ..stores.base import TokenStore
from ..stores.entry import StoreEntry
from ..stores.from_env import store_from_env
from ..token import AccessToken, fingerprint
from .cache import CachedToken, Clock, TokenCache
from .issuer import TokenIssuer
from .single_flight import SingleFlight, done, failed, then, without_traceback
from .source import LiveSource, Replacement, joined

__all__ = ["Refresher"]

_MINUTE = 60.0  # seconds in which KIS issues one token for an app key (observed since 2023-10-27)
_LEAST_WAIT = 0.01  # seconds; less is the rounding of a sum of waits
_LOOK = 0.5  # seconds between two looks into the store while waiting for somebody else's token
_LAST_TRY = 0.5  # seconds that a token request gets at least, however little of issue_wait is left
_PROBE = 1.0  # seconds between two looks in the cool-down whether the endpoint is back
_PROBE_TIMEOUT = 2.0  # seconds that such a look takes at most
_LOCK_MARGIN = 2.0  # seconds beyond issue_timeout in which a live holder of the store's lock is done
_OTHERS_TAKE = 1.0  # seconds after which it is looked again what came of another process's early renewal

_backoff = wait_exponential(multiplier=0.2, max=2) + wait_random(0, 0.2)


class Refresher(LiveSource):
    """
    What KIS issues to one app key, in memory and in a store, and the way to the next one.

    Args:
        issuer: knows how far KIS's clock is ahead.
        ask: asks KIS, for so many seconds at most.
        key: by which it is shared.
        store: where; without one, what `KIS_TOKEN_STORE` names, when first needed.
        policy: the bounds; without one, `RetryPolicy.from_env()` when first needed.
        clock: tells the time.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        ask: Callable[[float], AccessToken],
        key: str,
        *,
        store: TokenStore | None,
        policy: RetryPolicy | None,
        clock: Clock,
    ) -> None:
        self._issuer, self._ask_kis, self._key, self._clock = issuer, ask, key, clock
        self._given = store, policy
        self._policy, self._entry_made = policy, None if store is None else StoreEntry(store, key)
        self._cache = TokenCache(clock)
        self._flights = SingleFlight("kis_retry-refresh")
        self._after_fork()
        after_fork(self, Refresher._after_fork)
        # The last failure for good; instants are on the monotonic clock.
        self._failure: TokenIssueError | None = None
        self._failed_at = self._next_probe = self._next_early = -math.inf
        self._issued, self._issued_at, self._reissued_same = "", -math.inf, False
        self._minute_ends = -math.inf  # known from a refusal

    def _after_fork(self) -> None:
        self._turn = threading.Lock()  # of this process: one thing at a time

    @property
    def policy(self) -> RetryPolicy:  # type: ignore[override]  # only read
        """The policy given, or the environment's, read when first needed."""
        if self._policy is None:
            self._policy = RetryPolicy.from_env()
        return self._policy

    @property
    def _entry(self) -> StoreEntry:
        if self._entry_made is None:
            self._entry_made = StoreEntry(store_from_env(), self._key)
        return self._entry_made

    # -- for callers, who never wait here

    def peek(self) -> AccessToken | None:
        cached, now = self._cache.current, self._clock.time()
        if cached is None or now >= cached.expired_at:
            return None
        others_renew = self._flights.busy or self._clock.monotonic() < self._next_early
        return cached.token if now < cached.stale_at or others_renew else None

    def adopt(self, token: AccessToken) -> None:
        self._keep_issued(token)
        self._submit(f"share {token.value}", lambda _: self._entry.save(token))

    def token_future(self) -> Future[AccessToken]:
        token, cached, began = self.peek(), self._cache.current, self._clock.monotonic()
        if token is not None:
            return done(token)
        if cached is None or self._clock.time() >= cached.expired_at:
            old = cached.token if cached is not None else None
            return self._told(began, old, *self._replaced(old.value if old is not None else None))
        future, is_first = self._submit("early renewal", lambda _: self._renew_early(cached))
        return self._told(began, cached.token, future, is_first) if is_first else done(cached.token)

    def renewed_future(self) -> Future[AccessToken]:
        fresh, current, began = self._cache.fresh, self._cache.current, self._clock.monotonic()
        if fresh is not None:
            return done(fresh)
        old = current.token if current is not None else None
        return self._told(began, old, *self._refreshed("a fresh one", self._renew))

    def replace_future(self, rejected: str | None) -> Future[Replacement]:
        if rejected is not None:
            self.note_refused(rejected)
        return self._replaced(rejected)[0]

    def _replaced(self, rejected: str | None) -> tuple[Future[Replacement], bool]:
        """Get a token in place of `rejected`, and tell whether this caller began the refresh."""
        found = self.current_unless(rejected)
        if found is not None:
            return done(Replacement(found, "memory")), False
        future, is_first = self._refreshed(rejected or "", partial(self._replace, rejected))
        return future if is_first else joined(future), is_first

    def _refreshed(self, key: str, ask: Callable[[float], Replacement]) -> tuple[Future[Replacement], bool]:
        """Have `ask` called, unless the last refresh failed for good and it is nobody's turn to look again."""
        failure, now = self._cooling(), self._clock.monotonic()
        if failure is not None and (self._flights.busy or now < self._next_probe):
            return failed(failure), False
        self._next_probe = now + _PROBE
        return self._submit(key, ask)

    def _submit(self, key: str, ask: Callable[[float], Any]) -> tuple[Future[Any], bool]:
        """Have `ask` called with the instant at which it has to end, once nothing else is asked for."""
        try:
            limit = self.policy.issue_wait or self.policy.issue_timeout
            self._entry  # noqa: B018  # an unusable setting is the caller's error and no failed refresh
        except ConfigurationError as error:
            return failed(error), False
        ends = self._clock.monotonic() + limit

        def in_turn() -> Any:
            turn = self._turn
            if not turn.acquire(timeout=limit):
                raise TokenIssueError("another request for a token hangs", retryable=True)
            try:
                return ask(ends)
            finally:
                turn.release()

        return self._flights.submit(key, in_turn, limit, self._give_up)

    def _give_up(self, error: Exception) -> None:
        """Let the next one have its turn, though something hangs: in a store most likely."""
        self._turn = threading.Lock()
        self._begin_cooldown(error)

    def _told(
        self,
        began: float,
        old: AccessToken | None,
        future: Future[Replacement],
        is_first: bool,
    ) -> Future[AccessToken]:
        """Tell what became of the renewal of `old`; where it failed, that is handed out unless KIS refused it."""

        def tell(ended: Future[Replacement]) -> AccessToken:
            error = ended.exception()
            is_new = self._failure is None or self._failed_at >= began  # else it was told when the cool-down began
            if error is None:
                if old is not None and is_first and ended.result().origin != "memory":
                    self._tell_renewed(ended.result(), old.value, began)
                return ended.result().token
            if old is not None and is_first and is_new:
                self._tell_failed(error, old, began)
            token = self.current_unless(None) or old
            if token is None or token.value in self._cache.refused:
                raise error
            return token

        return then(future, tell)

    # -- on the thread of a refresh

    def _replace(self, rejected: str | None, ends: float) -> Replacement:
        """Get a token in place of `rejected` (None: any will do)."""
        found = self.current_unless(rejected)
        if found is not None:
            return Replacement(found, "memory")
        shared = self._entry.load()
        before = shared.value if shared is not None else ""
        adopted = self._adopt(rejected)
        if adopted is not None:
            return adopted
        failure = self._cooling()
        if failure is not None:
            if not failure.retryable:
                raise without_traceback(failure)
            with suppress(TokenIssueLimited):
                return self._ask(rejected, before, self._clock.monotonic() + _PROBE_TIMEOUT, once=True)
            self._failure = None  # it is back, and to wait out its minute, with whoever joins, is certain to help
        try:
            return self._ask(rejected, before, ends, once=not self.policy.issue_wait)
        except BaseException as error:  # of somebody's code that exits, too: nobody asks again at once
            if not (isinstance(error, TokenIssueLimited) and error.retryable):  # the next one waits for the minute
                self._begin_cooldown(error)
            raise

    def _renew(self, ends: float) -> Replacement:
        """Get a token that is not about to expire, if KIS gives one; else one that is good still."""
        found = self._replace(None, ends)
        if self._cache.fresh is None:
            with suppress(TokenIssueError):
                return self._replace(found.token.value, ends)
        return found

    def _renew_early(self, cached: CachedToken) -> Replacement:
        """Get a token in place of `cached`, which is good still: one try, and no waiting for anything."""
        if self._cache.current is not cached:
            return Replacement(cached.token, "memory")
        now = self._clock.monotonic
        self._next_early = now() + max(self.policy.issue_cooldown, _OTHERS_TAKE)
        with self._store_lock(0) as held:
            shared = self._load_shared(cached.token.value)
            if shared is not None and shared.expires > cached.token.expires:
                renewed = self._adopted(shared)
            elif held is False:
                self._next_early = now() + _OTHERS_TAKE
                return Replacement(cached.token, "memory")
            else:
                renewed = self._issue(None, self.policy.issue_timeout)
        self._next_early = -math.inf
        return renewed

    def _ask(self, rejected: str | None, before: str, ends: float, *, once: bool) -> Replacement:
        """Go through the store's lock to KIS, until there is a token or the time is over."""
        is_known = self._minute_left() > 0  # the last refresh was told: KIS need not say it again

        def left() -> float:
            return max(ends - self._clock.monotonic(), 0.0)

        def attempt() -> Replacement:
            nonlocal is_known
            with self._store_lock(min(self.policy.issue_timeout + _LOCK_MARGIN, left() / 2)):
                adopted = self._adopt(rejected, before)
                if adopted is not None:
                    return adopted
                if is_known:
                    is_known = False
                    raise TokenIssueLimited("KIS issues one token a minute", code="EGW00133", retryable=True)
                return self._issue(rejected, max(min(self.policy.issue_timeout, left()), _LAST_TRY))

        def sleep(seconds: float) -> None:
            gets_up = self._clock.monotonic() + seconds
            while (nap := min(_LOOK, gets_up - self._clock.monotonic())) > 0:
                self._clock.sleep(nap)
                if self.current_unless(rejected) is not None or self._adopt(rejected, before) is not None:
                    return

        return _retrying(left, self._minute_left, sleep, once=once)(attempt)

    def _issue(self, rejected: str | None, timeout: float) -> Replacement:
        """Ask KIS once."""
        try:
            token = self._ask_kis(timeout)
        except TokenIssueLimited as error:
            now, ours = self._clock.monotonic(), self._issued_at + _MINUTE
            self._minute_ends = ours if ours > now else now + _MINUTE
            shared, ahead = self._load_shared(rejected), self._issuer.clock_ahead
            if shared is not None and ahead is not None and self._clock.time() + ahead < shared.expires:
                return self._adopted(shared, just_issued=True)  # it lives by KIS's clock, and this one is wrong
            if self._reissued_same and rejected == self._issued and now < ours:
                # KIS hands the refused one out again, as it does for six hours: waiting would only bring it back.
                raise TokenIssueLimited("KIS refuses a token that it hands out again", code=error.code) from None
            raise
        self._keep_issued(token, rejected)
        self._entry.save(token)
        return Replacement(token, "issued")

    def _adopt(self, rejected: str | None, before: str | None = None) -> Replacement | None:
        """
        Take a live token from the store: not the refused one, nor another that KIS refused before.

        One that took the place of `before` since this refresh began was just issued, whatever this machine's clock
        makes of its expiry.
        """
        token = self._load_shared(rejected)
        just_issued = token is not None and before is not None and token.value != before
        if token is None or not (just_issued or self._clock.time() < token.expires):
            return None
        return self._adopted(token, just_issued=just_issued)

    def _load_shared(self, rejected: str | None) -> AccessToken | None:
        token = self._entry.load()
        return None if token is None or token.value == rejected or token.value in self._cache.refused else token

    def _adopted(self, token: AccessToken, *, just_issued: bool = False) -> Replacement:
        self._cache.keep(token, margin=self.policy.refresh_margin, just_issued=just_issued)
        self._failure = None
        return Replacement(token, "store")

    def _keep_issued(self, token: AccessToken, rejected: str | None = None) -> None:
        self._issued, self._issued_at = token.value, self._clock.monotonic()
        self._reissued_same = token.value == rejected or self.handed_out(token.value)
        self._cache.refused.pop(token.value, None)
        self._adopted(token, just_issued=True)

    def _store_lock(self, timeout: float) -> AbstractContextManager[bool | None]:
        """Wait for the store's lock; whoever waits longer than a live holder needs goes on without."""
        return self._entry.lock(timeout=timeout, lease=2 * self.policy.issue_timeout + 10)

    def _minute_left(self) -> float:
        return self._minute_ends - self._clock.monotonic()

    def _cooling(self) -> TokenIssueError | None:
        """Return the last failure for good, while nobody asks again."""
        is_over = self._failure is None or self._clock.monotonic() - self._failed_at >= self.policy.issue_cooldown
        return None if is_over else self._failure

    def _begin_cooldown(self, error: BaseException) -> None:
        failure = without_traceback(error)
        self._failure = failure if isinstance(failure, TokenIssueError) else TokenIssueError(str(failure))
        self._failed_at = self._clock.monotonic()
        self._next_probe = self._failed_at + _PROBE

    # -- what is told

    def _tell_renewed(self, replacement: Replacement, previous: str | None, began: float) -> None:
        token, origin = replacement
        event = RefreshEvent(
            name="token_refreshed" if origin == "issued" else "token_adopted",
            token=token.fingerprint,
            previous_token=fingerprint(previous) if previous else None,
            expires_at=token.expires_at,
            source=origin,
            elapsed=self._clock.monotonic() - began,
        )
        emit(event, logging.DEBUG if origin == "memory" else None)

    def _tell_failed(self, error: BaseException, old: AccessToken, began: float) -> None:
        event = RefreshEvent(
            name="token_refresh_failed",
            msg_cd=getattr(error, "code", None),
            previous_token=old.fingerprint,
            expires_at=old.expires_at,
            elapsed=self._clock.monotonic() - began,
            error=type(error).__name__,
        )
        emit(event)


def _retrying(
    left: Callable[[], float], minute_left: Callable[[], float], sleep: Callable[[float], None], *, once: bool
) -> Retrying:
    """Build what drives one refresh; each minute is told that is waited out, of an endpoint that is away the first."""

    def is_limited(state: RetryCallState) -> bool:
        return isinstance(_error_of(state), TokenIssueLimited)

    def tell(state: RetryCallState) -> None:
        if is_limited(state) or state.attempt_number == 1:
            error, wait = _error_of(state), state.upcoming_sleep if is_limited(state) else left()
            code = getattr(error, "code", None)
            emit(RefreshEvent(name="token_issue_waiting", msg_cd=code, wait=wait, error=type(error).__name__))

    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, TokenIssueError) and error.retryable),
        stop=lambda _: once or left() < _LEAST_WAIT,
        wait=lambda state: min(minute_left() if is_limited(state) else _backoff(state), left()),
        sleep=sleep,
        before_sleep=tell,
        reraise=True,
    )


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
