"""
Where `httpx` and its successor `httpx2` send: `_send_single_request`, after redirects and `auth`.

What stands in for the network in tests, and what an APM agent watches, lies below it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ..engine import run, run_async
from ..signals import is_from_signal_handler
from .exchange import Exchange
from .library import LibraryCall, Sent
from .orders import Ending
from .protection import Protection, chain
from .request import UNREPEATABLE, ApiRequest, TokenRequest, is_short, read_request
from .token_endpoint import Said, answered, note_revoked, source_of_token_request

__all__ = ["send", "send_async"]

_REDIRECTED = "kis_retry.redirected"  # in the extensions of a request, which its redirect shares


def send(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `Client._send_single_request`, for `wrapt`."""
    call, request, protections = _seen(wrapped, args, kwargs)
    if call is None:
        return wrapped(*args, **kwargs)
    if isinstance(request, TokenRequest):
        source = source_of_token_request(request, protections, call.new_session)
        if source is None or request.revokes:
            return call.end_of_revocation(request, source, wrapped(*args, **kwargs))
        return call.token_answer(run(answered(source), lambda: None))
    return run(Exchange(request, protections, call).flow(), lambda: call.send(request)).end()


async def send_async(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `AsyncClient._send_single_request`, for `wrapt`."""
    call, request, protections = _seen(wrapped, args, kwargs)
    if call is None or not _is_asyncio():
        return await wrapped(*args, **kwargs)
    if isinstance(request, TokenRequest):
        source = source_of_token_request(request, protections, call.new_session)
        if source is None or request.revokes:
            return call.end_of_revocation(request, source, await wrapped(*args, **kwargs))
        return call.token_answer(await run_async(answered(source), _nothing))
    return (await run_async(Exchange(request, protections, call).flow(), lambda: call.send_async(request))).end()


class _Call(LibraryCall):
    """One request of a client."""

    def __init__(self, wrapped: Callable[..., Any], prepared: Any) -> None:
        self._wrapped = wrapped
        self._prepared = prepared
        self._httpx = sys.modules[type(prepared).__module__.partition(".")[0]]
        self.lost = self._httpx.ReadError

    def body(self) -> Any:
        """Return the body as it can be sent again, or `UNREPEATABLE`: a redirect's is a stream of bytes at hand."""
        stream = self._prepared.stream
        return b"".join(stream) if isinstance(stream, self._httpx.ByteStream) else UNREPEATABLE

    def answer(self, status: int, body: bytes) -> Sent:
        """Return an answer of KIS's that is made here."""
        return self._answer(status, body, {"content-type": "application/json"})

    def retold(self, ending: Ending) -> Sent:
        if ending.error is not None or not ending.text:
            return super().retold(ending)
        return self._answer(ending.status, ending.body, {"location": ending.text})  # where it leads is asked again

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> Sent:
        response = self._httpx.Response(status, headers=headers, content=body, request=self._prepared)
        response.elapsed = timedelta(0)
        return self.judged(response, status, body, redirected=False)

    def token_answer(self, said: Said) -> Any:
        """Return what KIS would have said to the library's own token request."""
        if said.status is None:
            raise self._httpx.ConnectError(said.body.decode(), request=self._prepared)
        return self.answer(said.status, said.body).response

    def end_of_revocation(self, request: TokenRequest, source: Any, response: Any) -> Any:
        """Take note of a token that KIS revoked."""
        if request.revokes and response.is_success:
            note_revoked(request, source)
        return response

    def send(self, request: ApiRequest) -> Sent:
        """Send a copy once, and judge what comes of it."""
        try:
            with self.under_way():
                response = self._wrapped(self._copy(request))
                came = b"".join(response.iter_raw()) if self._is_to_be_read(response) else None
            return self._read(response, came)
        except Exception as error:
            if is_from_signal_handler(error):
                raise
            return self.failed(error, redirected=self._is_redirected())

    async def send_async(self, request: ApiRequest) -> Sent:
        """Send a copy once, as `send` does."""
        try:
            with self.under_way():
                response = await self._wrapped(self._copy(request))
                came = (
                    b"".join([part async for part in response.aiter_raw()]) if self._is_to_be_read(response) else None
                )
            return self._read(response, came)
        except Exception as error:
            return self.failed(error, redirected=self._is_redirected())

    def _copy(self, request: ApiRequest) -> Any:
        ours = self._prepared
        copy = self._httpx.Request(
            ours.method, ours.url, headers=ours.headers, stream=ours.stream, extensions=ours.extensions
        )
        vars(copy).update({name: value for name, value in vars(ours).items() if name == "_content"})  # it has been read
        request.put_token(copy.headers)
        return copy

    def _is_to_be_read(self, response: Any) -> bool:
        """Say whether the body is KIS's, and has not been read by whatever stands in for the network."""
        return (
            is_short(response.headers, response.status_code)
            and not response.is_stream_consumed
            and not _is_read(response)
        )

    def _read(self, response: Any, came: bytes | None) -> Sent:
        """Judge an answer, its body put back as it came, to be read again."""
        if came is not None:
            response.stream = self._httpx.ByteStream(came)
            response.is_closed = response.is_stream_consumed = False
            body = self._httpx.Response(response.status_code, headers=response.headers, content=came).content
        else:
            body = response.content if _is_read(response) else None
        sent = self.judged(response, response.status_code, body, redirected=self._is_redirected())
        if not response.has_redirect_location or sent.ending is None:
            return sent
        self._prepared.extensions[_REDIRECTED] = True
        return replace(sent, ending=sent.ending._replace(text=response.headers["location"]))

    def _is_redirected(self) -> bool:
        """Say whether a redirect led to this request; each is sent by itself here."""
        return _REDIRECTED in self._prepared.extensions


def _seen(
    wrapped: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[_Call | None, Any, tuple[Protection, ...]]:
    """Return one call of a client, what its request is, and what protects it; no call where nothing does."""
    protections = chain()
    prepared = args[0] if args else kwargs.get("request")
    if not protections or prepared is None:
        return None, None, ()
    call = _Call(wrapped, prepared)
    request = read_request(prepared.method, prepared.url, prepared.headers, call.body())
    return (call if request is not None else None), request, protections


def _is_read(response: Any) -> bool:
    return "_content" in vars(response)


def _is_asyncio() -> bool:
    import asyncio  # as in the engine

    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio: what waits here waits on asyncio's loop
        return False
    return True


async def _nothing() -> None:
    """Send nothing: a token request is answered here."""
