"""
The second cause: KIS, or the network, turned the call away for a moment. Wait, and call again, until the deadline.

Whether a request may be repeated is the table of KIS's failures: a read after any of them, an order after EGW00201
alone, since only that is said before the order reaches the trading system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..answers import code_of
from ..context import SAFE_METHODS, Sighting
from ..answers import is_transient_error, is_transient_response
from ..answers import LIMIT_CODE
from ..retrying import RATE_WAIT, TRANSIENT_WAIT, stop_after_deadline
from ..signals import is_from_signal_handler

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .call import ProtectedCall

__all__ = ["Transient"]


class Transient:
    """One call's failures that pass by themselves."""

    name = "transient"

    __slots__ = ("_begin_by", "_call", "_idempotent", "_watching")

    def __init__(self, call: ProtectedCall, idempotent: bool | None, watching: bool) -> None:
        self._call = call
        self._idempotent = idempotent
        self._watching = watching
        self._begin_by = 0.0

    def matches_value(self, value: object) -> bool:
        """Whether the attempt that returned `value` met such a failure."""
        return self._is_on() and (is_transient_response(value) or self._saw_failure())

    def matches_error(self, error: Exception) -> bool:
        """Whether the attempt that raised `error` met such a failure."""
        met = self._is_on() and (is_transient_error(error) or self._saw_failure())
        return met and not is_from_signal_handler(error)  # else a time limit of the user's own would be repeated

    def stop(self, state: RetryCallState, value: object, error: BaseException | None) -> bool:
        """Whether the deadline is over, or a repeat could do harm."""
        return stop_after_deadline(self._call.deadline)(state) or not self._may_repeat(value, error)

    def wait(self, state: RetryCallState, value: object, error: BaseException | None) -> float:
        """Seconds until the next attempt; after EGW00201 the limiter's next slot is the wait, where there is one."""
        deadline = self._call.deadline
        self._begin_by = state.start_time + deadline
        limited = self._call.code_of(value, error) == LIMIT_CODE
        if limited and self._call.is_paced():
            return 0.0
        left = deadline - (state.seconds_since_start or 0.0)
        return min((RATE_WAIT if limited else TRANSIENT_WAIT)(state), left)

    def emit_failed(self, msg_cd: str | None) -> None:
        """Nothing: it is told as `call_retried` when the call is made again."""

    def gave_up(self) -> None:
        """Nothing has to be told but that the call was given up."""

    def prepare(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> bool:
        """Tell why the call is made again, and after how long; it is not where no slot comes before the deadline."""
        self._call.begin_by = self._begin_by
        self._call.emit("call_retried", msg_cd=msg_cd, error=self._name_of(msg_cd, error), elapsed=upcoming)
        return True

    async def prepare_async(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> bool:
        """As `prepare`."""
        return self.prepare(upcoming, msg_cd, error)

    def _is_on(self) -> bool:
        return self._call.deadline > 0 and self.name not in self._call.exhausted

    def _saw_failure(self) -> bool:
        seen = self._call.last_failed if self._watching else None
        return seen is not None and _is_transient(seen)

    def _may_repeat(self, value: object, error: BaseException | None) -> bool:
        if self._idempotent is False or self._call.orders:
            return False
        seen = self._call.failed
        if seen is not None and _is_transient(seen):
            return not seen.is_order or code_of(seen.response) == LIMIT_CODE
        if self._call.code_of(value, error) == LIMIT_CODE:
            return True  # refused before it acted, whatever it was
        method = _method_of(error if error is not None else value)
        return method in SAFE_METHODS if method is not None else self._idempotent or self._gave_up_on_a_read()

    def _gave_up_on_a_read(self) -> bool:
        """Whether the function stopped waiting for an answer, as `asyncio.wait_for` has it, or for a streamed body."""
        sent = self._call.last_sent if self._watching else None
        return sent is not None and sent.response is None and sent.error is None and not sent.is_order

    def _name_of(self, msg_cd: str | None, error: BaseException | None) -> str | None:
        """The type of what went wrong, where KIS gave no code: of the exception, or of the one that was swallowed."""
        if msg_cd is not None:
            return None
        seen = self._call.failed
        found = error if error is not None else seen.error if seen is not None else None
        if found is None:
            return "HTTPError"  # what `raise_for_status` would have made of it
        return type(found).__name__


def _is_transient(seen: Sighting) -> bool:
    if seen.error is not None:
        return is_transient_error(seen.error)
    return seen.response is not None and is_transient_response(seen.response)


def _method_of(outcome: Any) -> str | None:
    """The method of the request that a response or an exception carries; None where it carries none."""
    try:
        carrier = getattr(outcome, "response", None) if isinstance(outcome, Exception) else None
        for found in (outcome, carrier):
            request = getattr(found, "request", None) or getattr(found, "request_info", None)
            method = getattr(request, "method", None) or getattr(found, "method", None)
            if isinstance(method, str):
                return method.upper()
    except Exception:  # httpx raises where an error has no request
        return None
    return None
