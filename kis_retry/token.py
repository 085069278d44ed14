"""A token of KIS: `AccessToken`, and the forms in which code keeps one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timezone

__all__ = ["YEARS", "AccessToken", "bare", "fingerprint"]

YEARS = range(1970, 2200)
"""Further out, date arithmetic overflows."""

_SENDABLE = re.compile(r"[!-~]+")
_BEARER = re.compile(r"\s*bearer\s+", re.IGNORECASE)


def fingerprint(secret: str) -> str:
    """Eight hex digits of a SHA-256: tells two secrets apart in a log and gives neither away."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def bare(value: str) -> str:
    """Return the token itself, without "Bearer " (in any case) and surrounding white space."""
    if value.startswith("Bearer "):
        return value[7:].strip()
    return _BEARER.sub("", value, count=1).strip() if _BEARER.match(value) else value.strip()


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
        if not isinstance(self.value, str) or not _SENDABLE.fullmatch(self.value):
            raise ValueError("a token is a non-empty string of printable ASCII characters without spaces")
        if not isinstance(self.expires_at, datetime) or self.expires_at.tzinfo is None:
            raise ValueError(f"expires_at must be a datetime that knows its zone, not {self.expires_at!r}")
        if self.expires_at.year not in YEARS:
            raise ValueError(f"expires_at must lie in the years {YEARS.start} to {YEARS.stop - 1}")
        # Not fields: derived once, since every call reads them.
        object.__setattr__(self, "_bearer", f"Bearer {self.value}")
        object.__setattr__(self, "_expires", self.expires_at.timestamp())

    @property
    def bearer(self) -> str:
        """What the `authorization` header takes, which is the value with "Bearer " before it."""
        return self._bearer  # type: ignore[attr-defined, no-any-return]  # set in __post_init__, past the frozen door

    @property
    def expires(self) -> float:
        """`expires_at` as seconds since the epoch."""
        return self._expires  # type: ignore[attr-defined, no-any-return]  # as above

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of a SHA-256, the only form of a token that may be logged."""
        return fingerprint(self.value)

    def __repr__(self) -> str:
        until = self.expires_at.astimezone(timezone.utc).isoformat(timespec="seconds")
        return f"AccessToken({self.fingerprint}, expires_at={until})"

    __str__ = __repr__
