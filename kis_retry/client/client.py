"""`KisClient`: the calls of the KIS Open API that a batch makes, on requests; and what both clients are made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter

from ..credentials import Credentials
from ..decorators import rules_of
from ..engine import Wait, run
from ..errors import ConfigurationError, ResponseError, TokenIssueError
from ..forking import after_fork
from ..pace.limiter import RateLimiter
from ..policy import RetryPolicy
from ..stores.base import TokenStore
from ..token import AccessToken
from ..tokens.foreign import as_source
from ..tokens.issuer import leave_connections_to_parent
from ..tokens.manager import TokenManager
from ..tokens.source import TokenSource, headers_for
from .endpoints import Answer, Call, Endpoints, Fields, Flow, Payload, R, checked, following
from .redaction import harmless, settled

__all__ = ["ClientBase", "KisClient", "answer_of"]

_Client = TypeVar("_Client", bound="ClientBase[Any]")


class ClientBase(Endpoints[R]):
    """A client without its way to KIS. The decorators find token source, policy and limiter as its attributes."""

    _is_async = False
    _connect: Callable[[], None]

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        tokens: TokenSource | None = None,
        policy: RetryPolicy | None = None,
        limiter: RateLimiter | None = None,
        session: Any = None,
        timeout: float | tuple[float, float] = (3.05, 10.0),
    ) -> None:
        rules_of(tokens=tokens, policy=policy, limiter=limiter)  # checks them
        send = None if isinstance(session, type) else getattr(session, "request", None)
        if session is not None and not (callable(send) and inspect.iscoroutinefunction(send) is self._is_async):
            takes = "an httpx.AsyncClient" if self._is_async else "a requests.Session"
            raise TypeError(f"session= takes {takes}, not {type(session).__name__}")
        self.timeout = _valid_timeout(timeout)
        self.credentials = credentials or _own(tokens, "credentials", Credentials) or Credentials.from_env()
        if tokens is None:
            tokens = TokenManager(self.credentials, policy=policy, session=None if self._is_async else session)
        self.tokens: TokenSource = tokens
        self.policy = policy or _own(tokens, "policy", RetryPolicy) or RetryPolicy.from_env()
        self.limiter = limiter or RateLimiter(self.credentials, store=_own(tokens, "store", TokenStore))
        self._source = as_source(tokens)
        self._last_token: AccessToken | None = None
        self._given_session = session
        self._connect()

    @classmethod
    def from_env(cls: type[_Client], prefix: str = "KIS_") -> _Client:  # noqa: PYI019  # Self is of Python 3.11
        """Make a client of the environment's credentials, token store, policy and pace; `prefix` begins their names."""
        return cls(tokens=TokenManager.from_env(prefix=prefix), limiter=RateLimiter.from_env(prefix=prefix))

    def _token(self, call: Call) -> Generator[Wait, bool, AccessToken]:
        """Give the last token, be it dead: where it leaves it is replaced, or KIS says so. Wait for a first one."""
        token = self._source.peek() or self._last_token
        if token is None:
            future = self._source.token_future()
            if not (yield Wait(future, None if call.method == "GET" else self.policy.order_deadline or 5.0)):
                raise TokenIssueError("no token in time for the order, which was not sent", retryable=True)
            token = future.result()
        self._last_token = token if self.policy.enabled else None
        return token

    def _arguments(self, call: Call, token: AccessToken) -> dict[str, Any]:
        """Give what both libraries take for one request."""
        keys = self.credentials
        on_paper = keys.paper and call.tr_id[0] in "TJC"  # KIS: only those of trading have another name there
        headers = headers_for(keys, token, "V" + call.tr_id[1:] if on_paper else call.tr_id, call.headers)
        url = keys.base_url + call.path
        return {"method": call.method, "url": url, "params": call.query or None, "headers": headers}

    def __reduce__(self) -> tuple[Any, ...]:  # remade as new: sessions do not travel
        given: dict[str, Any] = {"policy": self.policy, "limiter": self.limiter, "timeout": self.timeout}
        return partial(type(self), self.credentials, tokens=self.tokens, **given), ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.credentials!r})"


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

    def pages(self, path: str, tr_id: str, params: Fields | None = None) -> Iterator[Payload]:
        """
        Ask an endpoint that answers in pages (연속조회) with `GET`, and give one answer after the other.

        Each page is requested when it is asked for, and protected by itself. The next ones are asked for with the
        cursor of the one before, where it has one (`CTX_AREA_FK100` and the like, `KEYB`, `CTS`). The iterator ends
        after the last page, and only then.

        Raises:
            PageError: a page was refused, or led back to an earlier one: what came before it is not all there is.
            ValueError, ResponseError, requests.RequestException: as for `get`.
        """
        call: Call | None = checked("GET", path, tr_id, params, None)
        seen: list[Any] = []
        while call is not None:
            answer: Any = self._pages(call, len(seen) + 1)  # with its header, which tells whether more follow
            yield answer.payload
            call = following(call, answer, seen)

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

    def _run(self, flow: Flow) -> Payload:
        answer: Any = None  # with which a generator starts
        while True:
            try:
                call = flow.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # for `pages` it is an `Answer`
            answer = settled(self._sent(call, run(self._token(call), lambda: None)))

    def _sent(self, call: Call, token: AccessToken) -> Answer | BaseException:
        """Send one request. What goes wrong is handed back, so that no traceback holds a frame that saw a header."""
        try:
            arguments = {**self._arguments(call, token), "data": call.body}
            # Not to be redirected: the headers hold the secret, and it goes to the configured host alone.
            options: dict[str, Any] = {"timeout": self.timeout, "allow_redirects": False}
            if self._given_session is not None:
                return answer_of(call, self._session.request(**arguments, **options))
            arguments["headers"] = {**self._session.headers, **arguments["headers"]}
            return answer_of(call, self._session.send(requests.Request(**arguments).prepare(), **options))
        except BaseException as error:  # Ctrl-C too
            return harmless(error)


def answer_of(call: Call, response: Any) -> Answer:
    """Read an answer of `requests` or `httpx`; `ResponseError` where it is no JSON object."""
    with suppress(ValueError, RecursionError):  # the latter: brackets without end
        payload = response.json()
        if isinstance(payload, dict):
            return Answer(payload, response.headers.get("tr_cont"))
    said = f"{call.path} answered HTTP {response.status_code} without a JSON object; is a proxy in between?"
    raise ResponseError(said, status=response.status_code)


def _own(tokens: object, name: str, kind: type) -> Any:
    value = getattr(tokens, name, None)
    return value if isinstance(value, kind) else None


def _valid_timeout(timeout: Any) -> tuple[float, float]:
    """Give the seconds to connect and to read; a call without a time limit may hang for ever."""
    parts = timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout, timeout)
    if all(type(part) in (int, float) and 0 < part < float("inf") for part in parts):
        return parts
    raise ConfigurationError(f"timeout={timeout!r} is not usable: it takes seconds, or seconds to connect and to read")


def _new_session(base_url: str) -> requests.Session:
    """Open a session that asks the environment once: `requests` does at each request, which costs more than that."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=64))  # more threads than that do not keep theirs
    vars(session).update(session.merge_environment_settings(base_url, {}, None, None, None), trust_env=False)
    return session
