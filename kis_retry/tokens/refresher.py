"""
The one refresh: three gates, and behind each of them another look before KIS is asked.

Memory (has somebody in this process renewed it?), this process's lock (who waited shares the outcome), the store's
lock (has another process, or another machine, renewed it?). Only who comes through all three asks KIS.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..context import current_call
from ..errors import TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit, warn
from ..policy import RetryPolicy
from ..retrying import MINUTE, issue_retrying
from ..stores.entry import StoreEntry
from ..token import AccessToken
from .freshness import CachedToken, Freshness, hold
from .issuer import TokenIssuer
from .source import Replacement, note

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["TokenRefresher"]

_GLANCE = 0.5  # seconds between two looks into the store while waiting for somebody else's token


class TokenRefresher:
    """
    The token in memory, and the way to another one. Safe to share between threads.

    Args:
        issuer: asks KIS.
        policy: the bounds, when first needed.
        place: the store's place, when first needed.
        sleep: waits, in seconds.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        policy: Callable[[], RetryPolicy],
        place: Callable[[], StoreEntry],
        sleep: Callable[[float], None] | None,
    ) -> None:
        self.held: CachedToken | None = None  # replaced as a whole, so that it is read without a lock
        self._issuer = issuer
        self._policy = policy
        self._place = place
        self._sleep = sleep
        self._handed: dict[str, None] = {}  # every value there has been, oldest first
        self._refused: dict[str, None] = {}  # those that KIS refused: never taken from the store again
        self._lock = threading.Lock()  # guards everything below, and that one thread asks KIS
        self._finished = 0  # exchanges that ended, well or badly
        self._failure: TokenIssueError | None = None
        self._failed_at = 0.0  # this and the next two on the monotonic clock
        self._issued_at = 0.0
        self._early_after = 0.0  # no early renewal is begun before
        self._issued_value: str | None = None

    def issued(self, value: str) -> bool:
        """Whether `value` has ever been the token here."""
        return value in self._handed

    def peek(self) -> AccessToken | None:
        """The token in memory, if it needs no renewal, or none that this caller should begin."""
        held = self.held
        if held is None:
            return None
        now = time.time()
        if now < held.stale_at:
            return held.token
        waived = self._lock.locked() or time.monotonic() < self._early_after
        return held.token if waived and now < held.expired_at else None

    def is_new(self, value: str, since: float) -> bool:
        """Whether KIS issued `value` here after `since`, on the monotonic clock."""
        return value == self._issued_value and self._issued_at >= since

    def renewal_due(self) -> bool:
        """Whether there is a token in memory, and this caller should renew it before it is used."""
        return self.held is not None and self.peek() is None

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """The token in memory, if it is another one and alive."""
        held = self.held
        if held is None or held.token.value == rejected or time.time() >= held.expired_at:
            return None
        return held.token

    def successor_of(self, value: str) -> AccessToken | None:
        """The token in memory, if it is alive, and `value` is an earlier one or a refused one."""
        known = value in self._handed or value in self._refused
        return self.current_unless(value) if known else None

    def note_refused(self, value: str) -> None:
        """KIS refused `value`: it is neither handed out as good nor taken from the store again."""
        note(self._refused, value)
        held = self.held
        if held is not None and held.token.value == value:
            held.mark_refused()

    def replace(self, rejected: str | None) -> Replacement:
        """
        A token in place of `rejected` (None: any will do), through the gates.

        Raises:
            TokenIssueError: none can be had.
        """
        other = self.current_unless(rejected)
        if other is not None:
            return Replacement(other, "memory")
        seen = self._finished
        with self._lock:
            other = self.current_unless(rejected)
            if other is not None:
                return Replacement(other, "memory")
            if self._finished != seen and (self._failure is not None or self._issued_value == rejected):
                return self._share_outcome()
            return self._refresh_locked(rejected)

    def current_or_refreshed(self, held: CachedToken) -> AccessToken:
        """The token to use instead of one that is stale or expired; the same one where no other can be had."""
        if held.freshness(time.time()) is Freshness.EXPIRED:
            return self._renew_expired(held)
        began = time.monotonic()
        if began >= self._early_after and self._lock.acquire(blocking=False):
            try:
                outcome = self._renew_early(held) if self.held is held else None
            finally:
                self._lock.release()
            _say_renewed(held, outcome, began)
        return (self.held or held).token

    def revoke(self) -> bool:
        """Have KIS forget the shared token, then forget it here and in the store; False where there is none."""
        place = self._place()
        with self._lock, self._store_lock():
            held = self.held.token if self.held is not None else None
            known = [token for token in (held, place.load()) if token is not None]
            if not known:
                return False
            token = max(known, key=lambda token: token.expires)  # another process may have renewed it since
            self._issuer.revoke(token, self._policy().issue_timeout)
            note(self._refused, token.value)
            self.held = None
            place.delete()
            return True

    def after_fork(self) -> None:
        """Another thread of the parent may have held the lock at that moment; here nobody would ever release it."""
        self._lock = threading.Lock()
        self._issuer.after_fork()

    # Behind this process's lock.

    def _share_outcome(self) -> Replacement:
        """What the thread that was waited for got: the same token again, or the same failure."""
        if self._failure is not None:
            raise _copy(self._failure)
        assert self.held is not None  # noqa: S101  # a refresh that did not fail leaves a token
        return Replacement(self.held.token, "memory")

    def _refresh_locked(self, rejected: str | None) -> Replacement:
        if rejected is not None:
            self.note_refused(rejected)
        try:
            return self._adopt(rejected) or self._ask(rejected)
        except TokenIssueError as error:
            if error is not self._failure:
                self._failure, self._failed_at = error, time.monotonic()
            raise _copy(error) from None
        finally:
            self._finished += 1

    def _adopt(self, rejected: str | None) -> Replacement | None:
        token = self._shared(rejected)
        if token is None:
            return None
        self._hold(token, issued=False)
        return Replacement(token, "store")

    def _shared(self, rejected: str | None) -> AccessToken | None:
        """A live token from the store: not the refused one, nor another that KIS refused before."""
        token = self._place().load()
        if token is None or token.value == rejected or token.value in self._refused or time.time() >= token.expires:
            return None
        return token

    def _ask(self, rejected: str | None) -> Replacement:
        """Through the store's lock to KIS, as often and as long as the policy allows."""
        policy = self._policy()
        if self._failure is not None and time.monotonic() - self._failed_at < policy.issue_cooldown:
            raise self._failure

        def ask_once() -> Replacement:
            with self._store_lock():
                return self._adopt(rejected) or Replacement(self._issue(rejected), "issued")

        def sleep(seconds: float) -> None:
            self._sleep_watching(seconds, rejected)

        return issue_retrying(policy.issue_wait, sleep, _say_waiting)(ask_once)

    def _issue(self, rejected: str | None) -> AccessToken:
        try:
            token = self._issuer.issue(self._policy().issue_timeout)
        except TokenIssueLimited as error:
            since_issue = time.monotonic() - self._issued_at
            if rejected is not None and rejected == self._issued_value and since_issue < MINUTE:
                # The minute's token is the very one that KIS refuses: waiting would only bring it back.
                raise TokenIssueLimited(
                    "KIS refuses a token that it issued less than a minute ago, and issues one a minute",
                    code=error.code,
                ) from None
            raise
        self._issued_at, self._issued_value = time.monotonic(), token.value
        self._refused.pop(token.value, None)
        self._hold(token, issued=True)
        self._place().save(token)
        return token

    def _sleep_watching(self, seconds: float, rejected: str | None) -> None:
        """Sleep, but not past the moment when somebody else's token appears in the store."""
        sleep = self._sleep or time.sleep
        left = seconds
        while left > 0:
            sleep(min(_GLANCE, left))
            left -= _GLANCE
            if self._shared(rejected) is not None:
                return

    def _store_lock(self, timeout: float | None = None) -> AbstractContextManager[bool]:
        """The lease outlives one slow token request; a waiter outlives the lease of a holder that died."""
        lease = 2 * self._policy().issue_timeout + 10
        return self._place().lock(timeout=lease + 5 if timeout is None else timeout, lease=lease)

    def _hold(self, token: AccessToken, *, issued: bool) -> None:
        note(self._handed, token.value)
        self._failure = None
        held = hold(token, margin=self._policy().refresh_margin, now=time.time(), issued=issued)
        if issued and held.expired_at != token.expires:
            warn("clock_ahead", token=token.fingerprint, expires_at=token.expires_at)
        self.held = held

    # Without a refusal: past the expiry, and ahead of it.

    def _renew_expired(self, held: CachedToken) -> AccessToken:
        """Everybody waits; if there is no other, the old one lets KIS's own answer reach the caller."""
        began = time.monotonic()
        try:
            token, origin = self.replace(held.token.value)
        except TokenIssueError as error:
            if self._failed_at >= began:  # during the cool-down it has been said already
                _say_renewed(held, error, began)
            return held.token
        _say_renewed(held, token if origin == "issued" else None, began)
        return token

    def _renew_early(self, held: CachedToken) -> AccessToken | TokenIssueError | None:
        """One try, no waiting: the token is still good. What was issued, or why not; None if KIS was not asked."""
        try:
            with self._store_lock(timeout=0) as mine:
                if self._adopt_later(held):
                    return None
                if not mine:  # another process is at it
                    self._early_after = time.monotonic() + 1
                    return None
                return self._issue(None)
        except TokenIssueError as error:
            self._early_after = time.monotonic() + max(self._policy().issue_cooldown, 1)
            return error

    def _adopt_later(self, held: CachedToken) -> bool:
        token = self._place().load()
        if token is None or token.value in self._refused or token.expires <= held.token.expires:
            return False
        self._hold(token, issued=False)
        return True


