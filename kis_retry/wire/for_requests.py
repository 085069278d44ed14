"""
Where `requests` sends: `Session.send`.

A copy of the caller's request leaves, its hooks aside; they run once, on the final answer. Nothing underneath repeats:
while a protected request is under way, `urllib3` is given other retries.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from http.client import responses
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.hooks import dispatch_hook

from ..engine import run
from .exchange import flow_of
from .protection import UNDER_WAY, chain
from .request import LibraryCall, Sent, is_short, read_request

__all__ = ["open_urllib3", "send"]

_NO_RETRIES = urllib3.Retry(0, read=False)  # as `requests` has it by default
_RETRIES = 4  # the place of `retries` among the arguments of `urlopen`


def send(wrapped: Callable[..., Any], session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `Session.send`, for `wrapt`."""
    protections = chain()
    prepared = args[0] if args else kwargs.get("request")
    if not protections or not isinstance(prepared, requests.PreparedRequest):
        return wrapped(*args, **kwargs)
    request = read_request(prepared.method, prepared.url, prepared.headers, prepared.body)
    if request is None:
        return wrapped(*args, **kwargs)
    call = _Call(wrapped, session, prepared, request, kwargs)
    response = run(flow_of(call, protections), call.send).end()
    return call.hooked(response) if prepared.hooks.get("response") else response


def open_urllib3(wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `HTTPConnectionPool.urlopen`, for `wrapt`."""
    call = UNDER_WAY.get()
    if not isinstance(call, LibraryCall):
        return wrapped(*args, **kwargs)
    found: Any = args[_RETRIES] if len(args) > _RETRIES else kwargs.get("retries")
    statuses = getattr(found, "status_forcelist", None)
    if call.alone:
        found = _NO_RETRIES
    elif statuses:  # all that the caller asked for but HTTP 500
        found = found.new(status_forcelist=set(statuses) - {500})
    if len(args) > _RETRIES:
        return wrapped(*args[:_RETRIES], found, *args[_RETRIES + 1 :], **kwargs)
    return wrapped(*args, **{**kwargs, "retries": found})


class _Call(LibraryCall):
    """One call of `Session.send`."""

    lost = requests.ConnectionError

    def __init__(
        self, wrapped: Callable[..., Any], session: Any, prepared: Any, request: Any, options: dict[str, Any]
    ) -> None:
        self._wrapped = wrapped
        self._session = session
        self._prepared = prepared
        self.request = request
        self._options = options
        options.pop("request", None)

    def new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = self._session.trust_env
        for name in ("proxies", "verify", "cert"):
            setattr(session, name, self._options.get(name, getattr(self._session, name)))
        return session

    def answer(self, status: int, body: bytes, location: str = "") -> Sent:
        raw = _raw(body, {"Content-Type": "application/json"}, status)
        response = HTTPAdapter().build_response(self._prepared, raw)
        response.reason = responses.get(status, "")
        return self.judged(response, status, response.content)

    def send(self) -> Sent:
        """Send a copy once, and judge what comes of it: the hooks of an `auth` are a part of sending."""
        copy, ours = requests.PreparedRequest(), self._prepared
        vars(copy).update(vars(ours), headers=ours.headers.copy())
        if ours.hooks.get("response"):
            copy.hooks = {"response": [hook for hook in ours.hooks["response"] if _is_of_auth(hook)]}
        self.request.put_token(copy.headers)
        try:
            response = self._wrapped(copy, **self._options)
            body = self._read(response) if self._options.get("stream", self._session.stream) else response.content
        except Exception as error:
            return self.failed(error, redirected=getattr(error, "request", None) not in (None, copy))
        redirected = bool(response.history) and any(each.is_redirect for each in response.history)
        return self.judged(response, response.status_code, body, redirected=redirected)

    def _read(self, response: Any) -> bytes | None:
        """Read a streamed answer that may be judged, and put its body back as it came, to be read again."""
        raw, status = response.raw, response.status_code
        if not is_short(response.headers, status) or not isinstance(raw, urllib3.BaseHTTPResponse):
            return None
        try:
            came = raw.read(decode_content=False)
            body = _raw(came, raw.headers, status, self._prepared.method).read(decode_content=True)
        except urllib3.exceptions.DecodeError as error:
            raise requests.exceptions.ContentDecodingError(error, request=response.request) from error
        except urllib3.exceptions.ProtocolError as error:  # as `requests` has it for whoever reads the body
            raise requests.exceptions.ChunkedEncodingError(error, request=response.request) from error
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error, request=response.request) from error
        raw.release_conn()
        response.raw = _raw(came, raw.headers, status, self._prepared.method)
        return body

    def hooked(self, response: Any) -> Any:
        """Run the caller's hooks as `Session.send` does, with the arguments of the send."""
        hooks = [hook for hook in self._prepared.hooks["response"] if not _is_of_auth(hook)]
        options = {name: getattr(self._session, name) for name in ("stream", "verify", "cert", "proxies")}
        options.update(self._options)
        options.pop("allow_redirects", None)
        return dispatch_hook("response", {"response": hooks}, response, **options)  # type: ignore[no-untyped-call]


def _is_of_auth(hook: Any) -> bool:
    return isinstance(getattr(hook, "__self__", None), AuthBase)


def _raw(body: bytes, headers: Any, status: int, method: str | None = None) -> urllib3.HTTPResponse:
    options: dict[str, Any] = {"preload_content": False, "decode_content": False, "request_method": method}
    return urllib3.HTTPResponse(io.BytesIO(body), headers, status, **options)
