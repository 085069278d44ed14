"""Where a token comes from: the two-method `TokenSource`, and what this package asks of any source (`LiveSource`)."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from ..policy import RetryPolicy
from ..token import AccessToken
from .cache import TokenCache
from .single_flight import SingleFlight, done, failed, then

if TYPE_CHECKING:
    from ..credentials import Credentials

__all__ = ["ForeignSource", "LiveSource", "Replacement", "TokenSource", "as_source", "is_source", "joined"]

_A_LOOK = 0.1  # seconds in which a source that has a token in memory hands it over


@runtime_checkable
class TokenSource(Protocol):
    """
    Two methods behind which a token lives; implement them to keep tokens where you like.

    Both are called on threads of this package; `token` may be asked while `refresh` runs.
    """

    def token(self) -> AccessToken:
        """
        Give the current token, from memory where there is one. May block to get the first.

        Raises:
            TokenIssueError: there is none and none can be had.
        """
        ...

    def refresh(self, rejected: AccessToken) -> AccessToken:
        """
        Give a token to use instead of `rejected`, which KIS refused; may block.

        Where the current token is another one already, hand that back and issue nothing: other threads were refused
        with the same dead token and have been here before.

        Raises:
            TokenIssueError: none can be had; the caller then hands KIS's own answer back.
        """
        ...


class Replacement(NamedTuple):
    """A token in place of a refused one, and where it came from; "memory" for who joined another's refresh."""

    token: AccessToken
    origin: Literal["issued", "memory", "store"]


class LiveSource:
    """
    What a request asks of a source. Only what gives a future may take time, and does so on a thread of its own.

    A future completes within `issue_wait` (and a second), and is its caller's own: cancelling it ends nothing.

    Attributes:
        credentials: whose tokens these are; None where nobody knows.
        policy: bounds of a refresh; None where the environment's count.
    """

    credentials: Credentials | None = None
    policy: RetryPolicy | None = None
    _cache: TokenCache

    def peek(self) -> AccessToken | None:
        """Return the token in memory where this caller may use it as it is; None where it is to be renewed first."""
        return self._cache.fresh

    def handed_out(self, value: str) -> bool:
        """Tell whether `value` has ever been the token here; what has not is somebody else's and left alone."""
        return value in self._cache.handed_out

    def is_dead(self, value: str) -> bool:
        """Tell whether `value` is known to be refused, superseded, revoked or expired."""
        return self._cache.is_dead(value)

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """Return the live token in memory that is not `rejected`."""
        return self._cache.current_unless(rejected)

    def note_refused(self, value: str) -> None:
        """Take note that KIS refused `value`: it is neither handed out nor adopted again."""
        self._cache.note_refused(value)

    def adopt(self, token: AccessToken) -> None:
        """Take over a token that KIS just issued to somebody else in this process."""
        self._cache.refused.pop(token.value, None)
        self._cache.keep(token, just_issued=True)

    def token_future(self) -> Future[AccessToken]:
        """Get the current token: done at once where there is a good one, else renewed, once for everybody."""
        raise NotImplementedError

    def replace_future(self, rejected: str | None) -> Future[Replacement]:
        """Get a token in place of `rejected`, which KIS refused (None: any will do), once for everybody."""
        raise NotImplementedError

    def renewed_future(self) -> Future[AccessToken]:
        """Get a token for a library that asks for one itself: neither a refused one nor one that is about to expire."""
        return self.token_future()


class _Known:
    """What is known of somebody else's object, whoever asks it."""

    def __init__(self) -> None:
        self.cache = TokenCache()
        self.flights = SingleFlight("kis_retry-source")
        self.failure: Exception | None = None
        self.failed_at = 0.0
        self.kept_alive: object = None


# By identity: a dataclass that compares by its fields can neither be hashed nor told apart.
_known: dict[int, _Known] = {}


def _known_of(target: Any) -> _Known:
    key = id(target)
    known = _known.get(key)
    if known is None:
        known = _known.setdefault(key, _Known())
        try:
            weakref.finalize(target, _known.pop, key, None).atexit = False
        except TypeError:  # it allows no weak references, and another one must not get its identity
            known.kept_alive = target
    return known


