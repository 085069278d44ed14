"""
What a cause is: one reason to make a call again, as it concerns one call.

`TokenExpired` and `Transient` are the two. The engine composes them into one `Retrying`: each says what it matches,
when it stops, how long to wait, and what to do before the next attempt; each has a budget of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["Cause"]


class Cause(Protocol):
    """One reason to make a call again. Only `prepare` and `prepare_async` may block."""

    @property
    def name(self) -> str:
        """Under which it is exhausted, for this call and those around it."""
        ...

    def matches_value(self, value: object) -> bool:
        """Whether the attempt that returned `value` failed for this reason: `tenacity.retry_if_result`."""
        ...

    def matches_error(self, error: Exception) -> bool:
        """Whether the attempt that raised `error` failed for this reason: `tenacity.retry_if_exception`."""
        ...

    def stop(self, state: RetryCallState, value: object, error: BaseException | None) -> bool:
        """Whether the budget is spent, or a repeat could do harm; `state` counts this cause's failures alone."""
        ...

    def wait(self, state: RetryCallState, value: object, error: BaseException | None) -> float:
        """Seconds between `prepare` and the next attempt."""
        ...

    def emit_failed(self, msg_cd: str | None) -> None:
        """Tell that an attempt failed for this reason."""
        ...

    def gave_up(self) -> None:
        """Tell what the user can do where the cause could not be mended."""
        ...

    def prepare(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> bool:
        """Do what the next attempt needs, `upcoming` seconds before it; False where that failed: the outcome stands."""
        ...

    def prepare_async(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> Awaitable[bool]:
        """`prepare`, without stopping the event loop."""
        ...
