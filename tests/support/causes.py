"""The cause of a dead token, of a call as it is begun and of a source that a test tells what to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tenacity

from answers import EXPIRED
from calls import refreshing
from kis_retry import AccessToken
from kis_retry.tokens.source import Origin, Replacement, TrackingSource
from sources import NumberedTokens


class Source(TrackingSource):
    """
    One that a test can tell what to say.

    Attributes:
        origin: of what it gives in place of a refused token.
        new: whether that was issued just now.
        since: since when it was asked to be.
        before: called before it gives anything.
    """

    def __init__(self, tokens: NumberedTokens) -> None:
        super().__init__(tokens)
        self.origin: Origin = "issued"
        self.new = True
        self.since: list[float] = []
        self.before: Callable[[], object] = lambda: None

    def refresh(self, rejected: AccessToken) -> AccessToken:
        raise AssertionError("it is asked by `replace`")

    def replace(self, rejected: str | None) -> Replacement:
        self.before()
        return super().replace(rejected)._replace(origin=self.origin)

    def is_new(self, value: str, since: float) -> bool:
        self.since.append(since)
        return self.new


class Keeper:
    """Somebody's object that keeps a token."""

    def __init__(self, access_token: str = "Bearer t1") -> None:
        self.access_token = access_token


def of_keeper(source: Any, keeper: Keeper | None = None, **options: Any) -> Any:
    """The cause of a call whose first argument keeps the token."""
    return refreshing(source, keeper or Keeper(), function=lambda keeper: None, **options).token_expired


def unplaced(source: Any, **options: Any) -> Any:
    """The cause of a call that keeps its token nowhere."""
    return refreshing(source, **options).token_expired


def stops(cause: Any, attempt: int = 1) -> bool:
    """Whether the outcome of that attempt stands."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    return bool(cause.stop(state, EXPIRED, None))
