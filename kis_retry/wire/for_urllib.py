"""
Where the standard library sends: `urllib.request.OpenerDirector.open`.

A status of 400 and more is raised there as an `HTTPError`, which carries the answer; it is raised again with its
body to be read.
"""

from __future__ import annotations

import io
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Callable
from dataclasses import replace
from email.message import Message
from http.client import responses
from typing import Any

from ..engine import run
from ..signals import is_from_signal_handler
from .exchange import Exchange
from .library import LibraryCall, Sent
from .protection import chain
from .request import UNREPEATABLE, ApiRequest, TokenRequest, is_short, read_request
from .token_endpoint import answered, note_revoked, source_of_token_request

__all__ = ["open_url"]


def open_url(wrapped: Callable[..., Any], opener: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `OpenerDirector.open`, for `wrapt`."""
    protections = chain()
    if not protections:
        return wrapped(*args, **kwargs)
    return _open(wrapped, opener, protections, *args, **kwargs)


def _open(
    wrapped: Callable[..., Any],
    opener: Any,
    protections: Any,
    fullurl: Any,
    data: Any = None,
    *rest: Any,
    **options: Any,
) -> Any:
    given = fullurl if isinstance(fullurl, urllib.request.Request) else urllib.request.Request(fullurl)  # noqa: S310  # the caller's own
    if data is not None:
        given.data = data
    of_opener = {name.capitalize(): value for name, value in opener.addheaders}
    headers = {**of_opener, **given.unredirected_hdrs, **given.headers}
    body = given.data if given.data is None or isinstance(given.data, bytes) else UNREPEATABLE
    request = read_request(given.get_method(), given.full_url, headers, body)
    if request is None:
        return wrapped(fullurl, data, *rest, **options)
    call = _Call(wrapped, given, rest, options)
    if isinstance(request, TokenRequest):
        return call.about_token(request, protections)
    return run(Exchange(request, protections, call).flow(), lambda: call.send(request)).end()


class _Call(LibraryCall):
    """One call of an opener."""

    lost = urllib.error.URLError

    def __init__(self, wrapped: Callable[..., Any], given: Any, rest: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._wrapped = wrapped
        self._given = given
        self._rest = rest
        self._options = options

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
        return self.answer(said.status, said.body).end()

    def send(self, request: ApiRequest) -> Sent:
        """Send a copy once, and judge what comes of it."""
        copy = self._copy(request)
        try:
            with self.under_way():
                response = self._wrapped(copy, None, *self._rest, **self._options)
                body = _read(response)
        except urllib.error.HTTPError as error:
            return self._refused(error)
        except Exception as error:
            if is_from_signal_handler(error):
                raise
            return self.failed(error, redirected=hasattr(copy, "redirect_dict"))  # which a redirect leaves there
        redirected = response.geturl() != self._given.full_url
        return self.judged(response, response.status, body, redirected=redirected)

    def _refused(self, error: urllib.error.HTTPError) -> Sent:
        """Judge an answer that is raised, its body put back."""
        try:
            with error:
                body = error.read()
        except Exception as broken:  # the connection was dropped in the middle of it
            return self.failed(broken)
        again = urllib.error.HTTPError(error.url or "", error.code, error.msg, error.hdrs, io.BytesIO(body))
        sent = self.judged(None, error.code, body, redirected=error.url != self._given.full_url)
        return replace(sent, error=again)

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
        vars(copy).update({name: value for name, value in vars(given).items() if name == "_tunnel_host"})  # of a proxy
        # What goes along with a redirect, to another host too, is what the caller's own token went along with.
        headers = copy.headers if "Authorization" in copy.headers else copy.unredirected_hdrs
        request.put_token(headers)
        if "authorization" in headers:  # in urllib's spelling, so that none of the opener's is put beside it
            headers["Authorization"] = headers.pop("authorization")
        return copy

    def answer(self, status: int, body: bytes) -> Sent:
        """Return an answer of KIS's that is made here; from a status of 400 on it is raised, as `urllib` does."""
        headers, url = Message(), self._given.full_url
        headers["Content-Type"] = "application/json"
        response = urllib.response.addinfourl(io.BytesIO(body), headers, url, status)
        sent = self.judged(response, status, body, redirected=False)
        error = (
            urllib.error.HTTPError(url, status, responses.get(status, ""), headers, io.BytesIO(body))
            if status >= 400
            else None
        )
        return replace(sent, error=error)


def _read(response: Any) -> bytes | None:
    """Read an answer, and put its body back as it came."""
    if not is_short(response.headers, response.status):
        return None
    body: bytes = response.read()
    response.fp = io.BufferedReader(io.BytesIO(body))
    response.length, response.chunked = len(body), False
    return body
