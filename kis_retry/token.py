"""A token of KIS: `AccessToken`, and the forms in which code keeps one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

__all__ = ["SEOUL", "YEARS", "AccessToken", "bare", "fingerprint"]

SEOUL = timezone(timedelta(hours=9), "Asia/Seoul")  # no summer time since 1988
YEARS = range(1970, 2200)  # further out, date arithmetic overflows


def fingerprint(secret: str) -> str:
    """Eight hex digits of a SHA-256: tells two secrets apart in a log and gives neither away."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def bare(value: str) -> str:
    """Return the token itself, without "Bearer " (in any case) and surrounding white space."""
    return re.sub(r"(?i)^\s*bearer\s+", "", value).strip()


@dataclass(frozen=True)
class AccessToken:
    """
    A token of KIS and the instant it dies. `repr` and `str` show the fingerprint alone.

    Args:
        value: the token without "Bearer " (KIS: at most 350 characters).
        expires_at: an aware datetime; KIS's own stamp is Seoul wall-clock time without a zone.

    Raises:
        ValueError: the value is empty or could break out of a header line, or `expires_at` is naive.
    """

    value: str
    expires_at: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not re.fullmatch(r"[!-~]+", self.value):
            raise ValueError("a token is a non-empty string of printable ASCII characters without spaces")
        is_aware = isinstance(self.expires_at, datetime) and self.expires_at.tzinfo is not None
        if not is_aware or self.expires_at.year not in YEARS:
            raise ValueError(f"expires_at must be a datetime with its zone, of 1970 to 2199, not {self.expires_at!r}")

    @property
    def bearer(self) -> str:
        """What the `authorization` header takes, which is the value with "Bearer " before it."""
        return f"Bearer {self.value}"

    @property
    def expires(self) -> float:
        """`expires_at` as seconds since the epoch."""
        return self.expires_at.timestamp()

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of a SHA-256, the only form of a token that may be logged."""
        return fingerprint(self.value)

    def __repr__(self) -> str:
        until = self.expires_at.astimezone(timezone.utc).isoformat(timespec="seconds")
        return f"AccessToken({self.fingerprint}, expires_at={until})"
