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
from ..signals import is_from_signal_handler
from .exchange import Exchange
from .library import LibraryCall, Sent
from .protection import UNDER_WAY, Protection, chain
from .request import ApiRequest, TokenRequest, is_short, read_request
from .token_endpoint import answered, note_revoked, source_of_token_request

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
    options = {name: value for name, value in kwargs.items() if name != "request"}
    call = _Call(wrapped, session, prepared, options)
    if isinstance(request, TokenRequest):
        return call.about_token(request, protections)
    return call.hooked(run(Exchange(request, protections, call).flow(), lambda: call.send(request)).end())


def open_urllib3(wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `HTTPConnectionPool.urlopen`, for `wrapt`."""
    call = UNDER_WAY.get()
    if not isinstance(call, LibraryCall):
        return wrapped(*args, **kwargs)
    if len(args) > _RETRIES:
        args = (*args[:_RETRIES], _retries(args[_RETRIES], call), *args[_RETRIES + 1 :])
    else:
        kwargs = {**kwargs, "retries": _retries(kwargs.get("retries"), call)}
    return wrapped(*args, **kwargs)


class _Call(LibraryCall):
    """One call of `Session.send`."""

    lost = requests.ConnectionError

    def __init__(self, wrapped: Callable[..., Any], session: Any, prepared: Any, options: dict[str, Any]) -> None:
        self._wrapped = wrapped
        self._session = session
        self._prepared = prepared
        self._options = options

    def about_token(self, request: TokenRequest, protections: tuple[Protection, ...]) -> Any:
        """Answer a library's own token request; a revocation goes to KIS."""
        source = source_of_token_request(request, protections, self.new_session)
        if source is None or request.revokes:
            response = self._wrapped(self._prepared, **self._options)
            if request.revokes and response.ok:
                note_revoked(request, source)
            return response
        said = run(answered(source), lambda: None)
        if said.status is None:
            raise requests.ConnectionError(said.body.decode(), request=self._prepared)
        return self.hooked(self.answer(said.status, said.body).response)

    def new_session(self) -> requests.Session:
        """Return a session with the proxies and the TLS settings of this request."""
        session = requests.Session()
        session.trust_env = self._session.trust_env
        session.proxies = dict(self._options.get("proxies") or self._session.proxies)
        session.verify = self._options.get("verify", self._session.verify)
        session.cert = self._options.get("cert", self._session.cert)
        return session

    def answer(self, status: int, body: bytes) -> Sent:
        """Return an answer of KIS's that is made here."""
        response = HTTPAdapter().build_response(
            self._prepared, _raw(body, {"Content-Type": "application/json"}, status)
        )
        response.reason = responses.get(status, "")
        return self.judged(response, status, response.content, redirected=False)

    def send(self, request: ApiRequest) -> Sent:
        """Send a copy once, and judge what comes of it."""
        copy = self._copy(request)
        try:
            with self.under_way():
                response = self._wrapped(copy, **self._options)
                body = self._read(response)
        except Exception as error:
            if is_from_signal_handler(error):
                raise
            return self.failed(error, redirected=getattr(error, "request", None) not in (None, copy))
        redirected = any(each.is_redirect for each in response.history)
        return self.judged(response, response.status_code, body, redirected=redirected)

    def _copy(self, request: ApiRequest) -> Any:
        """Return what leaves: the hooks of an `auth` are a part of sending, all others the caller's."""
        copy, ours = requests.PreparedRequest(), self._prepared
        vars(copy).update(vars(ours), headers=ours.headers.copy())
        if ours.hooks.get("response"):
            copy.hooks = {"response": [hook for hook in ours.hooks["response"] if _is_of_auth(hook)]}
        request.put_token(copy.headers)
        return copy

    def _read(self, response: Any) -> bytes | None:
        """Return the body of an answer; a streamed one is put back as it came, to be read again."""
        if not self._options.get("stream", self._session.stream):
            return bytes(response.content)
        if not is_short(response.headers, response.status_code) or not isinstance(
            response.raw, urllib3.BaseHTTPResponse
        ):
            return None
        try:
            came, headers = response.raw.read(decode_content=False), response.raw.headers
            body = _raw(came, headers, response.status_code, self._prepared.method).read(decode_content=True)
        except urllib3.exceptions.DecodeError as error:
            raise requests.exceptions.ContentDecodingError(error, request=response.request) from error
        except urllib3.exceptions.ProtocolError as error:  # as `requests` has it for whoever reads the body
            raise requests.exceptions.ChunkedEncodingError(error, request=response.request) from error
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error, request=response.request) from error
        response.raw.release_conn()
        response.raw = _raw(came, headers, response.status_code, self._prepared.method)
        return body

    def hooked(self, response: Any) -> Any:
        """Run the caller's hooks as `Session.send` does, with the arguments of the send."""
        hooks = [hook for hook in self._prepared.hooks.get("response", ()) if not _is_of_auth(hook)]
        if not hooks:
            return response
        options = {name: getattr(self._session, name) for name in ("stream", "verify", "cert", "proxies")}
        options.update(self._options)
        options.pop("allow_redirects", None)
        return dispatch_hook("response", {"response": hooks}, response, **options)  # type: ignore[no-untyped-call]


def _is_of_auth(hook: Any) -> bool:
    return isinstance(getattr(hook, "__self__", None), AuthBase)


def _retries(found: Any, call: LibraryCall) -> Any:
    """Return what `urllib3` may repeat by itself: nothing, or all that the caller asked for but HTTP 500."""
    if call.alone:
        return _NO_RETRIES
    statuses = getattr(found, "status_forcelist", None)
    return found.new(status_forcelist=set(statuses) - {500}) if statuses else found


def _raw(body: bytes, headers: Any, status: int, method: str | None = None) -> urllib3.HTTPResponse:
    options: dict[str, Any] = {"preload_content": False, "decode_content": False, "request_method": method}
    return urllib3.HTTPResponse(io.BytesIO(body), headers, status, **options)