def _copy(error: TokenIssueError) -> TokenIssueError:
    """An exception of its own for each thread: a shared one would grow a traceback by every raise."""
    return type(error)(str(error), code=error.code, retryable=error.retryable)


def _say_waiting(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, TokenIssueLimited):
        emit(
            RefreshEvent(
                name="token_issue_waiting",
                callable=_caller(),
                msg_cd=error.code,
                elapsed=state.upcoming_sleep,
                error=type(error).__name__,
            )
        )


def _say_renewed(held: CachedToken, outcome: AccessToken | TokenIssueError | None, began: float) -> None:
    """Said without the lock: a hook may take its time, and may ask for a token itself."""
    if outcome is None:
        return
    error = outcome if isinstance(outcome, TokenIssueError) else None
    token = outcome if isinstance(outcome, AccessToken) else None
    event = RefreshEvent(
        name="token_refreshed" if token else "token_refresh_failed",
        callable=_caller(),
        msg_cd=error.code if error else None,
        token=token.fingerprint if token else None,
        previous_token=held.token.fingerprint,
        expires_at=(token or held.token).expires_at,
        source="issued" if token else None,
        elapsed=time.monotonic() - began,
        error=type(error).__name__ if error else None,
    )
    emit(event)


def _caller() -> str | None:
    call = current_call()
    return call.name if call is not None else None
