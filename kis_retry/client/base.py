"""What both clients are made of, and what they send."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, TypeVar

from ..credentials import Credentials
from ..decorators import rules_of
from ..engine import Flow as Steps
from ..engine import Send, Wait
from ..errors import ConfigurationError, ResponseError, TokenIssueError
from ..pace.limiter import RateLimiter
from ..policy import RetryPolicy
from ..stores.base import TokenStore
from ..token import AccessToken
from ..tokens.foreign import as_source
from ..tokens.manager import TokenManager
from ..tokens.source import TokenSource, headers_for
from ..wire import watch
from .endpoints import Answer, Call, Endpoints, Flow, R

__all__ = ["ClientBase", "answer_of"]

_Client = TypeVar("_Client", bound="ClientBase[Any]")


class ClientBase(Endpoints[R]):
    """A client without its way to KIS. The decorators find token source, policy and limiter as its attributes."""

    _is_async = False

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
        send = getattr(session, "request", None)
        sends = callable(send) and inspect.iscoroutinefunction(send) is self._is_async
        rules_of(tokens=tokens, policy=policy, limiter=limiter)  # checks them
        takes = "Credentials (Credentials.from_env())"
        _check("credentials", credentials, isinstance(credentials, Credentials), takes)
        _check("session", session, sends, "an httpx.AsyncClient" if self._is_async else "a requests.Session")
        self.timeout = _valid_timeout(timeout)
        found = credentials or getattr(tokens, "credentials", None)
        self.credentials = found if isinstance(found, Credentials) else Credentials.from_env()
        if tokens is None:
            tokens = TokenManager(self.credentials, policy=policy, session=None if self._is_async else session)
        self.tokens: TokenSource = tokens
        self._source = as_source(tokens)
        self._given_session = session
        store = getattr(tokens, "store", None)
        shared = store if isinstance(store, TokenStore) else None
        self.limiter = limiter or RateLimiter(self.credentials, store=shared)
        bounds = policy or getattr(tokens, "policy", None)
        self.policy = bounds if isinstance(bounds, RetryPolicy) else RetryPolicy.from_env()
        self._last_token: AccessToken | None = None
        self._found = {}
        watch()
        self._connect()

    @classmethod
    def from_env(cls: type[_Client], prefix: str = "KIS_") -> _Client:  # noqa: PYI019  # Self is of Python 3.11
        """Make a client of the environment's credentials, token store, policy and pace; `prefix` begins their names."""
        return cls(tokens=TokenManager.from_env(prefix=prefix), limiter=RateLimiter.from_env(prefix=prefix))

    def _connect(self) -> None:
        raise NotImplementedError

    def _steps(self, flow: Flow, request: list[Any]) -> Steps[Any]:
        """Do what `flow` asks for: put each `request`, its call and its token, have it sent, and hand on the answer."""
        answer: Any = None  # with which a generator starts
        while True:
            try:
                call = flow.send(answer)
            except StopIteration as end:
                return end.value
            # The last one will do, be it dead: where the request leaves, it is replaced, and else KIS says so itself.
            token = self._source.peek() or (self._last_token if self.policy.enabled else None)
            if token is None:
                future = self._source.token_future()
                if not (yield Wait(future, (self.policy.order_deadline or 5.0) if call.is_order else None)):
                    raise TokenIssueError("no token in time for the order, which was not sent", retryable=True)
                token = future.result()
            self._last_token, request[:] = token, (call, token)
            answer = _settled((yield Send()))

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


def _settled(outcome: Answer | BaseException) -> Answer:
    """Give the answer, or raise what went wrong, with no frame below this one."""
    try:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
    finally:
        del outcome  # an exception must not be kept by its own traceback


def answer_of(call: Call, response: Any) -> Answer:
    """Read an answer of `requests` or `httpx`; `ResponseError` where it is no JSON object."""
    try:
        payload = response.json()
    except (ValueError, RecursionError):  # the latter: brackets without end
        payload = None
    if isinstance(payload, dict):
        return Answer(payload, response.headers.get("tr_cont"))
    status = response.status_code
    said = f"{call.path} answered HTTP {status} without a JSON object; a proxy or another host in between?"
    raise ResponseError(said, status=status)


def _valid_timeout(timeout: Any) -> tuple[float, float]:
    """Give the seconds to connect and to read; a call without a time limit may hang for ever."""
    parts = timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout, timeout)
    if all(type(part) in (int, float) and 0 < part < float("inf") for part in parts):
        return parts
    raise ConfigurationError(f"timeout={timeout!r} is not usable: it takes seconds, or seconds to connect and to read")


def _check(name: str, value: object, good: bool, takes: str) -> None:
    if value is not None and (isinstance(value, type) or not good):
        found = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name}= takes {takes}, not {found}")
