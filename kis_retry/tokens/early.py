"""Renewing a token ahead of its expiry, while it is good and everybody goes on with it: `EarlyRenewal`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..errors import TokenIssueError
from ..policy import RetryPolicy
from ..token import AccessToken
from .adoption import TokenAdoption
from .freshness import CachedToken
from .memory import TokenMemory
from .request import TokenRequest

__all__ = ["EarlyRenewal"]

_OTHERS_TAKE = 1.0  # seconds after which it is looked again what came of another process's renewal


class EarlyRenewal:
    """
    One try, no waiting for anything: the token is still good.

    Args:
        memory: where the token is, and the next one goes.
        adoption: how one that is in the store is found first.
        request: asks KIS.
        policy: the bounds, when first needed.
    """

    def __init__(
        self,
        memory: TokenMemory,
        adoption: TokenAdoption,
        request: TokenRequest,
        policy: Callable[[], RetryPolicy],
    ) -> None:
        self._memory = memory
        self._adoption = adoption
        self._request = request
        self._policy = policy
        self._not_before = -math.inf  # on the monotonic clock

    def may_begin(self, now: float) -> bool:
        """Whether another try makes sense, at that time of the monotonic clock."""
        return now >= self._not_before

    def renew(self, cached: CachedToken) -> AccessToken | None:
        """
        Get a token in place of `cached`, on the thread of the refresh; None if KIS was not asked.

        Raises:
            TokenIssueError: KIS was, and gave none.
        """
        if self._memory.cached is not cached:
            return None
        try:
            with self._adoption.lock(0) as held:
                if self._adoption.adopt_later(cached) is not None:
                    return None
                if not held:
                    self._not_before = time.monotonic() + _OTHERS_TAKE
                    return None
                return self._request.issue(None, math.inf).token
        except TokenIssueError:
            self._not_before = time.monotonic() + max(self._policy().issue_cooldown, 1)
            raise
