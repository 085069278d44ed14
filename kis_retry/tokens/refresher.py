"""
One refresh for all threads and processes: `TokenRefresher`.

Look for a newer token in memory, again once no other thread of this process refreshes, again under the store's lock,
and only then request one. The refresh runs on a thread of its own, and callers wait for it: so `issue_wait` bounds
their waiting, whatever the refresh itself waits for, and an exception of a signal handler is theirs alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..context import current_call
from ..errors import TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit, warn
from ..policy import RetryPolicy
from ..retrying import MINUTE, issue_retrying
from ..stores.entry import StoreEntry
from ..token import AccessToken
from .cooldown import Cooldown
from .deadline import Deadline
from .freshness import CachedToken, Freshness, cache
from .issuer import TokenIssuer
from .single_flight import AskedWithinError, SingleFlight, StillUnderWayError
from .source import Replacement, note

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["TokenRefresher"]

_GLANCE = 0.5  # seconds between two looks into the store while waiting for somebody else's token
_GRACE = 0.75  # seconds more than its own bound that a refresh gets to say how it ended
_LAST_TRY = 0.5  # seconds that a token request gets at least, however little of issue_wait is left
_PROBE_PATIENCE = 1.0  # seconds that who looks whether the endpoint is back waits for its answer
_LOCK_MARGIN = 2.0  # seconds beyond issue_timeout in which a live holder of the store's lock is done

_EARLY = "early renewal"  # as keys of a request; no token holds a space
_REVOKE = "revoke it"


class TokenRefresher:
    """
    The token in memory, and the way to another one. Safe to share between threads.

    Args:
        issuer: asks KIS.
        policy: the bounds, when first needed.
        entry: what is shared in the store, when first needed.
        sleep: waits, in seconds.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        policy: Callable[[], RetryPolicy],
        entry: Callable[[], StoreEntry],
        sleep: Callable[[float], None] | None,
    ) -> None:
        self.cached: CachedToken | None = None  # replaced as a whole, so that it is read without a lock
        self._issuer = issuer
        self._policy = policy
        self._entry = entry
        self._sleep = sleep
        self._handed: dict[str, None] = {}  # every value there has been, oldest first
        self._refused: dict[str, None] = {}  # those that KIS refused: never taken from the store again
        self._flights: SingleFlight[Any] = SingleFlight("kis_retry-refresh")  # what is below changes on its thread
        self._probes: SingleFlight[Replacement] = SingleFlight("kis_retry-probe")
        self._cooldown = Cooldown()
        self._issued_at = -math.inf  # this and the next on the monotonic clock
        self._early_after = -math.inf  # no early renewal is begun before
        self._issued_value: str | None = None
        self._issued_again = False  # KIS handed out a token that has been here before

    # What is in memory. Nothing here blocks.

    def issued(self, value: str) -> bool:
        """Whether `value` has ever been the token here."""
        return value in self._handed

    def peek(self) -> AccessToken | None:
        """The token in memory, if it needs no renewal, or none that this caller should begin."""
        cached = self.cached
        if cached is None:
            return None
        now = time.time()
        if now < cached.stale_at:
            return cached.token
        waived = self._flights.busy or time.monotonic() < self._early_after
        return cached.token if waived and now < cached.expired_at else None

    def is_new(self, value: str, since: float) -> bool:
        """Whether KIS issued `value` here after `since`, on the monotonic clock."""
        return value == self._issued_value and self._issued_at >= since

    def renewal_due(self) -> bool:
        """Whether there is a token in memory, and this caller should renew it before it is used."""
        return self.cached is not None and self.peek() is None

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """The token in memory, if it is another one and alive."""
        cached = self.cached
        if cached is None or cached.token.value == rejected or time.time() >= cached.expired_at:
            return None
        return cached.token

    def successor_of(self, value: str) -> AccessToken | None:
        """The token in memory, if it is alive, and `value` is an earlier one or a refused one."""
        known = value in self._handed or value in self._refused
        return self.current_unless(value) if known else None

    def is_dead(self, value: str) -> bool:
        """Whether `value` is an earlier token, an expired one or a refused one."""
        cached = self.cached
        if cached is not None and cached.token.value == value:
            return time.time() >= cached.expired_at
        return value in self._handed or value in self._refused

    def note_refused(self, value: str) -> None:
        """KIS refused `value`: it is neither handed out as good nor taken from the store again."""
        note(self._refused, value)
        cached = self.cached
        if cached is not None and cached.token.value == value:
            cached.mark_refused()

    # What callers wait for.

    def replace(self, rejected: str | None) -> Replacement:
        """
        A token in place of `rejected`, which KIS refused (None: any will do).

        Raises:
            TokenIssueError: none can be had.
        """
        if rejected is not None and self.current_unless(rejected) is None:
            self.note_refused(rejected)
        return self._replace(rejected)

    def current_or_refreshed(self, cached: CachedToken) -> AccessToken:
        """The token to use instead of one that is stale or expired; the same one where no other can be had."""
        if cached.freshness(time.time()) is Freshness.EXPIRED:
            return self._renew_expired(cached)
        began = time.monotonic()
        if began >= self._early_after and not self._flights.busy:
            self._renew_early(cached, began)
        return (self.cached or cached).token

    def revoke(self) -> bool:
        """Have KIS forget the shared token, then forget it here and in the store; False where there is none."""
        found: bool = self._wait(_REVOKE, self._revoke, look=lambda: None)[0]
        return found

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._issuer.after_fork()

    def _replace(self, rejected: str | None) -> Replacement:
        def look() -> Replacement | None:
            other = self.current_unless(rejected)
            return Replacement(other, "memory") if other is not None else None

        replacement: Replacement
        replacement, mine = self._wait(rejected, lambda: self._refresh(rejected), look)
        return replacement if mine else Replacement(replacement.token, "memory")

    def _wait(self, key: object, ask: Callable[[], Any], look: Callable[[], Any]) -> tuple[Any, bool]:
        """Have `ask` run on its thread, or join who asks for the same, for as long as the policy allows."""
        limit = _limit(self._policy())
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
                self._cooldown.begin(failure, time.monotonic())
        # Raised out here: in there the error would carry the other one, and with it the frames, as its context.
        raise failure

    # On the thread of the refresh.

    def _refresh(self, rejected: str | None) -> Replacement:
        policy = self._policy()
        deadline = Deadline(_limit(policy), time.monotonic, self._sleep or time.sleep)
        found = self._entry().load()
        before = found.value if found is not None else ""
        adopted = self._adopt(rejected)
        if adopted is not None:
            return adopted
        if self._cooldown.is_on(time.monotonic(), policy.issue_cooldown):
            probed = self._probe(rejected)
            if probed is not None:
                return probed
        try:
            return self._request(rejected, deadline, before)
        except TokenIssueError as error:
            doubtful = self._adopt_doubtful(rejected, error)
            if doubtful is not None:
                return doubtful
            self._cooldown.begin(error, time.monotonic())
            raise

    def _request(self, rejected: str | None, deadline: Deadline, before: str) -> Replacement:
        """Through the store's lock to KIS, as often and as long as the policy allows."""
        policy = self._policy()

        def once() -> Replacement:
            with self._store_lock(min(policy.issue_timeout + _LOCK_MARGIN, deadline.left() / 2)):
                return self._adopt(rejected, before) or self._issue(rejected, deadline.left())

        def minute_left() -> float:
            left = self._issued_at + MINUTE - time.monotonic()
            return left if left > 0 else MINUTE

        def sleep(seconds: float) -> None:
            deadline.sleep(seconds, _GLANCE, lambda: self._is_found(rejected, before))

        def emit_waiting(state: RetryCallState) -> None:
            _emit_waiting(state, deadline.left())

        left = deadline.left if policy.issue_wait else lambda: 0.0
        retrying = issue_retrying(left=left, minute_left=minute_left, sleep=sleep, waiting=emit_waiting)
        replacement: Replacement = retrying(once)
        return replacement

    def _probe(self, rejected: str | None) -> Replacement | None:
        """In the cool-down: ask once if it is time to, and do not wait long for it. None where the endpoint is back."""
        if self._cooldown.take_probe(time.monotonic()):
            flight, mine = self._probes.begin(rejected, lambda: self._probe_once(rejected))
            if mine and flight.wait(_PROBE_PATIENCE) and flight.state == "answered":
                return flight.outcome()
        other = self.current_unless(rejected)
        if other is not None:
            return Replacement(other, "memory")
        if self._cooldown.failure is None:
            return None
        raise self._cooldown.error()

    def _probe_once(self, rejected: str | None) -> Replacement:
        with self._store_lock(0) as held:
            adopted = self._adopt(rejected)
            if adopted is not None:
                return adopted
            if not held:
                raise TokenIssueError("another process asks for a token", retryable=True)
            try:
                return self._issue(rejected, math.inf)
            except TokenIssueError as error:
                self._cooldown.probed(error, time.monotonic())
                raise

    def _adopt(self, rejected: str | None, before: str | None = None) -> Replacement | None:
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
        self._cache(token, issued=appeared)
        return Replacement(token, "store")

    def _adopt_doubtful(self, rejected: str | None, error: TokenIssueError) -> Replacement | None:
        """
        The token in the store that looks expired, where somebody just got one and this clock may be wrong.

        KIS's clock says whether it lives; where its answers have no date, KIS itself does, by refusing it.
        """
        token = self._shared(rejected) if isinstance(error, TokenIssueLimited) else None
        ahead = self._issuer.clock_ahead
        if token is None or (ahead is not None and time.time() + ahead >= token.expires):
            return None
        self._cache(token, issued=True)
        return Replacement(token, "store")

    def _shared(self, rejected: str | None) -> AccessToken | None:
        token = self._entry().load()
        return None if token is None or token.value == rejected or token.value in self._refused else token

    def _is_found(self, rejected: str | None, before: str) -> bool:
        return self.current_unless(rejected) is not None or self._adopt(rejected, before) is not None

    def _issue(self, rejected: str | None, left: float) -> Replacement:
        timeout = self._policy().issue_timeout
        try:
            token = self._issuer.issue(max(min(timeout, left), min(timeout, _LAST_TRY)))
        except TokenIssueLimited as error:
            if self._issuer.clock_ahead is not None:
                doubtful = self._adopt_doubtful(rejected, error)
                if doubtful is not None:
                    return doubtful
            since_issue = time.monotonic() - self._issued_at
            if self._issued_again and rejected == self._issued_value and since_issue < MINUTE:
                # KIS hands the refused one out again, as it does for six hours: waiting would only bring it back.
                raise TokenIssueLimited(
                    "KIS refuses a token that it hands out again, and issues one a minute", code=error.code
                ) from None
            raise
        self._issued_again = self.issued(token.value)
        self._issued_at, self._issued_value = time.monotonic(), token.value
        self._refused.pop(token.value, None)
        self._cache(token, issued=True)
        self._entry().save(token)
        return Replacement(token, "issued")

    def _store_lock(self, timeout: float) -> AbstractContextManager[bool]:
        """Whoever waits longer than a live holder needs goes on without: the holder hangs, or is stopped."""
        return self._entry().lock(timeout=timeout, lease=2 * self._policy().issue_timeout + 10)

    def _cache(self, token: AccessToken, *, issued: bool) -> None:
        note(self._handed, token.value)
        self._cooldown.end()
        cached = cache(token, margin=self._policy().refresh_margin, now=time.time(), issued=issued)
        if issued and cached.expired_at != token.expires:
            warn("clock_ahead", token=token.fingerprint, expires_at=token.expires_at)
        self.cached = cached

    def _revoke(self) -> bool:
        entry = self._entry()
        with self._store_lock(self._policy().issue_timeout + _LOCK_MARGIN):
            cached = self.cached.token if self.cached is not None else None
            known = [token for token in (cached, entry.load()) if token is not None]
            if not known:
                return False
            token = max(known, key=lambda token: token.expires)  # another process may have renewed it since
            self._issuer.revoke(token, self._policy().issue_timeout)
            note(self._refused, token.value)
            self.cached = None
            entry.delete()
            return True

    # Without a refusal: past the expiry, and ahead of it.

    def _renew_expired(self, cached: CachedToken) -> AccessToken:
        """Everybody waits; if there is no other, the old one lets KIS's own answer reach the caller."""
        began = time.monotonic()
        try:
            token, origin = self._replace(cached.token.value)
        except TokenIssueError as error:
            if self._cooldown.failed_at >= began:  # during the cool-down it has been emitted already
                _emit_renewed(cached, error, began)
            return cached.token
        _emit_renewed(cached, token if origin == "issued" else None, began)
        return token

    def _renew_early(self, cached: CachedToken, began: float) -> None:
        """One try, no waiting for anything: the token is still good. Others go on with it meanwhile."""
        flight, mine = self._flights.begin(_EARLY, lambda: self._issue_early(cached))
        if not mine or not flight.wait(_limit(self._policy())) or flight.state == "abandoned":
            return
        outcome: AccessToken | TokenIssueError | None
        try:
            outcome = flight.outcome()
        except TokenIssueError as error:
            outcome = error
        _emit_renewed(cached, outcome, began)

    def _issue_early(self, cached: CachedToken) -> AccessToken | None:
        """What was issued; None if KIS was not asked."""
        if self.cached is not cached:
            return None
        try:
            with self._store_lock(0) as held:
                if self._adopt_later(cached):
                    return None
                if not held:  # another process is at it
                    self._early_after = time.monotonic() + 1
                    return None
                return self._issue(None, math.inf).token
        except TokenIssueError:
            self._early_after = time.monotonic() + max(self._policy().issue_cooldown, 1)
            raise

    def _adopt_later(self, cached: CachedToken) -> bool:
        token = self._shared(None)
        if token is None or token.expires <= cached.token.expires:
            return False
        self._cache(token, issued=False)
        return True


