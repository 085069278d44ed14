"""`TokenManager`: the token source people use. Renewing is `refresher`'s."""

from __future__ import annotations

import hashlib
import weakref
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import requests

from .. import clock as system_clock
from ..context import ACTIVE
from ..credentials import Credentials
from ..policy import RetryPolicy
from ..stores.base import TokenStore, key_of
from ..stores.entry import store_from_env
from ..token import AccessToken, bare, fingerprint
from .issuer import TokenIssuer
from .refresher import Refresher
from .source import headers_for

__all__ = ["TokenManager", "every_manager"]

_T = TypeVar("_T")

_managers: weakref.WeakValueDictionary[int, TokenManager] = weakref.WeakValueDictionary()


class TokenManager(Refresher):
    """
    The `TokenSource` people use: one token for every thread, process and machine that shares the app key.

    Safe to share between threads, to use after `os.fork`, and to pickle to spawned workers, which find the token in the
    store and read anew what came from the environment.

    Args:
        credentials: who asks.
        store: where the token is shared; without one, what `KIS_TOKEN_STORE` names (a file in the user's cache folder).
        policy: bounds of a refresh; without one, `RetryPolicy.from_env()` when first needed.
        session: the `requests.Session` for token requests; without one, its own. It is not carried to workers.
        clock: tells the time; for tests.

    Raises:
        TypeError: an argument is of a wrong kind; the message names it.
    """

    credentials: Credentials

    def __init__(
        self,
        credentials: Credentials,
        *,
        store: TokenStore | None = None,
        policy: RetryPolicy | None = None,
        session: requests.Session | None = None,
        clock: Any = system_clock,
    ) -> None:
        _check("credentials", credentials, Credentials)
        _check("store", store, TokenStore, type(None))
        _check("policy", policy, RetryPolicy, type(None))
        self._issuer, key = TokenIssuer(credentials, session, clock), key_of(credentials)
        super().__init__(self._issuer.issue, key, store, policy, clock)
        self.credentials, self._given = credentials, (store, policy)
        approval_key = hashlib.sha256(f"approval of {key}".encode()).hexdigest()[:32]
        self._approval = Refresher(self._issuer.approve, approval_key, store, policy, clock)
        _managers[id(self)] = self

    @classmethod
    def from_env(cls, prefix: str = "KIS_") -> TokenManager:
        """Make one with the environment's credentials, store and policy; `prefix` begins their names."""
        return cls(Credentials.from_env(prefix), store=store_from_env(), policy=RetryPolicy.from_env(prefix))

    @property
    def store(self) -> TokenStore:
        """Where the token is shared."""
        self._bounds()
        return self._entry.store

    @property
    def authorization(self) -> str:
        """The value of the `authorization` header, which is `token()` with "Bearer " before it."""
        return self.token().bearer

    def headers(self, tr_id: str, **extra: str) -> dict[str, str]:
        """Make a fresh dict of every header that KIS wants for one call; those of `extra` (`custtype="P"`) win."""
        return headers_for(self.credentials, self.token(), tr_id, extra)

    async def headers_async(self, tr_id: str, **extra: str) -> dict[str, str]:
        """Do what `headers` does without stopping the event loop."""
        return headers_for(self.credentials, await self.token_async(), tr_id, extra)

    def token(self) -> AccessToken:
        """
        Give the current token, from memory while it is good.

        Inside `refresh_margin` one thread renews it while the others go on. Once expired, everybody waits; if no new
        one can be had, the old one is handed out, so that KIS's own answer reaches the caller.

        Raises:
            TokenIssueError: there is no token, or a refused one, and no other can be had.
        """
        return self._handed(self.peek() or self.token_future().result())

    async def token_async(self) -> AccessToken:
        """Do what `token` does without stopping the event loop; a good token is handed out at once."""
        token = self.peek()
        return self._handed(token if token is not None else await _awaited(self.token_future()))

    def _handed(self, token: AccessToken) -> AccessToken:
        activity = ACTIVE.get()
        if activity is not None:
            activity.note_handed(self, token.value)
        return token

    def refresh(self, rejected: AccessToken | str | None) -> AccessToken:
        """
        Give a token to use instead of `rejected` (an `AccessToken` or its text; None: nobody knows), which KIS refused.

        If the current one is another, it is handed back and nothing is issued. Otherwise one caller asks KIS, and those
        who wait share its success and its failure. KIS may hand the same token out again (within six hours).

        Raises:
            TokenIssueLimited: once a minute (EGW00133), and `issue_wait` seconds were not enough.
            TokenIssueError: KIS cannot be reached, or refuses; then nobody asks again for `issue_cooldown` seconds.
        """
        value = rejected.value if isinstance(rejected, AccessToken) else bare(rejected) if rejected else None
        previous, began = fingerprint(value) if value else None, self._clock.monotonic()
        future = self.replace_future(value)
        del rejected, value  # what reports an error shows the locals of its frames, too
        replacement = future.result()
        self._tell(previous=previous, began=began, **replacement.told())
        return replacement.token

    def revoke(self) -> bool:
        """
        Have KIS forget the shared token, here and in the store too; False where there was none.

        Raises:
            KisRetryError: KIS did not confirm; the token is still shared then.
        """
        return self._submit("revoke it", self._revoke)[0].result()

    def approval_key(self) -> str:
        """Give the key with which a websocket is opened; shared, renewed and failing like the token."""
        return self._approval.token_future().result().value

    async def approval_key_async(self) -> str:
        """Do what `approval_key` does without stopping the event loop."""
        return (await _awaited(self._approval.token_future())).value

    def _revoke(self, _: float) -> bool:
        with self._store_lock(self.policy.issue_timeout + 2):
            current = self._memory.current
            token = self._entry.load() or (current.token if current is not None else None)
            if token is None:
                return False
            self._issuer.revoke(token, self.policy.issue_timeout)
            self.note_refused(token.value)
            self._memory.current = None
            self._entry.delete()
            return True

    def __reduce__(self) -> tuple[Any, ...]:
        store, policy = self._given
        return partial(type(self), store=store, policy=policy), (self.credentials,)

    def __repr__(self) -> str:
        cached = self._memory.current
        return f"TokenManager({self.credentials!r}, {cached.token if cached else 'no token yet'})"


def every_manager() -> list[TokenManager]:
    """List the managers of this process that somebody holds, the newest last."""
    found = [reference() for reference in _managers.valuerefs()]  # at once: other threads make managers meanwhile
    return [manager for manager in found if manager is not None]


async def _awaited(future: Future[_T]) -> _T:
    import asyncio  # who runs a coroutine has it already

    return await asyncio.wrap_future(future)


def _check(name: str, value: object, *kinds: type) -> None:
    if isinstance(value, type) or not isinstance(value, kinds):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"TokenManager takes a {kinds[0].__name__} as {name}, not {given}")