class ForeignSource(LiveSource):
    """Somebody else's object, asked on a thread of this package. Sources of the same object are equal."""

    def __init__(self, target: Any, policy: RetryPolicy | None = None) -> None:
        self.policy = policy
        self._target = target
        self._known = _known_of(target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForeignSource) and other._known is self._known

    def __hash__(self) -> int:
        return id(self._known)

    @property
    def _cache(self) -> TokenCache:  # type: ignore[override]  # only read
        return self._known.cache

    def token_future(self) -> Future[AccessToken]:
        token = self.peek()
        return done(token) if token is not None else then(self._asked(None), lambda ended: ended.result().token)

    def replace_future(self, rejected: str | None) -> Future[Replacement]:
        found = self.current_unless(rejected)
        if rejected is not None:
            self.note_refused(rejected)
        return done(Replacement(found, "memory")) if found is not None else self._asked(rejected)

    def _asked(self, rejected: str | None) -> Future[Replacement]:
        def ask() -> Replacement:  # another refresh may have ended meanwhile
            found = self.current_unless(rejected)
            return Replacement(found, "memory") if found is not None else self._ask(rejected)

        return self._submit("replace", ask)  # whatever was refused: one at a time

    def _submit(self, key: str, ask: Callable[[], Replacement]) -> Future[Replacement]:
        try:
            policy = self.policy or RetryPolicy.from_env()
        except ValueError as error:  # of a setting
            return failed(error)
        future, is_first = self._known.flights.submit(key, ask, policy.issue_wait or policy.issue_timeout)
        return future if is_first else joined(future)

    def _ask(self, rejected: str | None) -> Replacement:
        """Get a token from the object; may block."""
        raise NotImplementedError


class _UserSource(ForeignSource):
    """Any `TokenSource`, with a memory of what it handed out."""

    @property
    def credentials(self) -> Credentials | None:  # type: ignore[override]  # only read
        return getattr(self._target, "credentials", None)

    def handed_out(self, value: str) -> bool:
        # The user's code may have asked its source itself, without being seen: what is unknown is compared with
        # what it hands out now.
        if not super().handed_out(value):
            with suppress(Exception):
                self._submit("a look", self._current).result(_A_LOOK)
        return super().handed_out(value)

    def _current(self) -> Replacement:
        return self._kept("token", self._target.token(), "memory")

    def _ask(self, rejected: str | None) -> Replacement:
        if rejected is None:
            current = self._current()
            if current.token.value not in self._cache.refused:
                return current
            rejected = current.token.value
        refused = self._cache.handed_out.get(rejected) or AccessToken(rejected, datetime.now(timezone.utc))
        replacement = self._kept("refresh", self._target.refresh(refused), "issued")
        self._cache.refused.pop(replacement.token.value, None)
        self._cache.keep(replacement.token)
        return replacement

    def _kept(self, method: str, token: object, origin: Literal["issued", "memory"]) -> Replacement:
        if not isinstance(token, AccessToken):
            if inspect.iscoroutine(token):
                token.close()
            name = f"{type(self._target).__name__}.{method}()"
            raise TypeError(f"{name} gave a {type(token).__name__}: it has to give an AccessToken")
        self._cache.keep(token)
        return Replacement(token, origin)


def joined(future: Future[Replacement]) -> Future[Replacement]:
    """Make what another caller's refresh got one's own: it is from memory."""
    return then(future, lambda ended: Replacement(ended.result().token, "memory"))


def is_source(value: object) -> bool:
    """Tell whether `value` has the two methods of a `TokenSource`; a class has not, its instances have."""
    methods = [getattr(value, name, None) for name in ("token", "refresh")]
    return not isinstance(value, type) and all(callable(method) for method in methods)


def as_source(source: Any) -> LiveSource:
    """Make a `LiveSource` of any `TokenSource`; what is one already is handed back."""
    return source if isinstance(source, LiveSource) else _UserSource(source)
