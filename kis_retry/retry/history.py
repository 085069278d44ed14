"""What the calls of one decorated function teach about its token."""

from __future__ import annotations

import time

__all__ = ["TokenHistory"]

_MOST_STRIKES = 2  # one token may have died on the way; two in a row have not


class TokenHistory:
    """
    Whether a function uses the tokens that it is given, as far as its refusals tell.

    Unguarded: threads that meet one expiry together count once, or a few times at worst.

    Attributes:
        warned: the user has been told what to write.
        strikes: attempts in a row that seem not to have used the token that they were given.
    """

    def __init__(self) -> None:
        self.warned = False
        self._useless: str | None = None
        self.strikes = 0
        self._struck_at = 0.0  # on the monotonic clock

    def note_useless(self, token: str, began: float) -> None:
        """Be told that an attempt of that beginning was refused with `token` in place, and nobody saw what it sent."""
        if began >= self._struck_at:
            self.strikes += 1
        self._useless, self._struck_at = token, time.monotonic()

    def forget_useless(self) -> None:
        """Be told that a call was not refused."""
        self.strikes, self._useless = 0, None

    def was_useless(self, token: str | None) -> bool:
        """Whether the function seems not to have used that token."""
        return token is not None and token == self._useless

    def is_hopeless(self) -> bool:
        """Whether no token seems to reach the function, so that another one need not be asked for."""
        return self.strikes >= _MOST_STRIKES
