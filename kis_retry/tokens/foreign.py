"""Objects of somebody else's as token sources: a user's `TokenSource`, and a library's broker object."""

from __future__ import annotations

import inspect
import weakref
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from ..context import attribute_of
from ..policy import RetryPolicy
from ..token import YEARS, AccessToken, bare
from .single_flight import without_traceback
from .source import LiveSource, Memory, Replacement

__all__ = ["BrokerSource", "as_source", "is_broker"]

_NEVER = datetime(YEARS.stop - 1, 12, 31, tzinfo=timezone.utc)  # a library does not say when its token dies
_A_LOOK = 0.05  # seconds in which a source that has a token in memory hands it over

# By identity: a dataclass that compares by its fields can neither be hashed nor told apart.
_known: dict[int, tuple[Memory, object]] = {}


class _ForeignSource(LiveSource):
    """Somebody else's object, asked on a thread of this package. Sources of the same object are equal."""

    def __init__(self, target: Any, policy: RetryPolicy | None = None) -> None:
        self.policy, self._target, key = policy, target, id(target)
        if key not in _known:
            _known.setdefault(key, (Memory(), None))
            try:
                weakref.finalize(target, _known.pop, key, None).atexit = False
            except TypeError:  # it allows no weak references, and another one must not get its identity
                _known[key] = _known[key][0], target
        self._known = _known[key][0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ForeignSource) and other._target is self._target

    def __hash__(self) -> int:
        return id(self._target)


class UserSource(_ForeignSource):
    """Any `TokenSource`, with a memory of what it handed out."""

    _cools_down = False

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._memory, self.credentials = self._known, getattr(target, "credentials", None)

    def handed_out(self, value: str) -> bool:
        # The user's code may have asked its source itself, without being seen: look what it hands out now.
        if not super().handed_out(value) and self._clock.monotonic() >= self._known.next_look:
            look = self._refreshed("a look", lambda _: Replacement(self._kept(self._target.token()), "memory"))
            with suppress(Exception):
                look.result(_A_LOOK)
        return super().handed_out(value)

    def _kept(self, token: object, *, just_issued: bool = False) -> AccessToken:
        if not isinstance(token, AccessToken):
            raise TypeError(f"a TokenSource gave a {type(token).__name__}: its methods have to give an AccessToken")
        self._known.keep(token, self._clock.time(), just_issued=just_issued)
        return token

    def _ask(self, rejected: str | None, _: float) -> Replacement:
        if rejected is None:
            token = self._kept(self._target.token())
            if token.value not in self._known.refused:
                return Replacement(token, "memory")
            rejected = token.value
        refused = self._known.handed_out.get(rejected) or AccessToken(rejected, datetime.now(timezone.utc))
        return Replacement(self._kept(self._target.refresh(refused), just_issued=True), "issued")


class BrokerSource(_ForeignSource):
    """A library's object whose own `issue_access_token` renews its `access_token`, at any time by itself, too."""

    @property
    def _memory(self) -> Memory:  # type: ignore[override]  # only read
        known, value = self._known, getattr(self._target, "access_token", None)
        value = bare(value) if isinstance(value, str) else ""
        if known.current is None or known.current.token.value != value:
            known.current = None
            with suppress(ValueError):  # empty, or not a token
                known.keep(AccessToken(value, _NEVER), self._clock.time())
        return known

    def _ask(self, rejected: str | None, _: float) -> Replacement:
        failure = self._cooling()
        if failure is not None:
            raise without_traceback(failure)
        issue, takes_force = self._target.issue_access_token, False
        with suppress(TypeError, ValueError):  # it has no signature
            parameters = inspect.signature(issue).parameters.values()
            takes_force = any(each.name == "force" or each.kind is each.VAR_KEYWORD for each in parameters)
        issue(force=True) if takes_force else issue()
        current = self._memory.current
        if current is None:
            raise TypeError("issue_access_token left no access_token behind: pass tokens= instead")
        self._known.keep(current.token, self._clock.time(), just_issued=True)
        return Replacement(current.token, "issued")


def as_source(source: Any) -> LiveSource:
    """Make a `LiveSource` of any `TokenSource`; what is one already is handed back."""
    return source if isinstance(source, LiveSource) else UserSource(source)


def is_broker(value: object) -> bool:
    """Tell whether `value` has an `access_token` and an `issue_access_token` that renews it; a class has not."""
    issue = attribute_of(value, "issue_access_token")
    renews = callable(issue) and not inspect.iscoroutinefunction(issue) and not isinstance(value, type)
    return renews and attribute_of(value, "access_token", issue) is not issue
