"""What this process knows of its tokens: the current one, earlier and refused ones. Nothing here blocks."""

from __future__ import annotations

import math
import time

from ..events import warn
from ..token import AccessToken
from .cooldown import Cooldown
from .freshness import CachedToken, cache
from .source import note

__all__ = ["TokenMemory"]


class TokenMemory:
    """
    The current token, those before it, and what became of the last refresh. Safe to share between threads.

    Attributes:
        cached: the current token; replaced as a whole, so that it is read without a lock.
        cooldown: begun by a refresh that failed for good, ended by the next token.
        issued_at: when KIS issued a token here last, on the monotonic clock.
        issued_value: which one that was.
        issued_again: it had been here before: KIS hands the same one out for six hours.
    """

    def __init__(self) -> None:
        self.cached: CachedToken | None = None
        self.cooldown = Cooldown()
        self.issued_at = -math.inf
        self.issued_value: str | None = None
        self.issued_again = False
        self._handed: dict[str, None] = {}  # every value there has been, oldest first
        self._refused: dict[str, None] = {}  # those that KIS refused: never taken from the store again

    def issued(self, value: str) -> bool:
        """Whether `value` has ever been the token here."""
        return value in self._handed

    def has_refused(self, value: str) -> bool:
        """Whether KIS refused `value`."""
        return value in self._refused

    def is_new(self, value: str, since: float) -> bool:
        """Whether KIS issued `value` here after `since`, on the monotonic clock."""
        return value == self.issued_value and self.issued_at >= since

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """The current token, if it is another one and alive."""
        cached = self.cached
        if cached is None or cached.token.value == rejected or time.time() >= cached.expired_at:
            return None
        return cached.token

    def successor_of(self, value: str) -> AccessToken | None:
        """The current token, if it is alive, and `value` is an earlier one or a refused one."""
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

    def note_issued(self, token: AccessToken) -> None:
        """KIS issued `token`, be it one that was refused before."""
        self.issued_again = self.issued(token.value)
        self.issued_at, self.issued_value = time.monotonic(), token.value
        self._refused.pop(token.value, None)

    def keep(self, token: AccessToken, *, margin: float, issued: bool) -> None:
        """Make `token` the current one; `issued`: it is fresh from KIS, whatever this machine's clock makes of it."""
        note(self._handed, token.value)
        self.cooldown.end()
        cached = cache(token, margin=margin, now=time.time(), issued=issued)
        if math.isinf(cached.expired_at):  # it looked dead, and has just been issued
            warn("clock_ahead", token=token.fingerprint, expires_at=token.expires_at)
        self.cached = cached

    def forget(self, revoked: AccessToken) -> None:
        """KIS was asked to forget `revoked`: there is no current token any more."""
        note(self._refused, revoked.value)
        self.cached = None
