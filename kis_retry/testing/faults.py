"""What can go wrong between a batch and KIS: the faults that a test asks for, and which request meets which."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import responses
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .answers import Hung, Response, WireResponse, error_body, failure, json_response, raw_response, require

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TOKEN_PATH", "Fault", "FaultInjection", "Where", "Window"]

Where = Literal["calls", "tokens"]
WhereOrBoth = Literal["calls", "tokens", "both"]
Window = Literal["sliding", "fixed"]

TOKEN_PATH = "/oauth2/tokenP"  # noqa: S105  # a path


class Which(TypedDict, total=False):
    """Which requests a fault meets, and how: see `FaultInjection`."""

    share: float | None
    path: str
    reached: bool


@dataclass(eq=False)
class Fault:
    """One kind of trouble, for some requests."""

    name: str
    reply: Response
    where: Where
    left: int | None
    share: float | None = None
    path: str = ""
    reached: bool = False
    refuses: bool = False

    def __post_init__(self) -> None:
        times, share = self.left, self.share
        is_whole = isinstance(times, int) and not isinstance(times, bool) and times >= 1
        is_share = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1
        require(self.where in {"calls", "tokens"}, "where", self.where, '"calls" or "tokens"')
        require(times is None or is_whole, "times", times, "a whole number from 1, or None for ever")
        require(share is None or is_share, "share", share, "a number above 0, up to 1, or None for each")

    def meets(self, where: Where, path: str) -> bool:
        """Say whether it is for such a request; what is for tokens is for `tokenP`, unless `path` names another."""
        return self.where == where and (self.path or (TOKEN_PATH if where == "tokens" else "")) in path


@dataclass(eq=False)
class Outage:
    """A time in which every request of a kind fails; it has begun where `until` is set."""

    where: WhereOrBoth
    seconds: float | None
    reply: Response
    void_tokens: bool
    at_call: int | None
    until: float | None = None

    def __post_init__(self) -> None:
        can_last = self.seconds is None or self.seconds >= 0
        require(can_last, "seconds", self.seconds, "seconds from 0, or None until heal()")
        require(self.where in {"calls", "tokens", "both"}, "where", self.where, '"calls", "tokens" or "both"')

    def begin(self, now: float) -> None:
        """Start its seconds."""
        self.at_call, self.until = None, math.inf if self.seconds is None else now + self.seconds


@dataclass(eq=False)
class CallLimit:
    """So many calls a second; a call past the limit gets `refusal` and does not count."""

    per_second: int
    window: Window
    refusal: WireResponse
    taken: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        is_whole = not isinstance(self.per_second, bool) and self.per_second >= 1
        require(is_whole, "per_second", self.per_second, "calls a second from 1, or None")
        require(self.window in {"sliding", "fixed"}, "window", self.window, '"sliding" or "fixed"')

    def has_room(self, now: float) -> bool:
        """Say whether a call at `now` is within the limit."""
        is_fixed = self.window == "fixed"
        begin = math.floor(now) if is_fixed else now - 1
        while self.taken and (self.taken[0] < begin if is_fixed else self.taken[0] <= begin):
            self.taken.popleft()
        return len(self.taken) < self.per_second


class FaultInjection:
    """
    The faults of `KisGateway`.

    `where` is "calls" for API calls or "tokens" for token requests. A fault waits in a queue: each request meets the
    oldest for it that has `times` left (None: until `heal()`). All of them take by name:

    - `share`: the part of the requests that meet it, above 0 and up to 1; by dice from the gateway's `seed`, adding up.
    - `path`: a text in the path of the requests that meet it: "/trading/order", or "/oauth2/Approval" of the tokens.
    - `reached=True`: KIS acts on the request all the same (places the order, issues the token); its answer is lost.

    A request meets an outage before all else, then the queue, then the limits (`limit_calls`), then the shares. What it
    met is counted in `faults_met`. One that is dropped, hung, garbled or failed counts as received and nothing else.
    What is not usable as an argument is a `ValueError` that says what it takes.
    """

    def __init__(self, expired_status: int, clock: Callable[[], float] | None, seed: int | None) -> None:
        self._expired_status = expired_status
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below, and all that a subclass adds
        self._dice = random.Random(seed)  # noqa: S311  # dice, not keys
        self._queue: list[Fault] = []
        self._shares: list[Fault] = []
        self._same_tokens = 0.0  # how many issues hand the old token out again
        self._outages: list[Outage] = []
        self._limits: dict[str, CallLimit] = {}
        self._released = threading.Event()  # set when what hangs may go on
        self._calls_seen = 0

    def refuse_calls(
        self,
        *code_and_times: str | int | None,
        msg_cd: str = "EGW00123",
        times: int | None = None,
        msg1: str | None = None,
        status: int | None = None,
        **which: Unpack[Which],
    ) -> None:
        """
        Refuse API calls, whatever token they carry; they count as `refused`.

        `refuse_calls("EGW00201")` for all, `refuse_calls("EGW00201", 3)` for three, `refuse_calls(3)` for three expired
        tokens, `refuse_calls("EGW00301", 1, reached=True)` for one that is acted upon (and counts as `answered` too).
        `msg1` takes the place of KIS's text for the code, `status` that of the gateway's `expired_status`.
        """
        code, times = _code_and_times(code_and_times, msg_cd, times)
        reply = json_response(self._expired_status if status is None else status, failure(str(code), msg1))
        self._plan(Fault(str(code), reply, "calls", times, refuses=True, **which))

    def refuse_tokens(
        self,
        *code_and_times: str | int | None,
        msg_cd: str | None = "EGW00103",
        times: int | None = None,
        status: int = 403,
        code: Any = ...,
        **which: Unpack[Which],
    ) -> None:
        """
        Refuse token requests; they count as `token_requests_refused`.

        `refuse_tokens("EGW00133", 2)` for two, `refuse_tokens(msg_cd=None, status=500)` for an endpoint that fails
        without a verdict. `code` is an older name of `msg_cd`.
        """
        msg_cd, times = _code_and_times(code_and_times, msg_cd if code is ... else code, times)
        reply = json_response(status, error_body(msg_cd))
        self._plan(Fault(msg_cd or f"HTTP {status}", reply, "tokens", times, refuses=True, **which))

    def drop(self, where: Where = "calls", times: int | None = None, **which: Unpack[Which]) -> None:
        """Close the connection without an answer; counted as "dropped"."""
        self._plan(Fault("dropped", None, where, times, **which))

    def hang(
        self, where: Where = "calls", times: int | None = None, seconds: float = 30.0, **which: Unpack[Which]
    ) -> None:
        """
        Keep the caller waiting for `seconds`, or until `heal()`; then answer, if it is still there. Counted as "hung".

        KIS acts on the request when the waiting is over, with `reached=True` when it comes in. A gateway that closes
        first gives no answer. Mocked hosts raise `requests.Timeout` at once.
        """
        self._plan(Fault("hung", Hung(seconds, self._released), where, times, **which))

    def garble(
        self,
        where: Where = "calls",
        times: int | None = None,
        body: bytes = b"<html><body>502 Bad Gateway</body></html>",
        status: int = 502,
        **which: Unpack[Which],
    ) -> None:
        """Answer with any bytes: a proxy's page, `b"{}"`, half a JSON object, an empty token. Counted as "garbled"."""
        self._plan(Fault("garbled", raw_response(status, body), where, times, **which))

    def fail(
        self,
        status: int = 503,
        times: int | None = None,
        where: Where = "calls",
        *,
        retry_after: int | None = None,
        location: str | None = None,
        **which: Unpack[Which],
    ) -> None:
        """
        Answer with an HTTP status and no verdict of KIS: 429, 5xx, a redirect. Counted as "HTTP 503" by its status.

        `retry_after` adds a header `Retry-After` in seconds, `location` one that says where a redirect leads.
        """
        given = {"Retry-After": retry_after, "Location": location}
        headers = {name: str(value) for name, value in given.items() if value is not None}
        self._plan(Fault(f"HTTP {status}", _page(status, headers), where, times, **which))

    def outage(
        self,
        seconds: float | None = None,
        where: WhereOrBoth = "both",
        *,
        status: int | None = 500,
        at_call: int | None = None,
        void_tokens: bool = False,
    ) -> None:
        """
        Fail everything for a while, as KIS does in its maintenance (observed: HTTP 500 for one to two hours at night).

        It lasts `seconds` of the gateway's clock, or until `heal()`, and begins at once, or with the API call number
        `at_call`. "tokens" are all of `/oauth2/`. The answers carry no verdict; `status=None` drops the connections.
        With `void_tokens` no token outlives it (observed): afterwards KIS refuses the old ones with EGW00121. Requests
        that meet it are counted as "outage", and as nothing else but received.
        """
        outage = Outage(where, seconds, None if status is None else _page(status), void_tokens, at_call)
        with self._lock:
            if at_call is None:
                outage.begin(self._now())
            else:
                self._check_call_to_come("outage", at_call)
            self._outages.append(outage)

    def same_token(self, times: int | None = None) -> None:
        """Hand the newest token out again, dead or not, to whoever may have one: a reissue that does not help."""
        with self._lock:
            self._same_tokens = times or math.inf

    def limit_calls(
        self,
        per_second: int | None,
        *,
        window: Window = "sliding",
        path: str = "",
        msg_cd: str = "EGW00201",
        msg1: str | None = None,
        status: int = 500,
    ) -> None:
        """
        Take so many API calls a second, and refuse the others; those are counted in `faults_met` as "over_limit".

        KIS takes 18, on paper 1, from new customers 3; None is no limit. `window` is "sliding" for any second, "fixed"
        for those of the gateway's clock: which of them KIS has is not known. Limits for several `path`s hold side by
        side (`limit_calls(1, path="/trading/", msg_cd="EGW00215")` is the ledger's), a new one for the same path takes
        the place of the old, and `heal()` leaves them alone. A refused call does not count towards the limit.
        """
        refusal = json_response(status, failure(msg_cd, msg1))
        with self._lock:
            if per_second is None:
                self._limits.pop(path, None)
            else:
                self._limits[path] = CallLimit(per_second, window, refusal)

    def heal(self) -> None:
        """Remove every fault, end outages and let hanging requests go on. Limits and the plan of `expire_at` stand."""
        with self._lock:
            self._queue.clear()
            self._shares.clear()
            self._same_tokens = 0
            self._released.set()
            self._released = threading.Event()
            begun = [outage for outage in self._outages if outage.until is not None]
            self._outages.clear()
            self._end(begun)

    # -- which request meets what; the lock is held

    def _plan(self, fault: Fault) -> None:
        with self._lock:
            if fault.share is None:
                self._queue.append(fault)
                return
            beside = [other for other in self._shares if other.where == fault.where and other.path in {fault.path, ""}]
            total = fault.share + sum(other.share or 0 for other in beside)
            fits = f"a share that comes to 1 at most with those before it, not to {total:g}"
            require(total <= 1 + 1e-9, "share", fault.share, fits)
            self._shares.append(fault)

    def _next_in_queue(self, where: Where, path: str) -> Fault | None:
        met = (fault for fault in self._queue if fault.meets(where, path))
        return _used(next(met, None), self._queue)

    def _drawn(self, where: Where, path: str) -> Fault | None:
        thrown = self._dice.random()  # one throw for each request, so that shares add up
        for fault in self._shares:
            if fault.meets(where, path):
                thrown -= fault.share or 0
                if thrown < 0:
                    return _used(fault, self._shares)
        return None

    def _takes_same_token(self) -> bool:
        self._same_tokens -= 1
        return self._same_tokens >= 0

    def _update_outages(self, now: float) -> None:
        for outage in self._outages:
            if outage.at_call == self._calls_seen:
                outage.begin(now)
        over = [outage for outage in self._outages if outage.until is not None and now >= outage.until]
        self._outages = [outage for outage in self._outages if outage not in over]
        self._end(over)

    def _end(self, outages: list[Outage]) -> None:
        if any(outage.void_tokens for outage in outages):
            self._void_tokens()

    def _void_tokens(self) -> None:
        raise NotImplementedError

    def _check_call_to_come(self, method: str, *calls: int) -> None:
        if any(call <= self._calls_seen for call in calls):
            raise ValueError(f"{method} takes numbers of calls to come, from {self._calls_seen + 1}; it got {calls}")

    def _now(self) -> float:
        return time.time() if self._clock is None else self._clock()


def _used(fault: Fault | None, faults: list[Fault]) -> Fault | None:
    if fault is not None and fault.left is not None:
        fault.left -= 1
        if fault.left == 0:
            faults.remove(fault)
    return fault


def _page(status: int, headers: Mapping[str, str] | None = None) -> WireResponse:
    """Make what a server says that fails before KIS's own words: a page of HTML."""
    return raw_response(status, f"<html><body>{status} {responses.get(status, '')}</body></html>".encode(), headers)


def _code_and_times(
    given: tuple[str | int | None, ...], code: str | None, times: int | None
) -> tuple[str | None, int | None]:
    """Sort what came without a name; a short number in quotes is no code of KIS but a slip."""
    codes = [value for value in given if isinstance(value, str)]
    numbers = [value for value in given if not isinstance(value, str)]
    if len(codes) > 1 or len(numbers) > 1 or (numbers and times is not None):
        raise TypeError(f"it takes one code and one number of times; it got {given}, times={times!r}")
    for slip in codes:
        require(not (slip.isdigit() and len(slip) < 6), "times", slip, "a whole number from 1, or None for ever")
    return next(iter(codes), code), next(iter(numbers), times)