def _limit(policy: RetryPolicy) -> float:
    """Seconds that a refresh may take in all; without `issue_wait` it is one try."""
    return policy.issue_wait or policy.issue_timeout


def _emit_waiting(state: RetryCallState, left: float) -> None:
    """Each minute that is waited out; of an endpoint that is away, that it is waited for, and at most how long."""
    error = state.outcome.exception() if state.outcome is not None else None
    limited = isinstance(error, TokenIssueLimited)
    if limited or state.attempt_number == 1:
        emit(
            RefreshEvent(
                name="token_issue_waiting",
                callable=_caller(),
                msg_cd=error.code if isinstance(error, TokenIssueError) else None,
                elapsed=state.upcoming_sleep if limited else left,
                error=type(error).__name__,
            )
        )


def _emit_renewed(cached: CachedToken, outcome: AccessToken | TokenIssueError | None, began: float) -> None:
    """By the caller and not by the refresh: a hook may take its time, and may ask for a token itself."""
    if outcome is None:
        return
    error = outcome if isinstance(outcome, TokenIssueError) else None
    token = outcome if isinstance(outcome, AccessToken) else None
    event = RefreshEvent(
        name="token_refreshed" if token else "token_refresh_failed",
        callable=_caller(),
        msg_cd=error.code if error else None,
        token=token.fingerprint if token else None,
        previous_token=cached.token.fingerprint,
        expires_at=(token or cached.token).expires_at,
        source="issued" if token else None,
        elapsed=time.monotonic() - began,
        error=type(error).__name__ if error else None,
    )
    emit(event)


def _caller() -> str | None:
    call = current_call()
    return call.name if call is not None else None
