"""
Pure: after an issue that failed for good, who may ask KIS again, and when.

A wrong key or secret stays wrong: nobody asks for as long as the policy says. An endpoint that stayed away comes back
at a moment that nobody knows: one caller looks now and then, and no other one waits for it.
"""

from __future__ import annotations

from ..errors import TokenIssueError, TokenIssueLimited
from .single_flight import fresh

__all__ = ["Cooldown"]

_PROBE_INTERVAL = 1.0  # seconds between two looks whether the endpoint is back
_PROBE_INTERVAL_LIMITED = 10.0  # the same where somebody else takes every minute's token


class Cooldown:
    """
    The last failure, and since when. Instants are seconds on the monotonic clock, always handed in.

    Attributes:
        failure: None where the last refresh went well.
        failed_at: when that was.
    """

    def __init__(self) -> None:
        self.failure: TokenIssueError | None = None
        self.failed_at = 0.0
        self._probe_at = 0.0

    def begin(self, failure: TokenIssueError, now: float) -> None:
        """A refresh failed for good; only what the failure says is kept."""
        self.failure, self.failed_at = _copy(failure), now
        self._plan_probe(now)

    def end(self) -> None:
        """There is a token again."""
        self.failure = None

    def is_on(self, now: float, seconds: float) -> bool:
        """Whether the last refresh failed less than `seconds` ago."""
        return self.failure is not None and now - self.failed_at < seconds

    def error(self) -> TokenIssueError:
        """The failure as an exception of the caller's own; to be asked where `is_on`."""
        return _copy(self.failure or TokenIssueError("no token could be had", retryable=True))

    def take_probe(self, now: float) -> bool:
        """Whether the caller may ask once, though the cool-down is on; it is nobody's turn for a while then."""
        if self.failure is None or not self.failure.retryable or now < self._probe_at:
            return False
        self._plan_probe(now)
        return True

    def probed(self, error: TokenIssueError, now: float) -> None:
        """Who asked once got `error`: the endpoint is still away, or it is back and says something else."""
        if not error.retryable:
            self.begin(error, now)
        elif isinstance(error, TokenIssueLimited) and not isinstance(self.failure, TokenIssueLimited):
            self.end()  # to wait out the minute is certain to help

    def _plan_probe(self, now: float) -> None:
        limited = isinstance(self.failure, TokenIssueLimited)
        self._probe_at = now + (_PROBE_INTERVAL_LIMITED if limited else _PROBE_INTERVAL)


def _copy(error: TokenIssueError) -> TokenIssueError:
    copied = fresh(error)
    return copied if isinstance(copied, TokenIssueError) else TokenIssueError(str(copied))
