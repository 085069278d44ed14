"""What a client is made of, and how it is opened, forked, pickled and closed: `ClientBase`."""

from __future__ import annotations

from typing import Any, TypeVar

import requests

from ..credentials import Credentials
from ..forking import after_fork
from ..policy import RetryPolicy
from ..retry.call import Pace
from ..retry.decoration import is_limiter
from ..retry.limiter import RateLimiter
from ..sessions import leave_connections_to_parent
from ..stores.base import TokenStore
from ..tokens.manager import TokenManager
from ..tokens.source import TokenSource, is_source
from .exchanges import SearchOrder
from .session import ClientSession, valid_timeout

__all__ = ["ClientBase"]

_Client = TypeVar("_Client", bound="ClientBase")


class ClientBase:
    """
    Credentials, token source, pace, policy, session and search orders of a client; `KisClient` tells its arguments.

    The decorators find the first four as attributes of the object whose method they are on.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        tokens: TokenSource | None = None,
        policy: RetryPolicy | None = None,
        limiter: Pace | None = None,
        session: requests.Session | None = None,
        timeout: float | tuple[float, float] = (3.05, 10.0),
    ) -> None:
        if tokens is not None and not is_source(tokens):
            raise TypeError(f"tokens= takes a TokenSource (token() and refresh(rejected)), not {type(tokens).__name__}")
        self.credentials: Credentials = credentials or getattr(tokens, "credentials", None) or Credentials.from_env()
        self.tokens: TokenSource = tokens or TokenManager(self.credentials, policy=policy)
        if limiter is not None and not is_limiter(limiter):
            raise TypeError(f"limiter= takes a RateLimiter, not {type(limiter).__name__}")
        self.limiter: Pace = limiter or RateLimiter(self.credentials, store=_store_of(self.tokens))
        self._given_limiter = limiter
        self._given_policy = policy
        self._policy = policy
        self._timeout = valid_timeout(timeout)
        self._given_session = session
        self._session = self._new_session()
        self._exchanges = SearchOrder()
        self._product_types = SearchOrder()
        after_fork(self, ClientBase._after_fork)

    @property
    def policy(self) -> RetryPolicy:
        """The policy given, or that of `tokens`, or the environment's, read when first needed."""
        if self._policy is None:
            found = getattr(self.tokens, "policy", None)
            self._policy = found if isinstance(found, RetryPolicy) else RetryPolicy.from_env()
        return self._policy

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        self._session.close()

    def __enter__(self: _Client) -> _Client:  # noqa: PYI019  # Self is not in typing before Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "credentials": self.credentials,
            "tokens": self.tokens,
            "policy": self._given_policy,
            "limiter": self._given_limiter,
            "timeout": self._timeout,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # remade as new: sessions do not travel

    def _new_session(self) -> ClientSession:
        return ClientSession(self.credentials, self._timeout, self._given_session)

    def _after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        if self._given_session is not None:
            leave_connections_to_parent(self._given_session)
        self._session = self._new_session()


def _store_of(tokens: TokenSource) -> TokenStore | None:
    """Where a source shares its token; None where nobody can tell."""
    store = getattr(tokens, "store", None)
    return store if isinstance(store, TokenStore) else None
