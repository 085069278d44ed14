"""
Requesting a token, once for everybody: from the store's lock to KIS, as often and as long as the policy allows.

All of it runs on the thread of a refresh. Here are the minute between two tokens, the endpoint that is waited for, and
the cool-down after it failed for good.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import TokenIssueError, TokenIssueLimited
from ..policy import RetryPolicy
from ..retrying import MINUTE, issue_retrying
from .adoption import TokenAdoption
from .deadline import Deadline
from .issuer import TokenIssuer
from .memory import TokenMemory
from .refresh_events import emit_waiting
from .single_flight import SingleFlight
from .source import Replacement

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["TokenRequest"]

_GLANCE = 0.5  # seconds between two looks into the store while waiting for somebody else's token
_LAST_TRY = 0.5  # seconds that a token request gets at least, however little of issue_wait is left
_PROBE_PATIENCE = 1.0  # seconds that who looks whether the endpoint is back waits for its answer


class TokenRequest:
    """
    How a refresh gets its token.

    Args:
        memory: where the token goes.
        adoption: how one that is in the store is found first.
        issuer: asks KIS.
        policy: the bounds, when first needed.
        sleep: waits, in seconds.
    """

    def __init__(
        self,
        memory: TokenMemory,
        adoption: TokenAdoption,
        issuer: TokenIssuer,
        policy: Callable[[], RetryPolicy],
        sleep: Callable[[float], None] | None,
    ) -> None:
        self._memory = memory
        self._adoption = adoption
        self._issuer = issuer
        self._policy = policy
        self._sleep = sleep
        self._probes: SingleFlight[Replacement] = SingleFlight("kis_retry-probe")

    def replace(self, rejected: str | None, seconds: float) -> Replacement:
        """
        A token in place of `rejected`: from the store, or from KIS in `seconds` at most.

        Raises:
            TokenIssueError: none can be had.
        """
        deadline = Deadline(seconds, time.monotonic, self._sleep or time.sleep)
        before = self._adoption.value()
        adopted = self._adoption.adopt(rejected)
        if adopted is not None:
            return adopted
        cooldown = self._memory.cooldown
        if cooldown.is_on(time.monotonic(), self._policy().issue_cooldown):
            probed = self._probe(rejected)
            if probed is not None:
                return probed
        try:
            return self._repeated(rejected, deadline, before)
        except TokenIssueError as error:
            doubtful = self._adoption.adopt_doubtful(rejected, error)
            if doubtful is not None:
                return doubtful
            cooldown.begin(error, time.monotonic())
            raise

    def issue(self, rejected: str | None, left: float) -> Replacement:
        """Ask KIS once, under the store's lock, and take `left` seconds at most."""
        timeout = self._policy().issue_timeout
        memory = self._memory
        try:
            token = self._issuer.issue(max(min(timeout, left), min(timeout, _LAST_TRY)))
        except TokenIssueLimited as error:
            if self._issuer.clock_ahead is not None:
                doubtful = self._adoption.adopt_doubtful(rejected, error)
                if doubtful is not None:
                    return doubtful
            since_issue = time.monotonic() - memory.issued_at
            if memory.issued_again and rejected == memory.issued_value and since_issue < MINUTE:
                # KIS hands the refused one out again, as it does for six hours: waiting would only bring it back.
                raise TokenIssueLimited(
                    "KIS refuses a token that it hands out again, and issues one a minute", code=error.code
                ) from None
            raise
        memory.note_issued(token)
        memory.keep(token, margin=self._policy().refresh_margin, issued=True)
        self._adoption.share(token)
        return Replacement(token, "issued")

    def _repeated(self, rejected: str | None, deadline: Deadline, before: str) -> Replacement:
        """Through the store's lock to KIS, until there is a token or the time is over."""

        def once() -> Replacement:
            with self._adoption.lock(min(self._adoption.patience, deadline.left() / 2)):
                return self._adoption.adopt(rejected, before) or self.issue(rejected, deadline.left())

        def minute_left() -> float:
            left = self._memory.issued_at + MINUTE - time.monotonic()
            return left if left > 0 else MINUTE

        def sleep(seconds: float) -> None:
            deadline.sleep(seconds, _GLANCE, lambda: self._adoption.is_there(rejected, before))

        def waiting(state: RetryCallState) -> None:
            emit_waiting(state, deadline.left())

        left = deadline.left if self._policy().issue_wait else lambda: 0.0
        retrying = issue_retrying(left=left, minute_left=minute_left, sleep=sleep, waiting=waiting)
        replacement: Replacement = retrying(once)
        return replacement

    def _probe(self, rejected: str | None) -> Replacement | None:
        """In the cool-down: ask once if it is time to, and do not wait long for it. None where the endpoint is back."""
        cooldown = self._memory.cooldown
        if cooldown.take_probe(time.monotonic()):
            flight, mine = self._probes.begin(rejected, lambda: self._probe_once(rejected))
            if mine and flight.wait(_PROBE_PATIENCE) and flight.state == "answered":
                return flight.outcome()
        other = self._memory.current_unless(rejected)
        if other is not None:
            return Replacement(other, "memory")
        if cooldown.failure is None:
            return None
        raise cooldown.error()

    def _probe_once(self, rejected: str | None) -> Replacement:
        with self._adoption.lock(0) as held:
            adopted = self._adoption.adopt(rejected)
            if adopted is not None:
                return adopted
            if not held:
                raise TokenIssueError("another process asks for a token", retryable=True)
            try:
                return self.issue(rejected, math.inf)
            except TokenIssueError as error:
                self._memory.cooldown.probed(error, time.monotonic())
                raise
