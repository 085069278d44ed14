"""
Where `aiohttp` sends: `ClientSession._request`.

`raise_for_status` is taken aside and runs once, on the final answer. The library's own token request passes: what KIS
answers to it is taken over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http.client import responses
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ..engine import run_async
from .exchange import flow_of
from .protection import chain
from .request import LibraryCall, Sent, is_short, read_request

__all__ = ["request"]


async def request(wrapped: Callable[..., Any], session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `ClientSession._request`, for `wrapt`."""
    protections = chain()
    if not protections:
        return await wrapped(*args, **kwargs)
    call = _Call(wrapped, session, {**dict(zip(("method", "str_or_url"), args, strict=False)), **kwargs})
    if call.request is None:
        return await wrapped(*args, **kwargs)
    return await call.raised_for_status((await run_async(flow_of(call, protections), call.send)).end())


class _Call(LibraryCall):
    """One request of a session."""

    lost = aiohttp.ServerDisconnectedError
    answers_tokens = False

    def __init__(self, wrapped: Callable[..., Any], session: Any, options: dict[str, Any]) -> None:
        self._wrapped = wrapped
        self._session = session
        self._options = options
        self._method, self._url = options.pop("method", ""), options.pop("str_or_url", "")
        self._headers = CIMultiDict(options.pop("headers", None) or {})
        data, said = options.get("data"), options.get("json")
        if said is not None:
            data = json.dumps(said, default=str)
        merged = CIMultiDict(session.headers)
        merged.update(self._headers)
        self.request = read_request(self._method, self._address(), merged, data)

    def _address(self) -> str:
        """Return the whole address, with the session's base URL and the parameters; "" where the library refuses it."""
        try:
            url, params = str(self._session._build_url(self._url)), self._options.get("params")  # noqa: SLF001  # as it sends
        except (TypeError, ValueError):  # it says so itself
            return ""
        return f"{url}{'&' if '?' in url else '?'}{params}" if params else url

    async def send(self) -> Sent:
        """Send it once, and judge what comes of it."""
        headers = self._headers.copy()
        self.request.put_token(headers)
        options = {**self._options, "raise_for_status": False, "headers": headers}
        try:
            response = await self._wrapped(self._method, self._url, **options)
            body = await _read(response) if is_short(response.headers, response.status) else None
        except Exception as error:
            return self.failed(error, redirected=getattr(error, "host", None) is not None and self._is_elsewhere(error))
        return self.judged(response, response.status, body, redirected=bool(response.history))

    def _is_elsewhere(self, error: Any) -> bool:
        """Say whether a connection was refused where a redirect led to."""
        url = URL(self._address())
        return (error.host, error.port) != (url.host, url.port) and self._options.get("proxy") is None

    async def raised_for_status(self, response: Any) -> Any:
        """Give the caller the final answer, through its own `raise_for_status`."""
        asked = self._options.get("raise_for_status")
        if asked is None:
            asked = self._session.raise_for_status
        if callable(asked):
            await asked(response)
        elif asked:
            response.raise_for_status()
        return response

    def answer(self, status: int, body: bytes, location: str = "") -> Sent:
        url, loop = self._session._build_url(self._url), asyncio.get_running_loop()  # noqa: SLF001  # as it sends
        kind = "application/json" if body.startswith(b"{") else "text/html"  # whose JSON is asked for is an error here
        headers = CIMultiDictProxy(CIMultiDict({"Content-Type": kind}))
        info = aiohttp.RequestInfo(url, self._method, headers, url)
        given: dict[str, Any] = {"writer": None, "continue100": None, "timer": TimerNoop(), "traces": [], "loop": loop}
        given |= {"request_info": info, "session": self._session, "stream_writer": SimpleNamespace(output_size=0)}
        response = aiohttp.ClientResponse(self._method, url, **given)
        response.status, response.reason = status, responses.get(status, "")
        response._headers, response._body = headers, body  # noqa: SLF001  # there is no other way in
        return self.judged(response, status, body)


async def _read(response: Any) -> bytes:
    """Read an answer, and put its body back for whoever reads it as a stream."""
    body: bytes = await response.read()
    if body:
        loop = asyncio.get_running_loop()
        # Of no connection: the one that it came over may carry the next request by now.
        again = aiohttp.StreamReader(BaseProtocol(loop), limit=len(body), loop=loop)
        again.feed_data(body)
        again.feed_eof()
        response.content = again
    return body
