"""
One refresh for everybody, as it runs on its thread: from the store to KIS, for as long as the policy allows.

Look for another token in memory, in the store, and once more under the store's lock; only then ask KIS. The minute
between two tokens is waited out, an endpoint that is away is asked again, and after a failure for good nobody asks for
a while.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

from ..credentials import Credentials
from ..errors import TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit
from ..policy import RetryPolicy
from ..stores.base import TokenStore, key_of
from ..stores.entry import StoreEntry
from ..stores.from_env import store_from_env
from ..token import AccessToken
from .cache import CachedToken, Clock, TokenCache
from .issuer import TokenIssuer
from .single_flight import without_traceback
from .source import Replacement

__all__ = ["Cooldown", "Deadline", "SharedSettings", "TokenRefresher", "issue_retrying"]

MINUTE = 60.0  # seconds in which KIS issues one token for an app key (observed since 2023-10-27)
_LEAST_WAIT = 0.01  # seconds; less is the rounding of a sum of waits
_LOOK = 0.5  # seconds between two looks into the store while waiting for somebody else's token
_LAST_TRY = 0.5  # seconds that a token request gets at least, however little of issue_wait is left
_PROBE = 1.0  # seconds between two looks whether the endpoint is back, in the cool-down
_PROBE_TIMEOUT = 2.0  # seconds that such a look waits for an answer
_LOCK_MARGIN = 2.0  # seconds beyond issue_timeout in which a live holder of the store's lock is done
_OTHERS_TAKE = 1.0  # seconds after which it is looked again what came of another process's early renewal

_backoff = wait_exponential(multiplier=0.2, max=2) + wait_random(0, 0.2)


class SharedSettings:
    """Policy and store of a manager, read from the environment when first needed where none was given."""

    def __init__(self, credentials: Credentials, store: TokenStore | None, policy: RetryPolicy | None) -> None:
        self.key = key_of(credentials)
        self._given_store = store
        self._policy = policy
        self._entry: StoreEntry | None = None

    @property
    def policy(self) -> RetryPolicy:
        """The bounds of a refresh."""
        if self._policy is None:
            self._policy = RetryPolicy.from_env()
        return self._policy

    @property
    def entry(self) -> StoreEntry:
        """The place in the store."""
        if self._entry is None:
            self._entry = StoreEntry(self._given_store or store_from_env(), self.key)
        return self._entry

    @property
    def limit(self) -> float:
        """Seconds that a refresh may take in all; without `issue_wait` it is one try."""
        return self.policy.issue_wait or self.policy.issue_timeout

    @property
    def lock_timeout(self) -> float:
        """Seconds in which a live holder of the store's lock is done; whoever waits longer goes on without."""
        return self.policy.issue_timeout + _LOCK_MARGIN

    @property
    def lease(self) -> float:
        """Seconds after which the lock of a holder that died is free."""
        return 2 * self.policy.issue_timeout + 10


class Deadline:
    """How long a refresh may still take."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._ends = clock.monotonic() + seconds

    def left(self) -> float:
        """Return seconds; not below 0."""
        return max(self._ends - self._clock.monotonic(), 0.0)

    def sleep(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Sleep, and look now and then whether there is a reason to get up."""
        ends = self._clock.monotonic() + seconds
        while (left := ends - self._clock.monotonic()) > 0:
            self._clock.sleep(min(_LOOK, left))
            if is_over():
                return


class Cooldown:
    """The last failure for good: for a while nobody asks KIS again, but for a look now and then whether it passed."""

    def __init__(self) -> None:
        self.failure: TokenIssueError | None = None
        self.began = -math.inf  # on the monotonic clock, as all of these
        self._next_look = -math.inf

    def begin(self, error: BaseException, now: float) -> None:
        """Keep what `error` says, and nothing else of it."""
        failure = without_traceback(error)
        self.failure = failure if isinstance(failure, TokenIssueError) else TokenIssueError(str(failure))
        self.began, self._next_look = now, now + _PROBE

    def end(self) -> None:
        """Forget it: there is a token again."""
        self.failure = None

    def error(self, now: float, seconds: float) -> TokenIssueError | None:
        """Return the failure, where it was less than `seconds` ago."""
        return self.failure if now - self.began < seconds else None

    def may_look(self, now: float) -> bool:
        """Tell whether this caller may look; for a while it is nobody's turn then."""
        if now < self._next_look:
            return False
        self._next_look = now + _PROBE
        return True


