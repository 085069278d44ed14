"""`AsyncKisClient`: the calls of `KisClient` as coroutines, on httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import TokenIssueError
from ..forking import after_fork
from ..token import AccessToken
from ..tokens.foreign import as_source
from .base import ClientBase, each_request
from .endpoints import Answer, Call, Flow, Payload
from .paging import Pages
from .redaction import harmless
from .session import answer_of, arguments_of, import_httpx, new_httpx

if TYPE_CHECKING:
    import httpx

__all__ = ["AsyncKisClient"]


class AsyncKisClient(ClientBase[Coroutine[Any, Any, Payload], "httpx.AsyncClient"]):
    """
    `KisClient` for asyncio: the same calls as coroutines, paced and protected alike, without a thread for any of them.

    A task that is cancelled sends nothing afterwards, unlike a thread that was given up. Use it in `async with`, or
    call `close`. It may be used on several event loops.

    Args:
        credentials, tokens, policy, limiter, timeout: as for `KisClient`.
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
        return (await asyncio.wrap_future(as_source(self.tokens).token_future())).bearer

    async def issue_access_token(self, force: bool = False) -> str:
        """Do what `KisClient.issue_access_token` does."""
        source = as_source(self.tokens)
        token = await asyncio.wrap_future(source.token_future())
        if force:
            token = (await asyncio.wrap_future(source.replace_future(token.value))).token
        return token.bearer

    def pages(self, path: str, tr_id: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[Payload]:
        """Ask an endpoint that answers in pages (연속조회), as `KisClient.pages` does, for `async for`."""
        return self._walk(Pages(path, tr_id, params))

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
        import_httpx()
        self._leave_connections()
        after_fork(self, AsyncKisClient._leave_connections)

    def _leave_connections(self) -> None:
        # By event loop: one cannot use a connection of another.
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    def _session(self) -> httpx.AsyncClient:
        if self._given_session is not None:
            return self._given_session
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = new_httpx()
        return self._sessions[loop]

    async def _run(self, flow: Flow) -> Payload:
        answer = None  # with which a generator starts
        while True:
            try:
                call = flow.send(answer)  # type: ignore[arg-type]  # as above
            except StopIteration as done:
                payload: Payload = done.value
                return payload
            answer = (await self._ask(call)).payload

    async def _walk(self, pages: Pages) -> AsyncIterator[Payload]:
        while (call := pages.next_call()) is not None:
            yield pages.take(await self._one_of_pages(call))

    @each_request
    async def _one_of_pages(self, call: Call) -> Answer:
        return await self._ask(call)

    async def _ask(self, call: Call) -> Answer:
        return self._judge(call, await self._exchange(call))

    async def _exchange(self, call: Call) -> Answer | BaseException:
        """Send one request. What goes wrong is handed back, so that no traceback holds a frame that saw a header."""
        connect, read = self.timeout
        try:
            response = await self._session().request(
                **arguments_of(call, self.credentials, await self._token(call)),
                content=call.body,
                timeout=import_httpx().Timeout(read, connect=connect, pool=None),  # a free connection is waited for
                follow_redirects=False,  # the headers hold the secret: it goes to the configured host alone
            )
            return answer_of(call, response)
        except BaseException as error:  # the end of a task too
            return harmless(error)

    async def _token(self, call: Call) -> AccessToken:
        token = self._token_at_hand()
        if token is None:
            future = asyncio.wrap_future(as_source(self.tokens).token_future())
            try:
                token = await asyncio.wait_for(future, self._patience(call))
            except asyncio.TimeoutError:
                raise TokenIssueError("no token in time for the order, which was not sent", retryable=True) from None
        self._last_token = token
        return token
