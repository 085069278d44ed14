"""What this process knows of its tokens: the current one, earlier and refused ones. Nothing here blocks or locks."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..clock import Monotonic
from ..events import warn
from ..token import AccessToken

__all__ = ["SYSTEM_CLOCK", "CachedToken", "Clock", "TokenCache"]

_V = TypeVar("_V")

_REMEMBERED = 64  # values: far more tokens than one process sees in its life, and a bound all the same


class Clock(Protocol):
    """What tells the time: `time` (since the epoch) when a token expires, `monotonic` and `sleep` are for deadlines."""

    def time(self) -> float: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...


class _SystemClock:
    monotonic = staticmethod(Monotonic.now)
    sleep = staticmethod(time.sleep)

    def time(self) -> float:
        return time.time()


SYSTEM_CLOCK: Clock = _SystemClock()


@dataclass
class CachedToken:
    """A token in memory. From `stale_at` on one caller renews it, from `expired_at` on everybody waits for that."""

    token: AccessToken
    stale_at: float
    expired_at: float


class TokenCache:
    """
    The current token and those before it. Safe to share between threads.

    Attributes:
        current: replaced as a whole, so that it is read without a lock.
        handed_out: every token that has been the current one, by value, oldest first.
        refused: the values that KIS refused; what it issues again is taken out.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.current: CachedToken | None = None
        self.handed_out: dict[str, AccessToken] = {}
        self.refused: dict[str, None] = {}

    @property
    def fresh(self) -> AccessToken | None:
        """The current token, where it needs no renewal."""
        current = self.current
        return current.token if current is not None and self._clock.time() < current.stale_at else None

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """Return the current token, if it is another one and alive."""
        current = self.current
        if current is None or current.token.value == rejected or self._clock.time() >= current.expired_at:
            return None
        return current.token

    def is_dead(self, value: str) -> bool:
        """Tell whether `value` was refused, or is an earlier token or an expired one."""
        current = self.current
        if current is not None and current.token.value == value:
            return self._clock.time() >= current.expired_at
        return value in self.refused or value in self.handed_out

    def note_refused(self, value: str) -> None:
        """Never give `value` away again."""
        _remember(self.refused, value, None)
        current = self.current
        if current is not None and current.token.value == value:
            current.stale_at = current.expired_at = -math.inf  # in place: another thread may just replace the whole

    def keep(self, token: AccessToken, *, margin: float = 0.0, just_issued: bool = False) -> None:
        """
        Make `token` the current one.

        One that was just issued and looks stale already cannot be bettered by asking again: for six hours KIS hands out
        the same one. And if it looks expired, this machine's clock is wrong: then KIS alone knows when it dies, and
        says so by refusing it.
        """
        _remember(self.handed_out, token.value, token)
        now, expired_at = self._clock.time(), token.expires
        stale_at = expired_at - margin
        if token.value in self.refused:
            stale_at = expired_at = -math.inf
        elif just_issued and now >= expired_at:
            stale_at = expired_at = math.inf
            warn("clock_ahead", token=token.fingerprint, expires_at=token.expires_at)
        elif just_issued and now >= stale_at:
            stale_at = expired_at
        self.current = CachedToken(token, stale_at, expired_at)


def _remember(values: dict[str, _V], key: str, value: _V) -> None:
    values.pop(key, None)
    values[key] = value
    for old in list(values)[:-_REMEMBERED]:  # a copy, made in one step: other threads change it meanwhile
        values.pop(old, None)
