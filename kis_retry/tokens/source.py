"""Where a token comes from: the two-method `TokenSource`, and what this package asks of any source (`LiveSource`)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from .. import clock
from ..credentials import Credentials
from ..errors import TokenIssueLimited
from ..events import RefreshEvent, emit, warn
from ..policy import RetryPolicy
from ..token import AccessToken
from .single_flight import SingleFlight, done, then, without_traceback

__all__ = ["LiveSource", "Memory", "Replacement", "TokenSource", "headers_for", "is_source"]

T = TypeVar("T")

_LOOKS_APART = 1.0  # seconds


@runtime_checkable
class TokenSource(Protocol):
    """
    Two methods behind which a token lives; implement them to keep tokens where you like.

    Both are called on threads of this package; `token` may be asked while `refresh` runs. Where no token can be had,
    they raise, best a `TokenIssueError`.
    """

    def token(self) -> AccessToken:
        """Give the current token, from memory where there is one. May block to get the first."""

    def refresh(self, rejected: AccessToken) -> AccessToken:
        """
        Give a token to use instead of `rejected`, which KIS refused; may block.

        Where the current token is another one already, hand that back and issue nothing: other threads were refused
        with the same dead token and have been here before.
        """


class Replacement(NamedTuple):
    """A token in place of a refused one, and where it came from; "memory" for who joined another's refresh."""

    token: AccessToken
    origin: Literal["issued", "memory", "store"]

    def told(self) -> dict[str, Any]:
        """Return what an event says of it."""
        name = "token_refreshed" if self.origin == "issued" else "token_adopted"
        found = {"token": self.token.fingerprint, "expires_at": self.token.expires_at, "source": self.origin}
        return {"name": name, **found}


@dataclass
class CachedToken:
    """A token in memory. From `stale_at` on one caller renews it, from `expired_at` on everybody waits for that."""

    token: AccessToken
    stale_at: float
    expired_at: float


@dataclass(eq=False)
class Memory:
    """What a process knows of one source. No lock: each value is replaced as a whole."""

    current: CachedToken | None = None
    handed_out: dict[str, AccessToken] = field(default_factory=dict)  # all that have been current
    refused: set[str] = field(default_factory=set)  # by KIS; what it issues again is taken out
    failure: Exception | None = None  # the last one for good
    cool_until: float = -math.inf  # on the monotonic clock, as the next two
    next_look: float = -math.inf  # up to which nobody looks whether the failure has passed
    next_early: float = -math.inf  # up to which nobody renews ahead of the expiry
    flights: SingleFlight = field(default_factory=SingleFlight)

    def keep(self, token: AccessToken, now: float, *, margin: float = 0.0, just_issued: bool = False) -> None:
        """
        Make `token` the current one.

        One that was just issued and looks stale cannot be bettered by asking again: for six hours KIS hands out the
        same one. Where it looks expired, this machine's clock is wrong: KIS says when it dies, by refusing it.
        """
        self.failure = None
        self.handed_out[token.value] = token
        expired_at, stale_at = token.expires, token.expires - margin
        if just_issued:
            self.refused.discard(token.value)
            if now >= expired_at:
                expired_at = math.inf
                warn("clock_ahead", token=token.fingerprint, expires_at=token.expires_at)
            if now >= stale_at:
                stale_at = expired_at
        elif token.value in self.refused:
            stale_at = expired_at = -math.inf
        self.current = CachedToken(token, stale_at, expired_at)


_Ask = Callable[[float], Replacement]


