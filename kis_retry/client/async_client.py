"""`AsyncKisClient`: the calls of `KisClient` as coroutines, on httpx."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..engine import run_async
from ..errors import ConfigurationError
from ..token import AccessToken
from .client import ClientBase, answer_of
from .endpoints import Answer, Call, Fields, Flow, Payload, checked, following
from .redaction import harmless, settled

if TYPE_CHECKING:
    import httpx

__all__ = ["AsyncKisClient"]


class AsyncKisClient(ClientBase[Coroutine[Any, Any, Payload]]):
    """
    `KisClient` for asyncio: the same calls as coroutines, paced and protected alike, without a thread for any of them.

    A task that is cancelled sends nothing afterwards, unlike a thread that was given up. Use it in `async with`, or
    call `close`. It may be used on several event loops.

    Args:
        credentials, tokens, policy, limiter, timeout: as for `KisClient`; a timeout is in seconds.
        session: an `httpx.AsyncClient` with settings of your own. Token requests are sent with `requests`: for a proxy
            or certificates of theirs give `tokens=TokenManager(credentials, session=…)` too, or set HTTPS_PROXY and
            REQUESTS_CA_BUNDLE, which count for both.

    Raises:
        ImportError: httpx is not installed (extra `async`).
        TypeError, ConfigurationError: as for `KisClient`.
    """

    _is_async = True

    async def access_token(self) -> str:
        """Give the current token as the `authorization` header takes it, with "Bearer " before it."""
        return (await asyncio.wrap_future(self._source.token_future())).bearer

    async def issue_access_token(self, force: bool = False) -> str:
        """Do what `KisClient.issue_access_token` does."""
        token = await asyncio.wrap_future(self._source.token_future())
        if force:
            token = (await asyncio.wrap_future(self._source.replace_future(token.value))).token
        return token.bearer

    async def pages(self, path: str, tr_id: str, params: Fields | None = None) -> AsyncIterator[Payload]:
        """Ask an endpoint that answers in pages (연속조회), as `KisClient.pages` does, for `async for`."""
        call: Call | None = checked("GET", path, tr_id, params, None)
        seen: list[Any] = []
        while call is not None:
            answer: Any = await self._pages(call, len(seen) + 1)
            yield answer.payload
            call = following(call, answer, seen)

    async def close(self) -> None:
        """Close the connections of this event loop, but for those of a session that was given."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.aclose()

    async def __aenter__(self) -> AsyncKisClient:  # noqa: PYI034  # Self is not in typing before Python 3.11
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _connect(self) -> None:
        try:
            import httpx  # noqa: F401  # now, and not at the first request
        except ImportError as error:
            raise ImportError("AsyncKisClient needs httpx: pip install httpx, or '.[async]' in a clone") from error
        # By event loop: one cannot use a connection of another.
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def _run(self, flow: Flow) -> Payload:
        answer: Any = None
        while True:
            try:
                call = flow.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # as in `KisClient`
            token = await run_async(self._token(call), lambda: asyncio.sleep(0))
            answer = settled(await self._sent(call, token))

    async def _sent(self, call: Call, token: AccessToken) -> Answer | BaseException:
        """Do what `KisClient` does."""
        loop, (connect, read) = asyncio.get_running_loop(), self.timeout
        try:
            session = self._given_session or self._sessions.get(loop)
            response = await (session or self._sessions.setdefault(loop, _new_httpx())).request(
                **self._arguments(call, token),
                content=call.body,
                timeout=(connect, read, read, None),  # a free connection is waited for
                follow_redirects=False,  # the headers hold the secret: it goes to the configured host alone
            )
            return answer_of(call, response)
        except BaseException as error:  # the end of a task too
            return harmless(error)


def _new_httpx() -> httpx.AsyncClient:
    """Open a client with the environment's proxies, and the certificates that `requests` would take."""
    import httpx

    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    try:
        verify = ssl.create_default_context(cafile=bundle) if bundle else True
    except OSError:
        raise ConfigurationError(f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: {bundle} is no file of certificates") from None
    return httpx.AsyncClient(verify=verify, limits=httpx.Limits(max_connections=64))
