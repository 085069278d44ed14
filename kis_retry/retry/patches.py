"""
Where `requests`, `httpx` and `aiohttp` send, and the observer put there.

As deep as the request is final (after a session's headers, an `auth`, a middleware) and still shallow enough that
whatever stands in for the network in a test is reached. What is no `requests` is observed once the program has
imported it; importing it here would cost those who do not use it.
"""

from __future__ import annotations

import functools
import io
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.hooks import dispatch_hook

from ..context import Sighting
from ..forking import after_fork
from . import observer
from .caches import without_failures
from .call import call_under_way
from .self_refresh import Answer, answer_to, answer_to_async, renew, renew_async
from .wire import sighting_of

__all__ = ["look_for_libraries", "unwatch", "watch"]

_installing = threading.RLock()  # guards _watchers and _patched; a signal handler may decorate, too
_watchers = 0
_patched: dict[tuple[Any, str], tuple[Any, Any]] = {}
_looked_at: set[str] = set()
_modules_seen = 0  # how many modules there were when they were last looked through

_sightings: weakref.WeakKeyDictionary[Any, Sighting] = weakref.WeakKeyDictionary()  # of aiohttp's responses


def watch() -> None:
    """Begin to observe; each `watch` is ended by an `unwatch`."""
    global _watchers
    with _installing:
        _watchers += 1
        _patch(_session_class(), "send", _observed_requests)
    look_for_libraries()


def unwatch() -> None:
    """With the last one, the libraries are as they were."""
    global _modules_seen, _watchers
    with _installing:
        _watchers -= 1
        if _watchers == 0:
            _looked_at.clear()
            _modules_seen = 0
            for (owner, name), (original, ours) in list(_patched.items()):
                if vars(owner).get(name) is ours:  # else somebody wrapped it since: ours stays inside, and is inert
                    setattr(owner, name, original)
                    del _patched[(owner, name)]


def look_for_libraries() -> None:
    """Observe what the program has imported since; where there is nothing new, it is one comparison."""
    global _modules_seen
    modules = len(sys.modules)
    if modules == _modules_seen:
        return
    for name, patch in _LATE.items():
        if name not in _looked_at and name in sys.modules:
            with _installing:
                if not _watchers or not patch(sys.modules[name]):
                    return  # it is still being imported: look again
                _looked_at.add(name)
    _modules_seen = modules


def _session_class() -> type:
    """The class of `requests` that sends, also where `requests_cache` has put another one in the place of its name."""
    return next(
        kind for kind in requests.Session.__mro__ if kind.__module__ == "requests.sessions" and "send" in vars(kind)
    )


