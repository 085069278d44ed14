"""The faults of a gateway as a test asks for them, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import overload

from .faults import Drop, Fault, FaultPlan, Garble, Hang, Refuse, Share, Where
from .outages import Outage, OutageOf, OutagePlan
from .wire import error_body, failure

__all__ = ["FaultInjection"]


class FaultInjection:
    """
    The faults of `KisGateway`.

    A fault without `share` waits in a queue: each request meets the oldest for it that has `times` left. One with
    `share` meets that share of the requests, thrown with the gateway's `seed`; shares of several faults add up.
    `times=None` means until `heal()`. `path` narrows a fault to requests with that text in their path, "/trading/order"
    say. `where` is "calls" for API calls or "tokens" for token requests.

    A request meets an outage before all else, then the queue, then the limits (`limit_calls`), then the shares: those
    are faults within the limit. What it met is counted in `faults_met`. One that is dropped, hung, garbled or failed is
    counted as received and does nothing else, unless `reached=True`.
    """

    _expired_status: int
    _faults: FaultPlan
    _outages: OutagePlan
    _lock: threading.Lock
    _now: Callable[[], float]
    _end: Callable[[Sequence[Outage]], None]
    _check_call_to_come: Callable[..., None]

    @overload
    def refuse_calls(
        self,
        msg_cd: str = ...,
        times: int | None = None,
        *,
        share: Share | None = None,
        path: str = "",
        msg1: str | None = None,
        status: int | None = None,
        reached: bool = False,
    ) -> None: ...

    @overload
    def refuse_calls(
        self,
        first: int | None,
        /,
        msg_cd: str = ...,
        *,
        share: Share | None = None,
        path: str = "",
        msg1: str | None = None,
        status: int | None = None,
        reached: bool = False,
    ) -> None: ...

    def refuse_calls(
        self,
        *code_and_times: str | int | None,
        msg_cd: str = "EGW00123",
        times: int | None = None,
        share: Share | None = None,
        path: str = "",
        msg1: str | None = None,
        status: int | None = None,
        reached: bool = False,
    ) -> None:
        """
        Refuse API calls, whatever token they carry; they count as `refused`.

        `refuse_calls("EGW00201")` for all, `refuse_calls("EGW00201", 3)` for three, `refuse_calls(3)` for three expired
        tokens, `refuse_calls("EGW00316", share=0.05)` for one in twenty.

        Args:
            code_and_times: `msg_cd`, `times` or both, without their names.
            msg_cd: KIS's code; its text comes with it.
            times: how many, or None for all.
            share: the share of the calls, above 0 and up to 1; None for each.
            path: a part of the path of the calls.
            msg1: the message, where it is to be another than KIS's text for the code.
            status: the HTTP status, where it is to be another than the gateway's `expired_status`.
            reached: KIS acts on the call all the same (places the order), as it may with EGW00301; the call counts as
                `answered` too then.

        Raises:
            ValueError: an argument is not usable.
        """
        given, times = _code_and_times(code_and_times, times)
        code = msg_cd if given is None else given
        effect = Refuse(self._expired_status if status is None else status, failure(code, msg1), reached)
        self._plan(Fault(code, effect, "calls", path, times, share))

    @overload
    def refuse_tokens(
        self, code: str | None = ..., times: int | None = None, *, status: int = 403, share: Share | None = None
    ) -> None: ...

    @overload
    def refuse_tokens(
        self, first: int | None, /, code: str | None = ..., *, status: int = 403, share: Share | None = None
    ) -> None: ...

    def refuse_tokens(
        self,
        *code_and_times: str | int | None,
        code: str | None = "EGW00103",
        times: int | None = None,
        status: int = 403,
        share: Share | None = None,
    ) -> None:
        """
        Refuse token requests; they count as `token_requests_refused`.

        `refuse_tokens("EGW00133", 2)` for two, `refuse_tokens(code=None, status=500)` for an endpoint that fails.

        Args:
            code_and_times: `code`, `times` or both, without their names.
            code: KIS's `error_code`; None for a body without a verdict, as a failing server sends it with status 500.
            times: how many, or None for all.
            status: the HTTP status.
            share: the share of the requests, above 0 and up to 1; None for each.

        Raises:
            ValueError: an argument is not usable.
        """
        given, times = _code_and_times(code_and_times, times)
        code = code if given is None else given
        name = f"HTTP {status}" if code is None else code
        self._plan(Fault(name, Refuse(status, error_body(code)), "tokens", left=times, share=share))

    def drop(
        self,
        where: Where = "calls",
        times: int | None = None,
        *,
        reached: bool = False,
        share: Share | None = None,
        path: str = "",
    ) -> None:
        """
        Close the connection without an answer; counted as "dropped".

        Args:
            where: which requests.
            times: how many, or None for all.
            reached: KIS has acted on the request (placed the order, issued the token); only its answer is lost.
            share: the share of the requests, above 0 and up to 1; None for each.
            path: a part of the path of the requests.
        """
        self._plan(Fault("dropped", Drop(reached), where, path, times, share))

    def hang(
        self,
        where: Where = "calls",
        times: int | None = None,
        seconds: float = 30.0,
        *,
        reached: bool = False,
        share: Share | None = None,
        path: str = "",
    ) -> None:
        """
        Keep the caller waiting for `seconds`, or until `heal()`; then answer, if it is still there. Counted as "hung".

        A gateway that closes first gives no answer. Mocked hosts raise `requests.Timeout` at once.

        Args:
            where: which requests.
            times: how many, or None for all.
            seconds: how long.
            reached: KIS acts on the request when it comes in, not when the waiting is over.
            share: the share of the requests, above 0 and up to 1; None for each.
            path: a part of the path of the requests.
        """
        self._plan(Fault("hung", Hang(seconds, reached), where, path, times, share))

    def garble(
        self,
        where: Where = "calls",
        times: int | None = None,
        body: bytes = b"<html><body>502 Bad Gateway</body></html>",
        status: int = 502,
        *,
        reached: bool = False,
        share: Share | None = None,
        path: str = "",
    ) -> None:
        """
        Answer with any bytes: a proxy's page, `b"{}"`, half a JSON object, an empty token. Counted as "garbled".

        Args:
            where: which requests.
            times: how many, or None for all.
            body: what is sent, as it is.
            status: the HTTP status.
            reached: KIS has acted on the request.
            share: the share of the requests, above 0 and up to 1; None for each.
            path: a part of the path of the requests.
        """
        self._plan(Fault("garbled", _garble(status, body, reached), where, path, times, share))

    def fail(
        self,
        status: int = 503,
        times: int | None = None,
        where: Where = "calls",
        *,
        retry_after: int | None = None,
        reached: bool = False,
        share: Share | None = None,
        path: str = "",
    ) -> None:
        """
        Answer with an HTTP status and no verdict of KIS, 429 or 5xx say; counted as "HTTP 503" by its status.

        Args:
            status: the HTTP status.
            times: how many, or None for all.
            where: which requests.
            retry_after: seconds for a header `Retry-After`; None for no such header.
            reached: KIS has acted on the request, and a server in between lost its answer.
            share: the share of the requests, above 0 and up to 1; None for each.
            path: a part of the path of the requests.
        """
        effect = failing(status, reached=reached)
        if retry_after is not None:
            effect = effect._replace(headers={**effect.headers, "Retry-After": str(retry_after)})
        self._plan(Fault(f"HTTP {status}", effect, where, path, times, share))

    def outage(
        self,
        seconds: float | None = None,
        where: OutageOf = "both",
        *,
        status: int | None = 500,
        at_call: int | None = None,
        void_tokens: bool = False,
    ) -> None:
        """
        Fail everything for a while, as KIS does in its maintenance (observed: HTTP 500 for one to two hours at night).

        Requests that meet it are counted as "outage", and as nothing else but received.

        Args:
            seconds: how long, on the gateway's clock; None until `heal()`.
            where: "calls" for API calls, "tokens" for all of `/oauth2/`, or "both".
            status: the HTTP status of the answers, which carry no verdict; None drops the connections.
            at_call: begin with the n-th API call, counted as in `expire_at`; None begins at once.
            void_tokens: no token outlives it (observed): afterwards KIS refuses the old ones with EGW00121.

        Raises:
            ValueError: an argument is not usable, or that call has been received already.
        """
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"seconds={seconds!r} is not usable: it takes seconds from 0, or None until heal()")
        if where not in {"calls", "tokens", "both"}:
            raise ValueError(f'where={where!r} is not usable: it takes "calls", "tokens" or "both"')
        planned = Outage(where, seconds, status, void_tokens, at_call)
        with self._lock:
            if at_call is None:
                planned.begin(self._now())
            else:
                self._check_call_to_come("outage", at_call)
            self._outages.add(planned)

    def same_token(self, times: int | None = None) -> None:
        """Hand the newest token out again, dead or not, to whoever may have one: a reissue that does not help."""
        self._plan(Fault("same token", None, "tokens", left=times))

    def heal(self) -> None:
        """Remove every fault, end outages and let hanging requests go on. Limits and the plan of `expire_at` stand."""
        with self._lock:
            self._faults.clear()
            self._end(self._outages.clear())

    def _plan(self, fault: Fault) -> None:
        with self._lock:
            self._faults.add(fault)


def failing(status: int, *, reached: bool = False) -> Garble:
    """What a server says that fails before KIS's own words: a page of HTML."""
    try:
        title = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        title = str(status)
    return _garble(status, f"<html><body>{title}</body></html>".encode(), reached)


def _garble(status: int, body: bytes, reached: bool) -> Garble:
    kind = "text/html" if body.lstrip().startswith(b"<") else "application/json; charset=utf-8"
    return Garble(status, body, {"Content-Type": kind}, reached)


def _code_and_times(given: tuple[str | int | None, ...], times: int | None) -> tuple[str | None, int | None]:
    """Sort what came without a name; a short number in quotes is no code of KIS but a slip."""
    codes = [value for value in given if isinstance(value, str)]
    numbers = [value for value in given if not isinstance(value, str)]
    if len(codes) > 1 or len(numbers) > 1 or (numbers and times is not None):
        raise TypeError(f"it takes one code and one number of times; it got {given}, times={times!r}")
    code = next(iter(codes), None)
    if code is not None and code.isdigit() and len(code) < 6:
        raise ValueError(f"times={code!r} is not usable: it takes a whole number from 1, or None for ever")
    return code, next(iter(numbers), times)
