"""`KisClient`: the calls of the KIS Open API that a batch makes, on requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as NotInTimeError
from typing import Any

import requests

from ..errors import TokenIssueError
from ..forking import after_fork
from ..sessions import leave_connections_to_parent
from ..token import AccessToken
from ..tokens.foreign import as_source
from .base import ClientBase, each_request
from .endpoints import Answer, Call, Flow, Payload
from .paging import Pages
from .redaction import harmless
from .session import answer_of, arguments_of, new_session

__all__ = ["KisClient"]


class KisClient(ClientBase[Payload, requests.Session]):
    """
    A client for long batches: each of its requests is paced, and repeated by itself where that helps.

    A token that expires on the way is renewed once for everybody, and the refused request repeated once. A request that
    KIS or the network turned away for a moment is repeated until `RetryPolicy.transient_deadline`, an order where it is
    known that it was not acted upon. And all of them wait for a slot of the one pace of their app key (`RateLimiter`).
    On paper (`Credentials(paper=True)`) a `tr_id` that begins with T, J or C leaves with V, as KIS has it.

    Safe to share between threads, to use after `os.fork` and to pickle to spawned workers.

    Args:
        credentials: who asks; without them, those of `tokens` where it has some, else `Credentials.from_env()`.
        tokens: where tokens come from; without it, a `TokenManager` for the credentials.
        policy: bounds; without it, those of `tokens`, else `RetryPolicy.from_env()` when first needed.
        limiter: the pace of its requests; without it, a `RateLimiter` that shares the pace where the token is shared:
            18 calls a second for everybody with the app key, 1 on paper, or what `KIS_RATE_LIMIT` says.
        session: a `requests.Session` with settings of your own (a proxy, a CA bundle, a client certificate), for token
            requests too unless there are `tokens`. Without it, the client's own, which reads the environment's proxies
            and CA bundles once.
        timeout: seconds to connect and seconds to wait for an answer; always set.

    Raises:
        TypeError: an argument is of a wrong kind; the message says what it takes.
        ConfigurationError: no credentials, or an unusable value.
    """

    @property
    def access_token(self) -> str:
        """The current token as the `authorization` header takes it, with "Bearer " before it."""
        return self.tokens.token().bearer

    def issue_access_token(self, force: bool = False) -> str:
        """
        Give a good token; with `force`, a new one in place of the current one, if KIS issues one.

        There is seldom a reason to call this: calls renew the token themselves. Every issue sends the account holder a
        KakaoTalk notice, and KIS issues one a minute.

        Returns:
            "Bearer …"

        Raises:
            TokenIssueError: none can be had.
        """
        token = self.tokens.token()
        return (self.tokens.refresh(token) if force else token).bearer

    def pages(self, path: str, tr_id: str, params: Mapping[str, Any] | None = None) -> Iterator[Payload]:
        """
        Ask an endpoint that answers in pages (연속조회) with `GET`, and give one answer after the other.

        Each page is requested when it is asked for, and protected by itself: one that is refused or dropped is
        repeated, and those before it are not. The iterator ends after the last page, and only then.

        Args:
            path: as for `get`.
            tr_id: as for `get`.
            params: the query of the first page; the next ones are asked for with the cursor of the one before, where it
                has one (`CTX_AREA_FK100` and the like, `KEYB`, `CTS`).

        Raises:
            PageError: a page could not be had, and the ones before it are not all there is: KIS refused it, or the last
                one leads back to an earlier one. KIS's last answer is `answer`.
            ValueError, ResponseError, requests.RequestException: as for `get`.
        """
        return self._walk(Pages(path, tr_id, params))

    def close(self) -> None:
        """Close the connections, but for those of a session that was given. A later call opens new ones."""
        if self._session is not self._given_session:
            self._session.close()

    def __enter__(self) -> KisClient:  # noqa: PYI034  # Self is not in typing before Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._session = self._given_session or new_session(self.credentials.base_url)
        after_fork(self, KisClient._leave_connections)

    def _leave_connections(self) -> None:
        leave_connections_to_parent(self._session)

    def _run(self, flow: Flow) -> Payload:
        answer = None  # with which a generator starts
        while True:
            try:
                call = flow.send(answer)  # type: ignore[arg-type]  # as above
            except StopIteration as done:
                payload: Payload = done.value
                return payload
            answer = self._ask(call).payload

    def _walk(self, pages: Pages) -> Iterator[Payload]:
        while (call := pages.next_call()) is not None:
            yield pages.take(self._one_of_pages(call))

    @each_request
    def _one_of_pages(self, call: Call) -> Answer:
        return self._ask(call)

    def _ask(self, call: Call) -> Answer:
        return self._judge(call, self._exchange(call))

    def _exchange(self, call: Call) -> Answer | BaseException:
        """Send one request. What goes wrong is handed back, so that no traceback holds a frame that saw a header."""
        try:
            response = self._session.request(
                **arguments_of(call, self.credentials, self._token(call)),
                data=call.body,
                timeout=self.timeout,
                allow_redirects=False,  # the headers hold the secret: it goes to the configured host alone
            )
            return answer_of(call, response)
        except BaseException as error:  # Ctrl-C too
            return harmless(error)

    def _token(self, call: Call) -> AccessToken:
        token = self._token_at_hand()
        if token is None:
            try:
                token = as_source(self.tokens).token_future().result(self._patience(call))
            except NotInTimeError:
                raise TokenIssueError("no token in time for the order, which was not sent", retryable=True) from None
        self._last_token = token
        return token
