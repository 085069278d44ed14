"""Everything that can go wrong between a batch and KIS, by name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .wire import failure, verdict_body

__all__ = ["Drop", "Effect", "FaultInjection", "FaultPlan", "Garble", "Hang", "Refuse", "Where"]

Where = Literal["calls", "tokens"]


class Refuse(NamedTuple):
    """KIS answers, and says no."""

    status: int
    body: Mapping[str, Any]


class Drop(NamedTuple):
    """The connection breaks."""

    reached: bool


class Hang(NamedTuple):
    """The answer does not come."""

    seconds: float
    reached: bool


class Garble(NamedTuple):
    """Somebody else answers."""

    status: int
    body: bytes


Effect = Refuse | Drop | Hang | Garble


@dataclass
class _Fault:
    where: Where
    left: int | None
    effect: Effect | None  # None: the same token again


class FaultPlan:
    """The faults in the order they were asked for. Not thread-safe: the gateway's lock guards it."""

    def __init__(self) -> None:
        self._faults: list[_Fault] = []
        self.released = threading.Event()

    def add(self, where: Where, times: int | None, effect: Effect | None) -> None:
        """Plan a fault for the next `times` requests of a kind, or for all of them."""
        if where not in {"calls", "tokens"}:
            raise ValueError(f'where={where!r} is not usable: it takes "calls" or "tokens"')
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
            raise ValueError(f"times={times!r} is not usable: it takes a whole number from 1, or None for ever")
        self._faults.append(_Fault(where, times, effect))

    def take(self, where: Where) -> Effect | None:
        """What befalls the request that just came in: the oldest fault of its kind with something left."""
        for fault in self._faults:
            if fault.where == where and fault.effect is not None:
                self._use(fault)
                return fault.effect
        return None

    def take_same_token(self) -> bool:
        """Whether this issue hands the old token out again."""
        for fault in self._faults:
            if fault.effect is None:
                self._use(fault)
                return True
        return False

    def clear(self) -> None:
        """Forget every fault, and let go what hangs."""
        self._faults.clear()
        self.released.set()
        self.released = threading.Event()

    def _use(self, fault: _Fault) -> None:
        if fault.left is not None:
            fault.left -= 1
            if fault.left == 0:
                self._faults.remove(fault)


class FaultInjection:
    """
    The faults of `KisGateway`. They queue up: each request meets the oldest of its kind that has `times` left.

    `where` is "calls" for API calls or "tokens" for token requests; `times=None` means until `heal()`. A request that
    is dropped, hung or garbled is counted as received and does nothing else, unless `reached=True`.
    """

    _expired_status: int
    _faults: FaultPlan
    _lock: threading.Lock

    def refuse_calls(
        self,
        times: int | None = None,
        msg_cd: str = "EGW00123",
        *,
        msg1: str | None = None,
        status: int | None = None,
    ) -> None:
        """
        Refuse API calls, whatever token they carry; they count as `refused`.

        Args:
            times: how many, or None for all.
            msg_cd: KIS's code; another than the default makes it another refusal, rights or an IP address.
            msg1: the message, where it is to be another than KIS's text for the code.
            status: the HTTP status, where it is to be another than the gateway's `expired_status`.
        """
        self._plan("calls", times, Refuse(self._expired_status if status is None else status, failure(msg_cd, msg1)))

    def refuse_tokens(self, times: int | None = None, code: str | None = "EGW00103", status: int = 403) -> None:
        """
        Refuse token requests; they count as `token_requests_refused`.

        Args:
            times: how many, or None for all.
            code: KIS's `error_code`; None for a body without a verdict, as a failing server sends it with status 500.
            status: the HTTP status.
        """
        self._plan("tokens", times, Refuse(status, verdict_body(code)))

    def drop(self, where: Where = "calls", times: int | None = None, *, reached: bool = False) -> None:
        """
        Close the connection without an answer.

        Args:
            where: which requests.
            times: how many, or None for all.
            reached: KIS has acted on the request (placed the order, issued the token); only its answer is lost.
        """
        self._plan(where, times, Drop(reached))

    def hang(
        self, where: Where = "calls", times: int | None = None, seconds: float = 30.0, *, reached: bool = False
    ) -> None:
        """
        Keep the caller waiting for `seconds`, or until `heal()`; then answer, if it is still there.

        A gateway that closes first gives no answer. The mocked door raises `requests.Timeout` at once.

        Args:
            where: which requests.
            times: how many, or None for all.
            seconds: how long.
            reached: KIS acts on the request when it comes in, not when the waiting is over.
        """
        self._plan(where, times, Hang(seconds, reached))

    def garble(
        self,
        where: Where = "calls",
        times: int | None = None,
        body: bytes = b"<html><body>502 Bad Gateway</body></html>",
        status: int = 502,
    ) -> None:
        """
        Answer with any bytes: a proxy's page, `b"{}"`, half a JSON object, an empty token.

        Args:
            where: which requests.
            times: how many, or None for all.
            body: what is sent, as it is.
            status: the HTTP status.
        """
        self._plan(where, times, Garble(status, body))

    def same_token(self, times: int | None = None) -> None:
        """Hand the newest token out again, dead or not, to whoever may have one: a reissue that does not help."""
        self._plan("tokens", times, None)

    def heal(self) -> None:
        """Remove every fault and let hanging requests go on. What `expire_at` has planned stands."""
        with self._lock:
            self._faults.clear()

    def _plan(self, where: Where, times: int | None, effect: Effect | None) -> None:
        with self._lock:
            self._faults.add(where, times, effect)