def issue_retrying(
    deadline: Deadline,
    *,
    once: bool,
    minute_left: Callable[[], float],
    is_over: Callable[[], bool],
) -> Retrying:
    """
    Build what drives one refresh: an endpoint that is away is asked again, the minute is waited out.

    Each minute that is waited out is told, and of an endpoint that is away, that it is waited for.

    Args:
        deadline: what was tried after it was the last.
        once: there is one try, whatever the deadline.
        minute_left: seconds until KIS issues the next one.
        is_over: ends a wait early.
    """

    def wait(state: RetryCallState) -> float:
        return min(minute_left() if _is_limited(state) else _backoff(state), deadline.left())

    def tell(state: RetryCallState) -> None:
        if state.attempt_number > 1 and not _is_limited(state):
            return
        error = state.outcome.exception() if state.outcome is not None else None
        emit(
            RefreshEvent(
                name="token_issue_waiting",
                msg_cd=getattr(error, "code", None),
                wait=state.upcoming_sleep if _is_limited(state) else deadline.left(),
                error=type(error).__name__,
            )
        )

    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, TokenIssueError) and error.retryable),
        stop=lambda _: once or deadline.left() < _LEAST_WAIT,
        wait=wait,
        sleep=lambda seconds: deadline.sleep(seconds, is_over),
        before_sleep=tell,
        reraise=True,
    )


def _is_limited(state: RetryCallState) -> bool:
    return state.outcome is not None and isinstance(state.outcome.exception(), TokenIssueLimited)


