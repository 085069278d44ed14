"""
Where the standard library sends: `urllib.request.OpenerDirector.open`.

A status of 400 and more is raised there as an `HTTPError`, which carries the answer; it is raised again with its body to
be read.
"""

from __future__ import annotations

import io
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Callable
from contextvars import ContextVar
from email.message import Message
from typing import Any

from ..answers import judge_answer, judge_error
from ..engine import run
from ..signals import is_from_signal_handler
from .exchange import Exchange, Sent
from .orders import Ending, rebuilt
from .protection import chain
from .request import UNREPEATABLE, ApiRequest, TokenRequest, is_short_text, read_request, set_token
from .token_endpoint import answered, note_revoked, source_of_token_request

__all__ = ["open_url"]

_UNDER_WAY: ContextVar[bool] = ContextVar("kis_retry_urllib", default=False)


def open_url(wrapped: Callable[..., Any], opener: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `OpenerDirector.open`, for `wrapt`."""
    protections = () if _UNDER_WAY.get() else chain()
    if not protections:
        return wrapped(*args, **kwargs)
    return _open(wrapped, protections, *args, **kwargs)


def _open(
    wrapped: Callable[..., Any], protections: Any, fullurl: Any, data: Any = None, *rest: Any, **options: Any
) -> Any:
    given = fullurl if isinstance(fullurl, urllib.request.Request) else urllib.request.Request(fullurl)  # noqa: S310  # the caller's own
    if data is not None:
        given.data = data
    headers = {**given.unredirected_hdrs, **given.headers}
    body = given.data if given.data is None or isinstance(given.data, bytes) else UNREPEATABLE
    request = read_request(given.get_method(), given.full_url, headers, body)
    if request is None:
        return wrapped(fullurl, data, *rest, **options)
    call = _Call(wrapped, given, rest, options)
    if isinstance(request, TokenRequest):
        return call.about_token(request, protections)
    return call.end(call.exchange(request, protections))


class _Call:
    """One call of an opener: what an exchange asks of its library."""

    def __init__(self, wrapped: Callable[..., Any], given: Any, rest: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._wrapped = wrapped
        self._given = given
        self._rest = rest
        self._options = options

    def exchange(self, request: ApiRequest, protections: Any) -> Sent:
        """Send a request until its outcome is final."""
        exchange = Exchange(request, protections, self)
        codes = exchange.expired_codes
        return run(exchange.flow(), lambda: self._send(request, codes))

    def end(self, sent: Sent) -> Any:
        """Give the caller the final outcome."""
        error = sent.error
        try:
            if error is not None:
                raise error
            return sent.response
        finally:
            del error, sent  # a circle would keep the connection open

    def about_token(self, request: TokenRequest, protections: Any) -> Any:
        """Answer a library's own token request; a revocation goes to KIS."""
        source = source_of_token_request(request, protections, self.new_session)
        if source is None or request.revokes:
            response = self._wrapped(self._given, None, *self._rest, **self._options)
            if request.revokes:
                note_revoked(request, source)
            return response
        said = run(answered(source), lambda: None)
        if said.status is None:
            raise urllib.error.URLError(said.body.decode())
        return self.end(self._answer(said.status, said.body))

    def new_session(self) -> None:
        """Return none: token requests go by the environment's proxies and certificates."""

    def retold(self, ending: Ending) -> Sent:
        """Return how an order ended before."""
        if ending.error is not None:
            return Sent(ending.verdict, error=rebuilt(ending, urllib.error.URLError))
        return self._answer(ending.status, ending.body)

    def _send(self, request: ApiRequest, codes: tuple[str, ...]) -> Sent:
        under_way = _UNDER_WAY.set(True)
        try:
            response = self._wrapped(self._copy(request), None, *self._rest, **self._options)
            body = _read(response)
        except urllib.error.HTTPError as error:
            return self._refused(error, codes)
        except Exception as error:
            if is_from_signal_handler(error):
                raise
            verdict = judge_error(error, codes)
            ending = Ending(verdict, error=type(error), text=str(getattr(error, "reason", error)))
            return Sent(verdict, error=_trimmed(error), ending=ending)
        finally:
            _UNDER_WAY.reset(under_way)
        verdict = judge_answer(response.status, body, codes)
        redirected = response.geturl() != self._given.full_url
        return Sent(verdict, response, None, redirected, Ending(verdict, response.status, body or b""))

    def _refused(self, error: urllib.error.HTTPError, codes: tuple[str, ...]) -> Sent:
        """Judge an answer that is raised, its body put back."""
        try:
            body = error.read()
        except Exception as broken:  # the connection was dropped in the middle of it
            return Sent(judge_error(broken, codes), error=_trimmed(error))
        again = _http_error(error.url, error.code, error.msg, error.hdrs, body)
        verdict = judge_answer(error.code, body, codes)
        redirected = error.url != self._given.full_url
        return Sent(verdict, error=again, redirected=redirected, ending=Ending(verdict, error.code, body))

    def _copy(self, request: ApiRequest) -> urllib.request.Request:
        given = self._given
        copy = urllib.request.Request(  # noqa: S310  # the caller's own address
            given.full_url,
            given.data,
            dict(given.headers),
            given.origin_req_host,
            given.unverifiable,
            given.get_method(),
        )
        copy.unredirected_hdrs = dict(given.unredirected_hdrs)
        if hasattr(given, "_tunnel_host"):
            copy._tunnel_host = given._tunnel_host  # noqa: SLF001  # a proxy for this request alone
        if request.token != request.original_token and request.token is not None:
            set_token(copy.unredirected_hdrs, request.token)
            set_token(copy.headers, request.token)
        return copy

    def _answer(self, status: int, body: bytes) -> Sent:
        headers = Message()
        headers["Content-Type"] = "application/json"
        verdict = judge_answer(status, body)
        if status >= 400:  # noqa: PLR2004  # as `urllib` raises them
            return Sent(verdict, error=_http_error(self._given.full_url, status, "", headers, body))
        return Sent(verdict, urllib.response.addinfourl(io.BytesIO(body), headers, self._given.full_url, status))


def _read(response: Any) -> bytes | None:
    """Read an answer, and put its body back as it came."""
    if not is_short_text(response.headers):
        return None
    body: bytes = response.read()
    response.fp = io.BufferedReader(io.BytesIO(body))  # type: ignore[arg-type]  # reads bytes, as a socket's file does
    response.length, response.chunked = len(body), False
    return body


def _http_error(url: Any, code: int, message: str, headers: Any, body: bytes) -> urllib.error.HTTPError:
    return urllib.error.HTTPError(url, code, message, headers, io.BytesIO(body))


def _trimmed(error: Any) -> Any:
    """Let go of the frames of this package, which would keep the error alive."""
    trace = error.__traceback__
    return error.with_traceback(trace.tb_next if trace is not None else None)
