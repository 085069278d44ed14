"""What a refresh meets, in a test's hand: KIS as its next answers, and a store that notes what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from kis_retry import AccessToken, Credentials
from kis_retry.tokens.issuer import TokenIssuer

__all__ = ["Notebook", "Scripted", "copied", "token_until"]


def token_until(expires: float, value: str = "m1") -> AccessToken:
    """A token that dies so many seconds after the epoch."""
    return AccessToken(value, datetime.fromtimestamp(expires, timezone.utc))


def copied(text: str) -> str:
    """An equal text that is another object, as every answer brings one."""
    return "".join(list(text))


class Scripted(TokenIssuer):
    """
    Issues what it was told to, one after the other, and raises what is an exception.

    Attributes:
        outcomes: those to come.
        timeouts: of the requests so far, seconds.
        revoked: every token that was, and with which time-out.
    """

    def __init__(self, *outcomes: AccessToken | Exception) -> None:
        super().__init__(Credentials("key", "secret"))
        self.outcomes = list(outcomes)
        self.timeouts: list[float] = []
        self.revoked: list[tuple[AccessToken, float]] = []

    def issue(self, timeout: float) -> AccessToken:
        self.timeouts.append(timeout)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def revoke(self, token: AccessToken, timeout: float) -> None:
        self.revoked.append((token, timeout))


class Notebook:
    """
    A store of one entry.

    Attributes:
        token: the entry.
        saved: everything that was ever shared.
        held: what its lock answers.
        locks: time-out and lease of each lock, seconds.
    """

    def __init__(self, token: AccessToken | None = None) -> None:
        self.token = token
        self.saved: list[AccessToken] = []
        self.held = True
        self.locks: list[tuple[float, float]] = []

    def load(self, key: str) -> AccessToken | None:
        return self.token

    def save(self, key: str, token: AccessToken) -> None:
        self.token = token
        self.saved.append(token)

    def delete(self, key: str) -> None:
        self.token = None

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Iterator[bool]:
        self.locks.append((timeout, lease))
        yield self.held