class TokenRefresher:
    """
    The way from the token in memory to another one. All of it runs on the thread of a refresh.

    Attributes:
        cache: what this process knows of its tokens.
        cooldown: begun by a refresh that failed for good.
    """

    def __init__(self, settings: SharedSettings, issuer: TokenIssuer, clock: Clock) -> None:
        self.cache = TokenCache(clock)
        self.cooldown = Cooldown()
        self._settings = settings
        self._issuer = issuer
        self._clock = clock
        self._issued_at = -math.inf  # on the monotonic clock
        self._issued = ""
        self._reissued_same = False
        self._minute_ends = -math.inf  # known from a refusal
        self._early_from = -math.inf

    def replace(self, rejected: str | None, deadline: Deadline) -> Replacement:
        """
        Get a token in place of `rejected` (None: any will do).

        Raises:
            TokenIssueError: none can be had.
        """
        found = self.cache.current_unless(rejected)
        if found is not None:
            return Replacement(found, "memory")
        shared = self._settings.entry.load()
        before = shared.value if shared is not None else ""
        adopted = self._adopt(rejected) or self._probe(rejected)
        if adopted is not None:
            return adopted
        try:
            return self._repeat(rejected, deadline, before)
        except BaseException as error:  # of a hook, too, that exits: nobody asks again at once, whatever it was
            limited = isinstance(error, TokenIssueLimited)
            adopted = self._adopt_looking_expired(rejected) if limited else None
            if adopted is not None:
                return adopted
            if not limited or not error.retryable:  # a minute passes for certain: the next one waits for it, too
                self.cooldown.begin(error, self._clock.monotonic())
            raise

    def renew(self, deadline: Deadline) -> Replacement:
        """
        Get a token that is not about to expire, if KIS gives one; else one that is good still.

        Raises:
            TokenIssueError: there is none at all.
        """
        found = self.replace(None, deadline)
        if self.cache.fresh is not None:
            return found
        try:
            return self.replace(found.token.value, deadline)
        except TokenIssueError:
            return found

    def may_renew_early(self) -> bool:
        """Tell whether another early renewal makes sense by now."""
        return self._clock.monotonic() >= self._early_from

    def renew_early(self, cached: CachedToken) -> Replacement:
        """
        Get a token in place of `cached`, which is good still: one try, and no waiting for anything.

        Raises:
            TokenIssueError: KIS was asked, and gave none.
        """
        if self.cache.current is not cached:
            return Replacement(cached.token, "memory")
        self._early_from = self._clock.monotonic() + max(self._settings.policy.issue_cooldown, _OTHERS_TAKE)
        with self._lock(0) as held:
            shared = self._settings.entry.load()
            if shared is not None and shared.expires > cached.token.expires and not self.cache.was_refused(shared.value):
                renewed = self._adopted(shared, just_issued=False)
            elif held is False:
                self._early_from = self._clock.monotonic() + _OTHERS_TAKE
                return Replacement(cached.token, "memory")
            else:
                renewed = self._issue(None, self._settings.policy.issue_timeout)
        self._early_from = -math.inf
        return renewed

    def give_up(self, error: Exception) -> None:
        """Have nobody ask again at once: a refresh hangs, in a store most likely."""
        self.cooldown.begin(error, self._clock.monotonic())

    def revoke(self) -> bool:
        """Have KIS forget the shared token, then forget it here and in the store; False where there is none."""
        entry = self._settings.entry
        with self._lock(self._settings.lock_timeout):
            current = self.cache.current
            known = [token for token in (current.token if current else None, entry.load()) if token is not None]
            if not known:
                return False
            token = max(known, key=lambda token: token.expires)  # another process may have renewed it since
            self._issuer.revoke(token, self._settings.policy.issue_timeout)
            self.cache.note_refused(token.value)
            self.cache.forget()
            entry.delete()
            return True

    def share(self, token: AccessToken) -> None:
        """Share `token`, which somebody in this process got from KIS."""
        with self._lock(self._settings.lock_timeout):
            self._settings.entry.save(token)

    def keep_issued(self, token: AccessToken, rejected: str | None = None) -> None:
        """Make `token` the current one: KIS just issued it, be it one that was refused before."""
        self._issued_at, self._issued = self._clock.monotonic(), token.value
        self._reissued_same = token.value == rejected or self.cache.handed_out(token.value) is not None
        self.cache.note_issued(token.value)
        self._keep(token, just_issued=True)

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._issuer.after_fork()

    def _probe(self, rejected: str | None) -> Replacement | None:
        """
        Ask once in the cool-down, and do not wait long for it.

        None where there is no cool-down, or it ends, since the endpoint is back and speaks of its minute.
        """
        policy = self._settings.policy
        failure = self.cooldown.error(self._clock.monotonic(), policy.issue_cooldown)
        if failure is None:
            return None
        with self._lock(0) as held:
            adopted = self._adopt(rejected)
            if adopted is not None:
                return adopted
            if held is False or not failure.retryable:  # another process asks; or asking never helps
                raise without_traceback(failure)
            try:
                return self._issue(rejected, min(policy.issue_timeout, _PROBE_TIMEOUT))
            except TokenIssueError as error:
                if not error.retryable:
                    self.cooldown.begin(error, self._clock.monotonic())
                elif isinstance(error, TokenIssueLimited):
                    self.cooldown.end()
                    return None
                raise

    def _repeat(self, rejected: str | None, deadline: Deadline, before: str) -> Replacement:
        """Go through the store's lock to KIS, until there is a token or the time is over."""
        policy, is_known = self._settings.policy, self._minute_left() > 0

        def attempt() -> Replacement:
            nonlocal is_known
            with self._lock(min(self._settings.lock_timeout, deadline.left() / 2)):
                adopted = self._adopt(rejected, before)
                if adopted is not None:
                    return adopted
                if is_known:  # the last refresh was told: KIS need not say it again
                    is_known = False
                    raise TokenIssueLimited("KIS issues one token a minute", code="EGW00133", retryable=True)
                return self._issue(rejected, max(min(policy.issue_timeout, deadline.left()), _LAST_TRY))

        def is_there() -> bool:
            return (self.cache.current_unless(rejected) or self._adopt(rejected, before)) is not None

        return issue_retrying(
            deadline, once=not policy.issue_wait, minute_left=self._minute_left, is_over=is_there
        )(attempt)

    def _issue(self, rejected: str | None, timeout: float) -> Replacement:
        """Ask KIS once."""
        try:
            token = self._issuer.issue(timeout)
        except TokenIssueLimited as error:
            now, ours = self._clock.monotonic(), self._issued_at + MINUTE
            self._minute_ends = ours if ours > now else now + MINUTE
            adopted = self._adopt_looking_expired(rejected) if self._issuer.clock_ahead is not None else None
            if adopted is not None:
                return adopted
            if self._reissued_same and rejected == self._issued and now < ours:
                # As it does for six hours: waiting would only bring it back.
                raise TokenIssueLimited("KIS refuses a token that it hands out again", code=error.code) from None
            raise
        self.keep_issued(token, rejected)
        self._settings.entry.save(token)
        return Replacement(token, "issued")

    def _minute_left(self) -> float:
        return self._minute_ends - self._clock.monotonic()

    def _adopt(self, rejected: str | None, before: str | None = None) -> Replacement | None:
        """
        Take a live token from the store: not the refused one, nor another that KIS refused before.

        One that took the place of `before` since this refresh began was just issued, whatever this machine's clock
        makes of its expiry.
        """
        token = self._load_shared(rejected)
        if token is None:
            return None
        just_issued = before is not None and token.value != before
        return self._adopted(token, just_issued) if just_issued or self._clock.time() < token.expires else None

    def _adopt_looking_expired(self, rejected: str | None) -> Replacement | None:
        """Take the token in the store where somebody just got one, and it looks expired: this clock may be wrong."""
        token, ahead = self._load_shared(rejected), self._issuer.clock_ahead
        if token is None or (ahead is not None and self._clock.time() + ahead >= token.expires):
            return None
        return self._adopted(token, just_issued=True)

    def _load_shared(self, rejected: str | None) -> AccessToken | None:
        token = self._settings.entry.load()
        return None if token is None or token.value == rejected or self.cache.was_refused(token.value) else token

    def _adopted(self, token: AccessToken, just_issued: bool) -> Replacement:  # noqa: FBT001  # named where it matters
        self._keep(token, just_issued=just_issued)
        return Replacement(token, "store")

    def _keep(self, token: AccessToken, *, just_issued: bool) -> None:
        self.cache.keep(token, margin=self._settings.policy.refresh_margin, just_issued=just_issued)
        self.cooldown.end()

    def _lock(self, timeout: float) -> AbstractContextManager[bool | None]:
        return self._settings.entry.lock(timeout=timeout, lease=self._settings.lease)
