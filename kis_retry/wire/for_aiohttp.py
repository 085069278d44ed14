"""
Where `aiohttp` sends: `ClientSession._request`.

`raise_for_status` is taken aside and runs once, on the final answer. The library's own token request passes: what KIS
answers to it is taken over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDict, CIMultiDictProxy

from ..answers import judge_answer, judge_error
from ..engine import run_async
from .exchange import Exchange, Sent
from .orders import Ending, rebuilt
from .protection import chain
from .request import UNREPEATABLE, ApiRequest, TokenRequest, is_short_text, read_request, set_token
from .token_endpoint import adopt, note_revoked, source_of_token_request

__all__ = ["request"]

_UNDER_WAY: ContextVar[bool] = ContextVar("kis_retry_aiohttp", default=False)


async def request(wrapped: Callable[..., Any], session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `ClientSession._request`, for `wrapt`."""
    protections = () if _UNDER_WAY.get() else chain()
    if not protections:
        return await wrapped(*args, **kwargs)
    method, url, *rest = args if len(args) > 1 else (*args, kwargs.get("str_or_url", ""))
    call = _Call(wrapped, session, method, url, {k: v for k, v in kwargs.items() if k not in ("method", "str_or_url")})
    seen = read_request(method, call.address(), call.headers(), call.body())
    if seen is None or rest:
        return await wrapped(*args, **kwargs)
    if isinstance(seen, TokenRequest):
        source = source_of_token_request(seen, protections, call.new_session)
        return await call.about_token(seen, source)
    exchange = Exchange(seen, protections, call)
    call.codes = exchange.expired_codes
    return await call.end(await run_async(exchange.flow(), lambda: call.send(seen)))


class _Call:
    """One request of a session: what an exchange asks of its library."""

    codes: tuple[str, ...] = ()

    def __init__(
        self, wrapped: Callable[..., Any], session: Any, method: str, url: Any, options: dict[str, Any]
    ) -> None:
        self._wrapped = wrapped
        self._session = session
        self._method = method
        self._url = url
        self._options = options

    def address(self) -> str:
        """Return the whole address, with the session's base URL and the parameters."""
        build = getattr(self._session, "_build_url", None)
        url, params = str(build(self._url) if build is not None else self._url), self._options.get("params")
        return f"{url}{'&' if '?' in url else '?'}{params}" if params else url

    def headers(self) -> CIMultiDict[Any]:
        """Return the session's headers and those of this request."""
        merged = CIMultiDict(self._session.headers)
        merged.update(self._options.get("headers") or {})
        return merged

    def body(self) -> Any:
        """Return the body as it can be sent again, or `UNREPEATABLE`."""
        said, data = self._options.get("json"), self._options.get("data")
        if said is not None:
            return json.dumps(said, default=str)
        return data if data is None or isinstance(data, (str, bytes)) else UNREPEATABLE

    def new_session(self) -> None:
        """Return none: token requests go by the environment's proxies and certificates."""

    def retold(self, ending: Ending) -> Sent:
        """Return how an order ended before."""
        if ending.error is not None:
            return Sent(ending.verdict, error=rebuilt(ending, aiohttp.ServerDisconnectedError))
        return Sent(ending.verdict, self._answer(ending))

    async def about_token(self, seen: TokenRequest, source: Any) -> Any:
        """Let a token request pass, and take over what KIS answers."""
        response = await self._wrapped(self._method, self._url, **self._options)
        if source is not None and response.status == 200:  # noqa: PLR2004  # as KIS answers
            if seen.revokes:
                note_revoked(seen, source)
            else:
                adopt(source, await _read(response))
        return response

    async def send(self, seen: ApiRequest) -> Sent:
        """Send it once, and judge what comes of it."""
        options = {**self._options, "raise_for_status": False}
        if seen.token != seen.original_token and seen.token is not None:
            options["headers"] = CIMultiDict(self._options.get("headers") or {})
            set_token(options["headers"], seen.token)
        under_way = _UNDER_WAY.set(True)
        try:
            response = await self._wrapped(self._method, self._url, **options)
            body = await _read(response) if is_short_text(response.headers) else None
        except Exception as error:
            return self._failed(error)
        finally:
            _UNDER_WAY.reset(under_way)
        verdict = judge_answer(response.status, body, self.codes)
        return Sent(verdict, response, None, bool(response.history), Ending(verdict, response.status, body or b""))

    async def end(self, sent: Sent) -> Any:
        """Give the caller the final outcome, through its own `raise_for_status`."""
        error, response = sent.error, sent.response
        try:
            if error is not None:
                raise error
            asked = self._options.get("raise_for_status")
            if asked is None:
                asked = self._session.raise_for_status
            if callable(asked):
                await asked(response)
            elif asked:
                response.raise_for_status()
            return response
        finally:
            del error, sent, response  # a circle would keep the connection open

    def _failed(self, error: Exception) -> Sent:
        """Judge an error, and let go of the frames of this package, which would keep it alive."""
        trace = error.__traceback__
        verdict = judge_error(error, self.codes)
        ending = Ending(verdict, error=type(error), text=str(error))
        return Sent(verdict, error=error.with_traceback(trace.tb_next if trace is not None else None), ending=ending)

    def _answer(self, ending: Ending) -> Any:
        url, loop = self._session._build_url(self._url), asyncio.get_running_loop()  # noqa: SLF001  # as it sends
        headers = CIMultiDictProxy(CIMultiDict({"Content-Type": "application/json"}))
        given = {"writer": None, "continue100": None, "timer": TimerNoop(), "traces": [], "loop": loop}
        info = aiohttp.RequestInfo(url, self._method, headers, url)
        said = SimpleNamespace(output_size=0)
        response = aiohttp.ClientResponse(  # type: ignore[call-arg]  # its arguments differ between versions
            self._method, url, request_info=info, session=self._session, stream_writer=said, **given
        )
        response.status, response.reason = ending.status, ""
        response._headers, response._body = headers, ending.body  # noqa: SLF001  # there is no other way in
        return response


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
