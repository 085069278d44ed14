"""
Where the standard library sends: `urllib.request.OpenerDirector.open`.

A status of 400 and more is raised there as an `HTTPError`, which carries the answer; it is raised again with its
body to be read.
"""

from __future__ import annotations

import copy
import io
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Callable
from email.message import Message
from http.client import responses
from typing import Any

from ..engine import run
from .exchange import flow_of
from .protection import chain
from .request import UNREPEATABLE, LibraryCall, Sent, is_short, read_request

__all__ = ["open_url"]


def open_url(wrapped: Callable[..., Any], opener: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `OpenerDirector.open`, for `wrapt`."""
    protections = chain()
    if not protections:
        return wrapped(*args, **kwargs)
    call = _Call(wrapped, opener, *args, **kwargs)
    if call.request is None:
        return wrapped(*args, **kwargs)
    return run(flow_of(call, protections), call.send).end()


class _Call(LibraryCall):
    """One call of an opener."""

    lost = urllib.error.URLError

    def __init__(
        self, wrapped: Callable[..., Any], opener: Any, fullurl: Any, data: Any = None, *rest: Any, **options: Any
    ) -> None:
        is_request = isinstance(fullurl, urllib.request.Request)
        given = fullurl if is_request else urllib.request.Request(fullurl)  # noqa: S310  # the caller's own
        if data is not None:
            given.data = data
        of_opener = {name.lower(): value for name, value in opener.addheaders}
        headers = {name.lower(): value for name, value in given.header_items()}
        body = given.data if given.data is None or isinstance(given.data, bytes) else UNREPEATABLE
        self.request = read_request(given.get_method(), given.full_url, {**of_opener, **headers}, body)
        self._wrapped = wrapped
        self._given = given
        self._rest = rest
        self._options = options

    def send(self) -> Sent:
        """Send a copy once, and judge what comes of it."""
        ours = copy.copy(self._given)
        ours.headers = {name.capitalize(): value for name, value in ours.headers.items()}
        ours.unredirected_hdrs = dict(ours.unredirected_hdrs)
        # What goes along with a redirect, to another host too, is what the caller's own token went along with.
        self.request.put_token(
            ours.headers if "Authorization" in ours.headers else ours.unredirected_hdrs, "Authorization"
        )
        try:
            response = self._wrapped(ours, None, *self._rest, **self._options)
            body = _read(response)
        except urllib.error.HTTPError as error:
            return self._refused(error)._replace(redirected=hasattr(ours, "redirect_dict"))  # which a redirect leaves
        except Exception as error:
            return self.failed(error, redirected=hasattr(ours, "redirect_dict"))
        return self.judged(response, response.status, body, redirected=hasattr(ours, "redirect_dict"))

    def _refused(self, error: urllib.error.HTTPError) -> Sent:
        """Judge an answer that is raised, its body put back."""
        try:
            with error:
                body = error.read()
        except Exception as broken:  # the connection was dropped in the middle of it
            return self.failed(broken)
        again = urllib.error.HTTPError(error.url or "", error.code, error.msg, error.hdrs, io.BytesIO(body))
        return self.judged(None, error.code, body)._replace(error=again)

    def answer(self, status: int, body: bytes, location: str = "") -> Sent:
        headers, url = Message(), self._given.full_url
        headers["Content-Type"] = "application/json"
        response = urllib.response.addinfourl(io.BytesIO(body), headers, url, status)
        sent = self.judged(response, status, body)
        if status < 400:
            return sent
        error = urllib.error.HTTPError(url, status, responses.get(status, ""), headers, io.BytesIO(body))
        return sent._replace(error=error)


def _read(response: Any) -> bytes | None:
    """Read an answer, and put its body back as it came."""
    if not is_short(response.headers, response.status):
        return None
    body: bytes = response.read()
    response.fp = io.BufferedReader(io.BytesIO(body))
    response.length, response.chunked = len(body), False
    return body
