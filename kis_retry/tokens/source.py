"""
Where a token comes from: the two-method `TokenSource`, and what makes other people's objects one.

Inside, a call asks a little more of a source than the public protocol does (`NonBlockingSource`), so that a good call
costs nothing and a refused one tells exactly what it needs. `TokenManager` is one by itself; `TrackingSource` makes one
of any `TokenSource`, `BrokerSource` of a library's broker object.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from ..token import YEARS, AccessToken
from .companions import Companions

__all__ = [
    "NonBlockingSource",
    "Origin",
    "Replacement",
    "TokenSource",
    "TrackingSource",
    "as_source",
    "is_source",
]

Origin = Literal["issued", "memory", "store"]

NEVER = datetime(YEARS.stop - 1, 12, 31, tzinfo=timezone.utc)
"""The expiry of a token about which nobody said when it dies."""

_REMEMBERED = 64  # values: far more tokens than one process sees in its life, and a bound all the same


@runtime_checkable
class TokenSource(Protocol):
    """
    Two methods behind which a token lives; implement them to keep tokens where you like.

    Both are called from any thread, and in async programs from a worker thread.
    """

    def token(self) -> AccessToken:
        """
        Give the current token, from memory where there is one: it is asked at every call. May block to get the first.

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
    """A token in place of a refused one, and where it came from."""

    token: AccessToken
    origin: Origin


class NonBlockingSource:
    """
    What a call asks of its source. Only `token` and `replace` may block.

    A class to inherit from and no protocol: a source of the user's may have any attribute of any name. Its metaclass is
    not `ABCMeta`, with which `isinstance` would cost every call of a method.

    Attributes:
        hands_out_unseen: a function that asks the source by itself is not seen to do so.
    """

    hands_out_unseen = False

    @property
    def identity(self) -> object:
        """What is one and the same for all that ask the same source."""
        return self

    @abstractmethod
    def peek(self) -> AccessToken | None:
        """The token that may be used as it is, from memory; None where it should be renewed first, or is missing."""
        ...

    @abstractmethod
    def renewal_due(self) -> bool:
        """Whether a token was handed out before, and is to be renewed before it is used again. Never blocks."""
        ...

    @abstractmethod
    def issued(self, value: str) -> bool:
        """Whether this source has handed `value` out; what it has not is somebody else's and left alone."""
        ...

    @abstractmethod
    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """A usable token from memory that is not `rejected`."""
        ...

    @abstractmethod
    def successor_of(self, value: str) -> AccessToken | None:
        """
        The token to use instead of `value`, which this source knows to be superseded or refused.

        None where `value` is the current one, where this source has nothing to do with it, or where no live token is
        in memory.
        """
        ...

    @abstractmethod
    def is_dead(self, value: str) -> bool:
        """Whether this source knows `value` to be superseded, expired or refused, be there another token yet or not."""
        ...

    @abstractmethod
    def note_refused(self, value: str) -> None:
        """Take note that KIS refused `value`: from now on it is neither a usable token nor adopted from a store."""
        ...

    def is_new(self, value: str, since: float) -> bool:
        """
        Say whether KIS issued `value` after `since` (monotonic seconds), as far as one can tell.

        A token that is older was adopted from somebody, and may be as dead as the one it replaces.
        """
        return True

    @abstractmethod
    def token(self) -> AccessToken:
        """As `TokenSource.token`."""
        ...

    @abstractmethod
    def replace(self, rejected: str | None) -> Replacement:
        """As `TokenSource.refresh`, given the bare value (None: unknown), and saying where the new one is from."""
        ...


def note(values: dict[str, None], value: str) -> None:
    """Put `value` at the end of `values`, and drop the oldest where there are too many."""
    values.pop(value, None)
    values[value] = None
    while len(values) > _REMEMBERED:
        values.pop(next(iter(values)), None)


def is_source(value: object) -> bool:
    """Whether `value` has the two methods of a `TokenSource`."""
    return callable(getattr(value, "token", None)) and callable(getattr(value, "refresh", None))


def as_source(source: Any) -> NonBlockingSource:
    """`source` itself where it is live already, else remembered: wrappers of the same source are equal."""
    if isinstance(source, NonBlockingSource):
        return source
    return TrackingSource(source)


class _History:
    """What a source has handed out, kept apart from the wrapper so that it does not keep the source alive."""

    def __init__(self) -> None:
        self.handed: dict[str, AccessToken] = {}
        self.refused: dict[str, None] = {}
        self.last: AccessToken | None = None

    def remember(self, token: AccessToken) -> AccessToken:
        if token is not self.last:
            self.last = self.handed[token.value] = token
            while len(self.handed) > _REMEMBERED:
                self.handed.pop(next(iter(self.handed)), None)
        return token


_histories: Companions[_History] = Companions(_History)


class TrackingSource(NonBlockingSource):
    """Any `TokenSource`, with a memory of what it handed out."""

    hands_out_unseen = True

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._history = _histories.of(source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrackingSource) and other._source is self._source

    def __hash__(self) -> int:
        return id(self._source)

    @property
    def identity(self) -> object:
        """What wrappers of one source have in common."""
        return self._history

    @property
    def credentials(self) -> object:
        """Whatever the source has under that name: whose tokens they are, if it is of the right kind."""
        return getattr(self._source, "credentials", None)

    def token(self) -> AccessToken:
        return self._history.remember(self._source.token())

    def peek(self) -> AccessToken | None:
        last = self._history.last
        usable = last is not None and time.time() < last.expires and last.value not in self._history.refused
        return last if usable else None

    def renewal_due(self) -> bool:
        return self._history.last is not None and self.peek() is None

    def issued(self, value: str) -> bool:
        return value in self._history.handed

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        last = self.peek()
        return last if last is not None and last.value != rejected else None

    def successor_of(self, value: str) -> AccessToken | None:
        known = value in self._history.handed or value in self._history.refused
        return self.current_unless(value) if known else None

    def is_dead(self, value: str) -> bool:
        if value in self._history.refused:
            return True
        current = self.peek()
        return value in self._history.handed and (current is None or current.value != value)

    def note_refused(self, value: str) -> None:
        note(self._history.refused, value)

    def replace(self, rejected: str | None) -> Replacement:
        before = self._history.last
        if rejected is None:
            return Replacement(self.token(), "memory")
        self.note_refused(rejected)
        refused = self._history.handed.get(rejected) or AccessToken(rejected, datetime.now(timezone.utc))
        token = self._history.remember(self._source.refresh(refused))
        self._history.refused.pop(token.value, None)
        seen = before is not None and before.value == token.value
        return Replacement(token, "memory" if seen and token.value != rejected else "issued")
