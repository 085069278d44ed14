"""Objects of somebody else's as token sources: a user's `TokenSource`, and a library's broker object."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from ..credentials import Credentials
from ..policy import RetryPolicy
from ..token import YEARS, AccessToken, bare
from .single_flight import without_traceback
from .source import LiveSource, Memory, Replacement

__all__ = ["as_source", "broker_source", "is_broker"]

_NEVER = datetime(YEARS.stop - 1, 12, 31, tzinfo=timezone.utc)  # a library does not say when its token dies
_A_LOOK = 0.05  # seconds in which a source that has a token in memory hands it over

# By identity: a dataclass that compares by its fields can neither be hashed nor told apart.
_known: dict[int, tuple[Memory, object]] = {}


def _memory_of(target: Any) -> Memory:
    key = id(target)
    if key not in _known:
        _known.setdefault(key, (Memory(), None))
        try:
            weakref.finalize(target, _known.pop, key, None).atexit = False
        except TypeError:  # it allows no weak references, and another one must not get its identity
            _known[key] = _known[key][0], target
    return _known[key][0]


class _ForeignSource(LiveSource):
    """Somebody else's object, asked on a thread of this package. Sources of the same object are equal."""

    def __init__(self, target: Any, policy: RetryPolicy | None = None) -> None:
        self.policy, self._target, self._known = policy, target, _memory_of(target)

    @property
    def _memory(self) -> Memory:  # type: ignore[override]  # only read
        return self._known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ForeignSource) and other._target is self._target

    def __hash__(self) -> int:
        return id(self._target)

    def _replace(self, rejected: str | None, ends: float) -> Replacement:
        found, failure = self.current_unless(rejected), self._cooling()  # another refresh may have ended meanwhile
        if found is None and failure is not None:
            raise without_traceback(failure)
        return Replacement(found, "memory") if found is not None else self._ask(rejected)

    def _ask(self, rejected: str | None) -> Replacement:
        raise NotImplementedError


class UserSource(_ForeignSource):
    """Any `TokenSource`, with a memory of what it handed out."""

    @property
    def credentials(self) -> Credentials | None:  # type: ignore[override]  # only read
        return getattr(self._target, "credentials", None)

    def handed_out(self, value: str) -> bool:
        # The user's code may have asked its source itself, without being seen: look what it hands out now.
        if not super().handed_out(value) and self._clock.monotonic() >= self._known.next_look:
            with suppress(Exception):
                self._refreshed("a look", lambda _: Replacement(self._kept(self._target.token()), "memory")).result(
                    _A_LOOK
                )
        return super().handed_out(value)

    def _note_failure(self, ended: Future[Any]) -> None:  # it may be asked again at once
        pass

    def _kept(self, token: object, *, just_issued: bool = False) -> AccessToken:
        if not isinstance(token, AccessToken):
            raise TypeError(f"a TokenSource gave a {type(token).__name__}: its methods have to give an AccessToken")
        self._known.keep(token, self._clock.time(), just_issued=just_issued)
        return token

    def _ask(self, rejected: str | None) -> Replacement:
        if rejected is None:
            token = self._kept(self._target.token())
            if token.value not in self._known.refused:
                return Replacement(token, "memory")
            rejected = token.value
        refused = self._known.handed_out.get(rejected) or AccessToken(rejected, datetime.now(timezone.utc))
        return Replacement(self._kept(self._target.refresh(refused), just_issued=True), "issued")


class _BrokerSource(_ForeignSource):
    """A library's object with an `access_token`, which it may renew by itself at any time."""

    @property
    def _memory(self) -> Memory:  # type: ignore[override]  # only read
        """What is known, with what the library holds now as the current token."""
        known, value = self._known, getattr(self._target, "access_token", None)
        value = bare(value) if isinstance(value, str) else ""
        if known.current is None or known.current.token.value != value:
            known.current = None
            with suppress(ValueError):  # empty, or not a token
                known.keep(AccessToken(value, _NEVER), self._clock.time())
        return known

    def _ask(self, rejected: str | None) -> Replacement:
        issue = self._target.issue_access_token
        issue(force=True) if _takes_force(issue) else issue()
        current = self._memory.current
        if current is None:
            raise TypeError("issue_access_token left no access_token behind: pass tokens= instead")
        self._known.keep(current.token, self._clock.time(), just_issued=True)
        return Replacement(current.token, "issued")


def _takes_force(issue: Callable[..., object]) -> bool:
    with suppress(TypeError, ValueError):
        parameters = inspect.signature(issue).parameters.values()
        return any(p.name == "force" or p.kind is p.VAR_KEYWORD for p in parameters)
    return False


def as_source(source: Any) -> LiveSource:
    """Make a `LiveSource` of any `TokenSource`; what is one already is handed back."""
    return source if isinstance(source, LiveSource) else UserSource(source)


def is_broker(value: object) -> bool:
    """Tell whether `value` has an `access_token` and an `issue_access_token` that renews it; a class has not."""
    issue = getattr(value, "issue_access_token", None)
    renews = callable(issue) and not inspect.iscoroutinefunction(issue)
    return renews and hasattr(value, "access_token") and not isinstance(value, type)


def broker_source(value: Any, policy: RetryPolicy | None = None) -> LiveSource:
    """Make a source of a broker object: its `access_token`, renewed by its own `issue_access_token`."""
    return _BrokerSource(value, policy)
