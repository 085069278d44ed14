"""
Pure judgement of how fresh a token is.

Two windows, as in botocore's credentials: inside the margin one caller renews while the others go on with the good
token; past the expiry everybody waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ..token import AccessToken

__all__ = ["CachedToken", "Freshness", "cache"]


class Freshness(Enum):
    """FRESH: use it. STALE: use it, and one caller renews it. EXPIRED: renew it first."""

    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"


@dataclass
class CachedToken:
    """A token in memory, and the two instants (seconds since the epoch) at which its window changes."""

    token: AccessToken
    stale_at: float
    expired_at: float

    def freshness(self, now: float) -> Freshness:
        """Judge by the wall clock."""
        if now < self.stale_at:
            return Freshness.FRESH
        return Freshness.STALE if now < self.expired_at else Freshness.EXPIRED

    def mark_refused(self) -> None:
        """KIS refused it: whatever its stamp says, it counts as expired."""
        self.stale_at = self.expired_at = -math.inf


def cache(token: AccessToken, *, margin: float, now: float, issued: bool) -> CachedToken:
    """
    The windows of a token.

    A token fresh from KIS (`issued`) that already looks stale cannot be bettered by asking again: within six hours KIS
    hands out the same one. And one that looks expired on arrival says that this machine's clock is wrong: then only
    KIS can tell when it dies, and does so by refusing it.
    """
    expired_at = token.expires
    stale_at = expired_at - margin
    if issued and now >= expired_at:
        return CachedToken(token, math.inf, math.inf)
    if issued and now >= stale_at:
        return CachedToken(token, expired_at, expired_at)
    return CachedToken(token, stale_at, expired_at)
