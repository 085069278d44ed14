"""
Where `httpx` and its successor `httpx2` send: `_send_single_request`, after redirects and `auth`.

What stands in for the network in tests, and what an APM agent watches, lies below it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ..engine import run, run_async
from .exchange import flow_of
from .protection import Protection, chain
from .request import UNREPEATABLE, LibraryCall, Sent, is_short, read_request

__all__ = ["send", "send_async"]

_REDIRECTED = "kis_retry.redirected"  # the host that led on, in the extensions of a request, which its redirect shares


def send(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `Client._send_single_request`, for `wrapt`."""
    call = _seen(wrapped, args, kwargs)
    if call is None:
        return wrapped(*args, **kwargs)
    return run(flow_of(call, call.protections), call.send).end()


async def send_async(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `AsyncClient._send_single_request`, for `wrapt`."""
    call = _seen(wrapped, args, kwargs)
    if call is None or not _is_asyncio():
        return await wrapped(*args, **kwargs)
    return (await run_async(flow_of(call, call.protections), call.send_async)).end()


def _seen(wrapped: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
    """Return one call of a client; None where nothing protects it."""
    protections, prepared = chain(), args[0] if args else kwargs["request"]
    # What a redirect takes to another host is nobody's request there: that host is not asked for a token.
    if not protections or prepared.extensions.get(_REDIRECTED, prepared.url.netloc) != prepared.url.netloc:
        return None
    call = _Call(wrapped, protections, prepared)
    return call if call.request is not None else None


class _Call(LibraryCall):
    """One request of a client."""

    def __init__(self, wrapped: Callable[..., Any], protections: tuple[Protection, ...], prepared: Any) -> None:
        self._wrapped = wrapped
        self.protections = protections
        self._prepared = prepared
        self._httpx = sys.modules[type(prepared).__module__.partition(".")[0]]
        self.lost = self._httpx.ReadError
        stream = prepared.stream  # a redirect's is a stream of bytes at hand
        body = b"".join(stream) if isinstance(stream, self._httpx.ByteStream) else UNREPEATABLE
        self.request = read_request(prepared.method, prepared.url, prepared.headers, body)

    def answer(self, status: int, body: bytes, location: str = "") -> Sent:
        headers = {"location": location} if location else {"content-type": "application/json"}
        response = self._httpx.Response(status, headers=headers, content=body, request=self._prepared)
        response.elapsed = timedelta(0)
        return self.judged(response, status, body)

    def send(self) -> Sent:
        """Send a copy once, and judge what comes of it."""
        try:
            response = self._wrapped(self._copy())
            came = b"".join(response.iter_raw()) if _is_to_be_read(response) else None
            return self._read(response, came)
        except Exception as error:
            return self.failed(error, redirected=self._is_redirected())

    async def send_async(self) -> Sent:
        """Send a copy once, as `send` does."""
        try:
            response = await self._wrapped(self._copy())
            came = b"".join([part async for part in response.aiter_raw()]) if _is_to_be_read(response) else None
            return self._read(response, came)
        except Exception as error:
            return self.failed(error, redirected=self._is_redirected())

    def _copy(self) -> Any:
        ours = self._prepared
        copy = self._httpx.Request(
            ours.method, ours.url, headers=ours.headers, stream=ours.stream, extensions=ours.extensions
        )
        vars(copy).update({name: value for name, value in vars(ours).items() if name == "_content"})  # it has been read
        self.request.put_token(copy.headers)
        return copy

    def _read(self, response: Any, came: bytes | None) -> Sent:
        """Judge an answer, its body put back as it came, to be read again."""
        status, body = response.status_code, response.content if _is_read(response) else None
        if came is not None:
            response.stream = self._httpx.ByteStream(came)
            response.is_closed = response.is_stream_consumed = False
            body = self._httpx.Response(status, headers=response.headers, content=came).content
        sent = self.judged(response, status, body, redirected=self._is_redirected())
        if not response.has_redirect_location:
            return sent
        self._prepared.extensions[_REDIRECTED] = self._prepared.url.netloc
        return sent._replace(location=response.headers["location"])

    def _is_redirected(self) -> bool:
        """Say whether a redirect led to this request; each is sent by itself here."""
        return _REDIRECTED in self._prepared.extensions


def _is_to_be_read(response: Any) -> bool:
    """Say whether the body is KIS's, and has not been read by whatever stands in for the network."""
    is_open = not response.is_stream_consumed and not _is_read(response)
    return is_open and is_short(response.headers, response.status_code)


def _is_read(response: Any) -> bool:
    return "_content" in vars(response)


def _is_asyncio() -> bool:
    """Say whether the loop is asyncio's, on which all that takes time here is awaited, and not trio's."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001  # documented, and raises nothing
