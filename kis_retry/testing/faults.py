"""What can go wrong between a batch and KIS: the faults that a test asks for, and which request meets which."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import responses
from itertools import accumulate
from typing import Any, Literal

from .answers import Response, error_body, failure, json_response, require

Where = Literal["calls", "tokens", "both"]

TOKEN_PATH = "/oauth2/tokenP"  # noqa: S105  # a path


@dataclass(eq=False)
class Fault:
    """One kind of trouble, for some requests: the `reply` that they get after `seconds`, or None for none."""

    name: str
    reply: Response | None
    where: Where
    times: float | None = None
    share: float | None = None
    path: str = ""
    reached: bool = False
    refuses: bool = False  # in KIS's own words
    until: float = math.inf
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require(self.where in {"calls", "tokens", "both"}, "where", self.where, '"calls", "tokens" or "both"')
        require(self.times is None or self.times >= 1, "times", self.times, "a whole number from 1, or None for ever")
        self.path = self.path or (TOKEN_PATH if self.where == "tokens" else "")


OVER_LIMIT = Fault("over_limit", json_response(500, failure("EGW00201")), "calls", refuses=True)


class FaultInjection:
    """The faults of `KisGateway`: first come outages, then those without a share, the limit, and those with one."""

    def __init__(self, expired_status: int, clock: Callable[[], float] | None, seed: int | None) -> None:
        self._expired_status = expired_status
        self._now = clock or (lambda: time.time())  # noqa: PLW0108  # looked up at each call, for freezegun
        self._lock = threading.RLock()  # guards everything below, and all that a subclass adds
        self._dice = random.Random(seed)  # noqa: S311  # dice, not keys
        self._faults: list[Fault] = []
        self._hands_same_token_out = False
        self._within_limit: deque[float] = deque(maxlen=0)  # the last calls, as many as a second takes
        self._released = threading.Event()  # set when what waits may go on

    def refuse_calls(
        self, msg_cd: str = "EGW00123", times: int | None = None, *, status: int | None = None, **which: Any
    ) -> None:
        """
        Refuse API calls, whatever token they carry; they count as `refused`.

        `refuse_calls("EGW00201")` for all, `refuse_calls("EGW00201", 3)` for three, `refuse_calls("EGW00301", 1,
        reached=True)` for one that is acted upon. `status` takes the place of the gateway's `expired_status`.
        """
        reply = json_response(status or self._expired_status, failure(msg_cd))
        self._plan(Fault(msg_cd, reply, "calls", times, refuses=True, **which))

    def refuse_tokens(
        self, msg_cd: str = "EGW00103", times: int | None = None, *, status: int = 403, **which: Any
    ) -> None:
        """Refuse token requests; they count as `token_requests_refused`."""
        self._plan(Fault(msg_cd, json_response(status, error_body(msg_cd)), "tokens", times, refuses=True, **which))

    def drop(self, where: Where = "calls", times: int | None = None, **which: Any) -> None:
        """Close the connection without an answer; counted as "dropped"."""
        self._plan(Fault("dropped", None, where, times, **which))

    def hang(self, where: Where = "calls", times: int | None = None, seconds: float = 30.0, **which: Any) -> None:
        """Act on the request, and answer after `seconds` or `heal()`; never, if it closes first. Counted as "hung"."""
        self._plan(Fault("hung", None, where, times, reached=True, seconds=seconds, **which))

    def fail(self, status: int = 503, times: int | None = None, where: Where = "calls", **which: Any) -> None:
        """
        Answer with an HTTP status and no verdict of KIS: 429, 5xx, a redirect. Counted as "HTTP 503" by its status.

        By name, `headers` are further ones, and `body` is any bytes in the place of a page of HTML: `b"{}"`, half a
        JSON object, an empty token.
        """
        reply = _page(status, which.pop("body", None), which.pop("headers", {}))
        self._plan(Fault(f"HTTP {status}", reply, where, times, **which))

    def outage(self, seconds: float | None = None, where: Where = "both", *, status: int = 500) -> None:
        """
        Fail everything for a while, as KIS does in its maintenance (observed: HTTP 500 for one to two hours at night).

        It lasts `seconds` of the gateway's clock, or until `heal()`. "tokens" are all of `/oauth2/`.
        """
        until = math.inf if seconds is None else self._now() + seconds
        self._plan(Fault("outage", _page(status, None, {}), where, path="/", until=until))

    def same_token(self) -> None:
        """Hand the newest token out again at the next issue, dead or not: a reissue that does not help."""
        self._hands_same_token_out = True

    def limit_calls(self, per_second: int | None) -> None:
        """
        Take so many API calls in any second, and refuse the others with EGW00201, as "over_limit"; None takes them all.

        KIS takes 18, on paper 1, from new customers 3. `heal()` leaves the limit alone.
        """
        with self._lock:
            self._within_limit = deque(maxlen=per_second or 0)

    def heal(self) -> None:
        """Remove every fault, end outages and let hanging requests go on. Limit and `expire_at` stand."""
        with self._lock:
            self._faults.clear()
            self._hands_same_token_out = False
            self._released.set()
            self._released = threading.Event()

    def _plan(self, fault: Fault) -> None:
        with self._lock:
            self._faults.insert(0 if fault.name == "outage" else len(self._faults), fault)

    # -- which request meets what; the lock is held

    def _fault_for(self, where: Where, path: str, now: float) -> Fault | None:
        alive = [fault for fault in self._faults if fault.times != 0 and now < fault.until]
        meeting = [fault for fault in alive if fault.where in {where, "both"} and fault.path in path]
        met = next((fault for fault in meeting if fault.share is None), None)
        if met is None and where == "calls":
            calls = self._within_limit
            if calls and len(calls) == calls.maxlen and calls[0] > now - 1:
                return OVER_LIMIT
            calls.append(now)
        if met is None:
            thrown = self._dice.random()  # one throw for each request, so that shares add up
            shares = accumulate(fault.share or 0 for fault in meeting)
            met = next((fault for fault, share in zip(meeting, shares, strict=True) if thrown < share), None)
        if met is not None and met.times is not None:
            met.times -= 1
        return met


def _page(status: int, body: bytes | None, headers: Mapping[str, str]) -> Response:
    """Make what a server says that fails before KIS's own words: a page of HTML."""
    body = f"<html><body>{status} {responses.get(status, '')}</body></html>".encode() if body is None else body
    kind = "text/html" if body.lstrip().startswith(b"<") else "application/json; charset=utf-8"
    return Response(status, body, {"Content-Type": kind, **headers})
