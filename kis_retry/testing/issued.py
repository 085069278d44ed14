"""The tokens of one app key: who has one, until when, and when the next may be had. Pure; the time is handed in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

__all__ = ["IssuedTokens"]

_SEOUL = timezone(timedelta(hours=9))


@dataclass(repr=False)
class IssuedToken:
    """A token as KIS remembers it; times are seconds since the epoch."""

    value: str
    issued_at: float
    expires_at: float
    state: Literal["live", "expired", "revoked"] = "live"

    def is_dead(self, now: float) -> bool:
        """Say whether KIS refuses it."""
        return self.state != "live" or now >= self.expires_at

    def body(self, now: float) -> dict[str, Any]:
        """Make the answer to a token request: the stamp is Seoul wall-clock time without a zone."""
        stamp = datetime.fromtimestamp(self.expires_at, _SEOUL)
        return {
            "access_token": self.value,
            "access_token_token_expired": stamp.strftime("%Y-%m-%d %H:%M:%S"),
            "token_type": "Bearer",
            "expires_in": int(self.expires_at - now),
        }


class IssuedTokens:
    """The tokens of one app key, by the rules of `KisGateway`. Not thread-safe: the gateway's lock guards it."""

    def __init__(self, *, lifetime: float, same_token_for: float, issue_interval: float) -> None:
        self._lifetime = lifetime
        self._same_token_for = same_token_for
        self._issue_interval = issue_interval
        self._tokens: dict[str, IssuedToken] = {}
        self._last_issue: float | None = None
        self._newest: IssuedToken | None = None

    def must_wait(self, now: float) -> bool:
        """Say whether the once-a-minute rule forbids an issue at `now`."""
        return self._last_issue is not None and now - self._last_issue < self._issue_interval

    def issue(self, now: float, *, same: bool = False) -> IssuedToken:
        """Give the newest token inside its six hours, or dead as it may be with `same`; else a new one."""
        self._last_issue = now
        token = self._newest
        if token is None or not (same or self._hands_out_again(token, now)):
            token = self._newest = IssuedToken(_new_value(), now, now + self._lifetime)
            self._tokens[token.value] = token
        return token

    def judge(self, value: str, now: float) -> str | None:
        """Give the `msg_cd` with which a call carrying `value` is refused; None for a good token."""
        token = self._tokens.get(value)
        if token is None or token.state == "revoked":
            return "EGW00121"
        return "EGW00123" if token.is_dead(now) else None

    def revoke(self, value: str) -> None:
        """Make a token invalid. The once-a-minute rule stands."""
        if value in self._tokens:
            self._tokens[value].state = "revoked"

    def void(self) -> None:
        """Make every token invalid, as maintenance may (observed)."""
        for token in self._tokens.values():
            token.state = "revoked"

    def expire(self) -> None:
        """Let every live token expire, as if a day had passed: a new one may be had at once."""
        self._last_issue = None
        for token in self._tokens.values():
            if token.state == "live":
                token.state = "expired"

    def _hands_out_again(self, token: IssuedToken, now: float) -> bool:
        return not token.is_dead(now) and now - token.issued_at < self._same_token_for


def _new_value() -> str:
    """Make what looks like one of KIS's: a JSON web token in three parts, of up to 350 characters."""
    return f"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.{secrets.token_urlsafe(120)}.{secrets.token_urlsafe(64)}"
