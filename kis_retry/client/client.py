"""`KisClient`: the calls of the KIS Open API that a batch makes, on requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ..engine import run
from ..forking import after_fork
from ..sessions import leave_connections_to_parent
from ..token import AccessToken
from .base import ClientBase, answer_of
from .endpoints import Answer, Call, Flow, Payload, checked
from .paging import following
from .redaction import harmless

__all__ = ["KisClient"]


class KisClient(ClientBase[Payload]):
    """
    A client for long batches: each of its requests is paced, and repeated by itself where that helps.

    A token that expires on the way is renewed once for everybody, and the refused request repeated once. A request that
    KIS or the network turned away for a moment is repeated until `RetryPolicy.transient_deadline`, an order where it is
    known that it was not acted upon. On paper a `tr_id` that begins with T, J or C leaves with V, as KIS has it.

    Safe to share between threads, to use after `os.fork` and to pickle to spawned workers.

    Args:
        credentials: who asks; without them, those of `tokens` where it has some, else `Credentials.from_env()`.
        tokens: where tokens come from; without it, a `TokenManager` for the credentials.
        policy: bounds; without it, those of `tokens`, else `RetryPolicy.from_env()`.
        limiter: the pace; without it, a `RateLimiter` that is shared where the token is: 18 calls a second for
            everybody with the app key, 1 on paper, or what `KIS_RATE_LIMIT` says.
        session: a `requests.Session` with settings of your own (a proxy, certificates), for token requests too unless
            there are `tokens`. Without it, one that reads the environment's proxies and certificates once.
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
        Give a good token as `access_token` does; with `force`, a new one in place of it, if KIS issues one.

        There is seldom a reason to: calls renew the token themselves, and each issue sends the account holder a notice.
        """
        token = self.tokens.token()
        return (self.tokens.refresh(token) if force else token).bearer

    def pages(self, path: str, tr_id: str, params: Mapping[str, Any] | None = None) -> Iterator[Payload]:
        """
        Ask an endpoint that answers in pages (연속조회) with `GET`, and give one answer after the other.

        Each page is requested when it is asked for, and protected by itself. The next ones are asked for with the
        cursor of the one before, where it has one (`CTX_AREA_FK100` and the like, `KEYB`, `CTS`). The iterator ends
        after the last page, and only then.

        Raises:
            PageError: a page was refused, or led back to an earlier one: what came before it is not all there is.
            ValueError, ResponseError, requests.RequestException: as for `get`.
        """
        return self._walk(checked("GET", path, tr_id, params, None))

    def close(self) -> None:
        """Close the connections, but for those of a session that was given. A later call opens new ones."""
        if self._given_session is None:
            self._session.close()

    def __enter__(self) -> KisClient:  # noqa: PYI034  # Self is not in typing before Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._session = self._given_session or _new_session(self.credentials.base_url)
        after_fork(self._session, leave_connections_to_parent)

    def _walk(self, first: Call) -> Iterator[Payload]:
        pages = following(first)
        call = next(pages)
        while call is not None:
            answer: Any = self._pages(call)  # with its header, which tells whether more follow
            call = pages.send(answer)
            yield answer.payload
        next(pages, None)  # which raises where the last one leads back

    def _run(self, flow: Flow) -> Payload:
        request: list[Any] = []
        return run(self._steps(flow, request), lambda: self._sent(*request))

    def _sent(self, call: Call, token: AccessToken) -> Answer | BaseException:
        """Send one request. What goes wrong is handed back, so that no traceback holds a frame that saw a header."""
        try:
            return answer_of(call, self._response({**self._arguments(call, token), "data": call.body}))
        except BaseException as error:  # Ctrl-C too
            return harmless(error)

    def _response(self, arguments: dict[str, Any]) -> requests.Response:
        # Not to be redirected: the headers hold the secret, and it goes to the configured host alone.
        options: dict[str, Any] = {"timeout": self.timeout, "allow_redirects": False}
        if self._given_session is not None:
            return self._session.request(**arguments, **options)
        arguments["headers"] = {**self._session.headers, **arguments["headers"]}
        return self._session.send(requests.Request(**arguments).prepare(), **options)


def _new_session(base_url: str) -> requests.Session:
    """Open a session that asks the environment once: `requests` does at each request, which costs more than that."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=64))  # more threads than that do not keep theirs
    settings = session.merge_environment_settings(base_url, {}, None, None, None)
    session.proxies, session.verify, session.cert = settings["proxies"], settings["verify"], settings["cert"]
    session.trust_env = False
    return session