def _patch(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Once; but where somebody has put another one in the place of ours, again: observing twice is observing once."""
    original = vars(owner)[name]
    if (owner, name) not in _patched or original is not _patched[(owner, name)][1]:
        ours = wrap(original)
        _patched[(owner, name)] = original, ours
        setattr(owner, name, ours)


def _observed_requests(send: Any) -> Any:
    @functools.wraps(send)
    def observing(self: Any, request: Any, **options: Any) -> Any:
        call = call_under_way()
        if call is None:
            return send(self, request, **options)
        observer.pace(call, request.method, request.url)
        sighting = sighting_of(request.method, request.url, request.headers, request.body)
        answer = answer_to(call, sighting, request.body)
        if answer is not None:
            return _as_requests(request, answer, options)
        renew(call, sighting)
        observer.sent(call, sighting, request.headers)
        try:
            response = send(self, request, **options)
            streamed = bool(options.get("stream", self.stream))
            unread = streamed and not observer.is_to_be_read(call, sighting, response.headers)
            body = b"" if unread else response.content
        except Exception as error:
            observer.failed(call, sighting, error)
            raise
        if unread:
            observer.unread(call, sighting)
        else:
            observer.answered(call, sighting, response, body)
        return response

    return observing


def _as_requests(request: Any, answer: Answer, options: dict[str, Any]) -> Any:
    raw = urllib3.HTTPResponse(
        io.BytesIO(answer.body), {"Content-Type": "application/json"}, answer.status, preload_content=False
    )
    response = HTTPAdapter().build_response(request, raw)
    return dispatch_hook("response", request.hooks, response, **options)  # type: ignore[no-untyped-call]  # its stub


def _patch_httpx(httpx: Any) -> bool:
    if not hasattr(httpx, "AsyncClient"):  # still being imported
        return False
    # After redirects and `auth`; where a version has no such method, the whole send is the next best place.
    name = "_send_single_request" if "_send_single_request" in vars(httpx.Client) else "send"
    _patch(httpx.Client, name, _observed_httpx)
    _patch(httpx.AsyncClient, name, _observed_httpx_async)
    return True


def _observed_httpx(send: Any) -> Any:
    @functools.wraps(send)
    def observing(self: Any, request: Any, **options: Any) -> Any:
        call = call_under_way()
        if call is None:
            return send(self, request, **options)
        observer.pace(call, request.method, request.url)
        sighting = sighting_of(request.method, request.url, request.headers, _content(request))
        answer = answer_to(call, sighting, _content(request))
        if answer is not None:
            return _as_httpx(request, answer)
        renew(call, sighting)
        observer.sent(call, sighting, request.headers)
        try:
            response = send(self, request, **options)
            body = response.read() if observer.is_to_be_read(call, sighting, response.headers) else None
        except Exception as error:
            observer.failed(call, sighting, error)
            raise
        _note_httpx(call, sighting, response, body)
        return response

    return observing


def _observed_httpx_async(send: Any) -> Any:
    @functools.wraps(send)
    async def observing(self: Any, request: Any, **options: Any) -> Any:
        call = call_under_way()
        if call is None:
            return await send(self, request, **options)
        await observer.pace_async(call, request.method, request.url)
        sighting = sighting_of(request.method, request.url, request.headers, _content(request))
        answer = await answer_to_async(call, sighting, _content(request))
        if answer is not None:
            return _as_httpx(request, answer)
        await renew_async(call, sighting)
        observer.sent(call, sighting, request.headers)
        try:
            response = await send(self, request, **options)
            body = await response.aread() if observer.is_to_be_read(call, sighting, response.headers) else None
        except Exception as error:
            observer.failed(call, sighting, error)
            raise
        _note_httpx(call, sighting, response, body)
        return response

    return observing


def _content(request: Any) -> bytes | None:
    """The body of a request of `httpx`, where that is no stream."""
    found = vars(request).get("_content")
    return found if isinstance(found, bytes) else None


def _as_httpx(request: Any, answer: Answer) -> Any:
    httpx = sys.modules["httpx"]
    headers = {"content-type": "application/json"}
    return httpx.Response(answer.status, headers=headers, content=answer.body, request=request)


def _note_httpx(call: Any, sighting: Sighting, response: Any, body: bytes | None) -> None:
    if body is not None:
        observer.answered(call, sighting, response, body)
    elif response.status_code >= 400:
        observer.answered(call, sighting, response, b"")
    else:
        observer.unread(call, sighting)


def _patch_aiohttp(aiohttp: Any) -> bool:
    if not hasattr(aiohttp, "ClientSession"):
        return False
    _patch(aiohttp.ClientSession, "_request", _paced_aiohttp)
    _patch(aiohttp.ClientRequest, "send", _sent_aiohttp)
    _patch(aiohttp.ClientResponse, "start", _answered_aiohttp)
    return True


def _paced_aiohttp(send: Any) -> Any:
    @functools.wraps(send)
    async def requesting(self: Any, method: Any, str_or_url: Any, **options: Any) -> Any:
        call = call_under_way()
        if call is None:
            return await send(self, method, str_or_url, **options)
        url = self._build_url(str_or_url) if hasattr(self, "_build_url") else str_or_url
        await observer.pace_async(call, method, url)
        try:
            return await send(self, method, str_or_url, **options)
        except Exception as error:
            if getattr(error, "status", None) is None:  # else its answer has been observed
                observer.failed(call, sighting_of(method, url, None), error)
            raise

    return requesting


def _sent_aiohttp(send: Any) -> Any:
    @functools.wraps(send)
    async def sending(self: Any, *args: Any, **options: Any) -> Any:
        call = call_under_way()
        if call is None:
            return await send(self, *args, **options)
        sighting = sighting_of(self.method, self.url, self.headers, getattr(self.body, "_value", None))
        await renew_async(call, sighting)
        observer.sent(call, sighting, self.headers)
        response = await send(self, *args, **options)
        _sightings[response] = sighting
        return response

    return sending


def _answered_aiohttp(start: Any) -> Any:
    @functools.wraps(start)
    async def starting(self: Any, *args: Any, **options: Any) -> Any:
        started = await start(self, *args, **options)
        sighting, call = _sightings.pop(self, None), call_under_way()
        if sighting is not None and call is not None:
            if observer.is_to_be_read(call, sighting, self.headers):
                # Read here, since `raise_for_status` throws the body away.
                body = await self.read()
                self.content = _unread_again(self.content, body)
                observer.answered(call, sighting, self, body)
            elif self.status >= 400:
                observer.answered(call, sighting, self, b"")
            else:
                observer.unread(call, sighting)
        return started

    return starting


def _unread_again(content: Any, body: bytes) -> Any:
    """The stream of a body that has been read, for who reads it as one."""
    if not body:
        return content
    from asyncio import get_running_loop  # late: only programs on a loop get here

    aiohttp, loop = sys.modules["aiohttp"], get_running_loop()
    # Of no connection: the one that it came over may carry the next request by now.
    again = aiohttp.StreamReader(aiohttp.base_protocol.BaseProtocol(loop), limit=len(body), loop=loop)
    again.feed_data(body)
    again.feed_eof()
    return again


def _remake_lock(_: object) -> None:
    global _installing
    _installing = threading.RLock()


after_fork(sys.modules[__name__], _remake_lock)


def _patch_requests_cache(requests_cache: Any) -> bool:
    if not hasattr(requests_cache, "CacheMixin"):
        return False
    _patch(requests_cache.CacheMixin, "send", without_failures)
    return True


_LATE: dict[str, Callable[[Any], bool]] = {
    "httpx": _patch_httpx,
    "aiohttp": _patch_aiohttp,
    "requests_cache": _patch_requests_cache,
}
