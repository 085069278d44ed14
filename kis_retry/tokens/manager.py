"""
`TokenManager`: the token source people use.

Reading is free: a good token is one comparison away, without a lock or a disk. Renewing is `refresher`'s.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import requests

from ..context import current_call
from ..credentials import Credentials
from ..events import RefreshEvent, emit
from ..forking import after_fork
from ..policy import RetryPolicy
from ..stores.base import TokenStore, key_of
from ..stores.entry import StoreEntry
from ..stores.from_env import store_from_env
from ..token import AccessToken, bare, fingerprint
from .source import NonBlockingSource, Replacement

__all__ = ["TokenManager", "every_manager"]

_managers: weakref.WeakValueDictionary[int, TokenManager] = weakref.WeakValueDictionary()


def every_manager() -> list[TokenManager]:
    """List the managers of this process."""
    return list(_managers.values())


class TokenManager(NonBlockingSource):
    """
    The `TokenSource` people use: one token for every thread, process and machine that shares the app key.

    Safe to share between threads, to use after `os.fork`, and to pickle to spawned workers: locks and sessions are
    remade there, the token is found in the store, and credentials that came from the environment are read there again
    instead of travelling.

    Args:
        credentials: who asks.
        store: where the token is shared; without one, what `KIS_TOKEN_STORE` names (a file in the user's cache folder).
        policy: bounds of a refresh; without one, `RetryPolicy.from_env()` when first needed.
        session: the `requests.Session` for token requests; without one, its own. It is not carried to workers.
        sleep: how to wait, in seconds; for tests.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        store: TokenStore | None = None,
        policy: RetryPolicy | None = None,
        session: requests.Session | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.credentials = credentials
        self._given_store = store
        self._given_policy = policy
        self._policy = policy
        self._shared: StoreEntry | None = None
        from .issuer import TokenIssuer  # late: what gets tokens is loaded with the first manager
        from .refresher import TokenRefresher

        self._refresher = TokenRefresher(
            TokenIssuer(credentials, session), lambda: self.policy, lambda: self._entry, sleep
        )
        self._memory = self._refresher.memory
        _managers[id(self)] = self
        after_fork(self._refresher, TokenRefresher.after_fork)

    @classmethod
    def from_env(cls) -> TokenManager:
        """
        Credentials, store and policy from the environment.

        Raises:
            ConfigurationError: a variable is missing or unusable; the message names it.
        """
        return cls(Credentials.from_env(), store=store_from_env(), policy=RetryPolicy.from_env())

    @property
    def policy(self) -> RetryPolicy:
        """The policy given, or the environment's, read when first needed."""
        if self._policy is None:
            self._policy = RetryPolicy.from_env()
        return self._policy

    @property
    def store(self) -> TokenStore:
        """Where the token is shared."""
        return self._entry.store

    @property
    def authorization(self) -> str:
        """The value of the `authorization` header, which is `token()` with "Bearer " before it."""
        return self.token().bearer

    def headers(self, tr_id: str, **extra: str) -> dict[str, str]:
        """
        Give a fresh dict of every header KIS wants for one call.

        Args:
            tr_id: the transaction, e.g. "FHKST01010100" (API page of each call).
            extra: more headers by name, e.g. `custtype="P"`; they win over the ones made here.
        """
        return self._headers(self.token(), tr_id, extra)

    async def headers_async(self, tr_id: str, **extra: str) -> dict[str, str]:
        """Do what `headers` does without stopping the event loop: a token is got on another thread."""
        return self._headers(await self.token_async(), tr_id, extra)

    async def token_async(self) -> AccessToken:
        """Do what `token` does without stopping the event loop; a good token is handed out at once."""
        token = self.peek()
        if token is None:
            from .worker import token as off_the_loop  # late: only coroutines need asyncio

            token = await off_the_loop(self)
        self._note_handed(token)
        return token

    def token(self) -> AccessToken:
        """
        Give the current token, from memory while it is good; renew it ahead of its expiry.

        Inside `refresh_margin` one thread renews it while the others go on with the good one, and a failure is only a
        warning. Once expired, everybody waits; if no new one can be had, the old one is handed out, so that KIS's own
        answer reaches the caller.

        Raises:
            TokenIssueError: there is no token at all, and none can be had.
        """
        cached = self._memory.cached
        if cached is None:
            token = self._refresher.replace(None).token
        elif time.time() < cached.stale_at:
            token = cached.token
        else:
            token = self._refresher.current_or_refreshed(cached)
        self._note_handed(token)
        return token

    def refresh(self, rejected: AccessToken | str | None) -> AccessToken:
        """
        Give a token to use instead of `rejected`, which KIS refused.

        If the current one is another, it is handed back and nothing is issued: a straggler whose refusal arrives after
        the refresh does not cause a second one. Otherwise one caller asks KIS, and those who wait share its success and
        its failure. KIS may hand the same token out again (within six hours of its issue).

        Args:
            rejected: the token, its bare value or its "Bearer …" form; None where nobody knows which it was.

        Raises:
            TokenIssueLimited: once a minute (EGW00133), and `issue_wait` seconds were not enough.
            TokenIssueError: KIS cannot be reached or does not want to; for `issue_cooldown` seconds nobody asks again.
        """
        value = rejected.value if isinstance(rejected, AccessToken) else bare(rejected) if rejected else None
        began = time.monotonic()
        token, origin = self._refresher.replace(value)
        emit(
            RefreshEvent(
                name="token_refreshed" if origin == "issued" else "token_adopted",
                token=token.fingerprint,
                previous_token=fingerprint(value) if value else None,
                expires_at=token.expires_at,
                source=origin,
                elapsed=time.monotonic() - began,
            )
        )
        return token

    def peek(self) -> AccessToken | None:
        """Give the token in memory if it needs no renewal; None otherwise. Never blocks."""
        return self._refresher.peek()

    def is_new(self, value: str, since: float) -> bool:
        """Say whether KIS issued `value` to this manager after `since` (monotonic seconds). Never blocks."""
        return self._memory.is_new(value, since)

    def renewal_due(self) -> bool:
        """Say whether a token is in memory that is to be renewed before it is used. Never blocks."""
        return self._refresher.renewal_due()

    def issued(self, value: str) -> bool:
        """Say whether `value` has ever been the token here. Never blocks."""
        return self._memory.issued(value)

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        """Give the token in memory if it is alive and not `rejected`. Never blocks."""
        return self._memory.current_unless(rejected)

    def successor_of(self, value: str) -> AccessToken | None:
        """Give the live token in memory where `value` was the token here, or refused, and is no more. Never blocks."""
        return self._memory.successor_of(value)

    def is_dead(self, value: str) -> bool:
        """Say whether `value` was the token here and is no more, or was refused. Never blocks."""
        return self._memory.is_dead(value)

    def note_refused(self, value: str) -> None:
        """Take note that KIS refused `value`; a token in memory counts as expired from then on. Never blocks."""
        self._memory.note_refused(value)

    def replace(self, rejected: str | None) -> Replacement:
        """Do what `refresh` does, without its event, and say where the token came from."""
        return self._refresher.replace(rejected)

    def revoke(self) -> bool:
        """
        Have KIS forget the shared token, and forget it here and in the store.

        Other processes learn of it by their next refusal (EGW00121), which leads to one issue for them all.

        Returns:
            False where there was no token to revoke.

        Raises:
            KisRetryError: KIS did not confirm; the token is still shared then.
        """
        return self._refresher.revoke()

    def _headers(self, token: AccessToken, tr_id: str, extra: dict[str, str]) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "authorization": token.bearer,
            "appkey": self.credentials.app_key,
            "appsecret": self.credentials.app_secret,
            "tr_id": tr_id,
            **extra,
        }

    def _note_handed(self, token: AccessToken) -> None:
        call = current_call()
        if call is not None:
            call.handed_out(self, token.value)

    @property
    def _entry(self) -> StoreEntry:
        if self._shared is None:
            self._shared = StoreEntry(self._given_store or store_from_env(), key_of(self.credentials))
        return self._shared

    def __getstate__(self) -> dict[str, Any]:
        return {"credentials": self.credentials, "store": self._given_store, "policy": self._given_policy}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["credentials"], store=state["store"], policy=state["policy"])  # type: ignore[misc]  # remade as new

    def __repr__(self) -> str:
        cached = self._memory.cached
        return f"TokenManager({self.credentials!r}, {cached.token if cached else 'no token yet'})"