class LiveSource:
    """
    What a request asks of a source. Only what gives a future may take time, and does so on a thread of its own.

    A future completes within `issue_wait` (and a second), and is its caller's own: cancelling it ends nothing.
    """

    credentials: Credentials | None = None  # nobody knows whose tokens these are
    policy: RetryPolicy | None = None  # the environment's counts
    _memory: Memory
    _cools_down = True  # after a failure; else it is asked again at once
    _clock: Any = clock
    _ask: Callable[[str | None, float], Replacement]  # for another token than this, until that instant
    _renew_early: Callable[[CachedToken, float], Replacement]

    def peek(self) -> AccessToken | None:
        """Return the token in memory where this caller may use it as it is; None where it is to be renewed first."""
        cached, now = self._memory.current, self._clock.time()
        if cached is None or now >= cached.expired_at:
            return None
        others_renew = self._memory.flights.flights or self._clock.monotonic() < self._memory.next_early
        return cached.token if now < cached.stale_at or others_renew else None

    def handed_out(self, value: str) -> bool:
        """Tell whether `value` has ever been the token here; what has not is somebody else's and left alone."""
        return value in self._memory.handed_out

    def is_dead(self, value: str) -> bool:
        """Tell whether `value` is known to be refused, superseded, revoked or expired."""
        memory = self._memory
        if memory.current is not None and memory.current.token.value == value:
            return bool(self._clock.time() >= memory.current.expired_at)
        return value in memory.refused or value in memory.handed_out

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """Return the live token in memory that is not `rejected`."""
        current = self._memory.current
        if current is None or current.token.value == rejected or self._clock.time() >= current.expired_at:
            return None
        return current.token

    def note_refused(self, value: str) -> None:
        """Take note that KIS refused `value`: it is neither handed out nor adopted again."""
        self._memory.refused.add(value)
        current = self._memory.current
        if current is not None and current.token.value == value:
            current.stale_at = current.expired_at = -math.inf  # in place: another thread may just replace the whole

    def adopt(self, token: AccessToken) -> None:
        """Take over a token that KIS just issued to somebody else in this process."""
        self._memory.keep(token, self._clock.time(), just_issued=True)

    def token_future(self) -> Future[AccessToken]:
        """
        Get the current token: done at once where there is a good one, else renewed, once for everybody.

        Where that fails, the old one is handed out, unless KIS refused it.
        """
        token, cached = self.peek(), self._memory.current
        if token is not None:
            return done(token)
        if cached is None or self._clock.time() >= cached.expired_at:
            return self._renewed(cached, "replace", partial(self._replace, None))
        return self._renewed(cached, "early renewal", partial(self._renew_early, cached))

    def renewed_future(self) -> Future[AccessToken]:
        """Get a token for a library that asks for one itself: neither a refused one nor one that is about to expire."""
        cached = self._memory.current
        if cached is not None and self._clock.time() < cached.stale_at:
            return done(cached.token)
        old = cached.token.value if cached is not None else None
        return self._renewed(cached, "replace", partial(self._replace, old))

    def replace_future(self, rejected: str | None) -> Future[Replacement]:
        """Get a token in place of `rejected`, which KIS refused (None: any will do), once for everybody."""
        if rejected is not None:
            self.note_refused(rejected)
        found = self.current_unless(rejected)
        if found is not None:
            return done(Replacement(found, "memory"))
        return self._refreshed("replace", partial(self._replace, rejected))

    def _renewed(self, cached: CachedToken | None, key: str, renew: _Ask) -> Future[AccessToken]:
        old = cached.token if cached is not None else None

        def token_of(ended: Future[Replacement]) -> AccessToken:
            token = self.current_unless(None) or old
            if ended.exception() is None or token is None or token.value in self._memory.refused:
                return ended.result().token
            return token

        return then(self._refreshed(key, renew, old), token_of)

    def _refreshed(self, key: str, ask: _Ask, old: AccessToken | None = None) -> Future[Replacement]:
        """Have `ask` called, or join, and what came of `old` told; in a cool-down one look a second is enough."""
        memory, failure, now = self._memory, self._cooling(), self._clock.monotonic()
        if failure is not None and (memory.flights.flights or now < memory.next_look):
            return done(error=failure)
        memory.next_look = now + _LOOKS_APART
        shared, is_first = self._submit(key, partial(self._told, key, ask, old))
        return then(shared, lambda ended: ended.result() if is_first else Replacement(ended.result().token, "memory"))

    def _told(self, key: str, ask: _Ask, old: AccessToken | None, ends: float) -> Replacement:
        began, was_cooling = self._clock.monotonic(), self._cooling() is not None
        try:
            replacement = ask(ends)
        except BaseException as error:
            if old is not None and not was_cooling:  # else it was told when that began
                found = {"msg_cd": getattr(error, "code", None), "error": type(error).__name__}
                self._tell("token_refresh_failed", old.fingerprint, began, expires_at=old.expires_at, **found)
            now = self._clock.monotonic()
            is_minute = isinstance(error, TokenIssueLimited) and error.retryable
            passes = is_minute and self._bounds().issue_wait  # it ends for certain
            if self._cools_down and key == "replace" and not passes and not was_cooling:
                self._memory.failure, self._memory.next_look = without_traceback(error), now + _LOOKS_APART
                self._memory.cool_until = now + self._bounds().issue_cooldown
            raise
        if old is not None and replacement.origin != "memory":
            self._tell(previous=old.fingerprint, began=began, **replacement.told())
        return replacement

    def _submit(self, key: str, ask: Callable[[float], T]) -> tuple[Future[T], bool]:
        """Have `ask` called with the instant at which it has to end, or join who asks; say whether it is this one."""
        try:
            policy = self._bounds()
        except ValueError as error:  # an unusable setting is the caller's error and no failed refresh
            return done(error=error), False
        limit = policy.issue_wait or policy.issue_timeout
        ends = self._clock.monotonic() + limit
        return self._memory.flights.submit(key, lambda: ask(ends), limit)

    def _bounds(self) -> RetryPolicy:
        """Read what is to be read of the environment, and return the bounds of a refresh."""
        return self.policy or RetryPolicy.from_env()

    def _replace(self, rejected: str | None, ends: float) -> Replacement:
        found = self.current_unless(rejected)  # another refresh may have got it meanwhile
        return Replacement(found, "memory") if found is not None else self._ask(rejected, ends)

    def _cooling(self) -> Exception | None:
        memory = self._memory
        return memory.failure if self._clock.monotonic() < memory.cool_until else None

    def _tell(self, name: Any, previous: str | None, began: float, **found: Any) -> None:
        if self.credentials is None:  # it is the websocket key, and events are about tokens
            return
        event = RefreshEvent(name=name, previous_token=previous, elapsed=self._clock.monotonic() - began, **found)
        emit(event, quiet=event.source == "memory")


def is_source(value: object) -> bool:
    """Tell whether `value` has the two methods of a `TokenSource`; a class has not, its instances have."""
    if isinstance(value, (LiveSource, type)):
        return not isinstance(value, type)
    methods = [getattr(value, name, None) for name in ("token", "refresh")]
    return all(callable(each) and not inspect.iscoroutinefunction(each) for each in methods)


def headers_for(keys: Credentials, token: AccessToken, tr_id: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Make every header that KIS wants for one call; those of `extra` win."""
    wanted = {"authorization": token.bearer, "appkey": keys.app_key, "appsecret": keys.app_secret, "tr_id": tr_id}
    return {"content-type": "application/json", **wanted, **extra}
