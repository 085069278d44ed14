"""`TokenManager`: the token source people use. Renewing is `refresher`'s, on a thread of its own."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import requests

from ..credentials import Credentials
from ..errors import ConfigurationError, TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit
from ..forking import after_fork
from ..policy import RetryPolicy
from ..stores.base import TokenStore
from ..stores.from_env import store_from_env
from ..token import AccessToken, bare, fingerprint
from .approval import ApprovalKey
from .cache import SYSTEM_CLOCK, CachedToken, Clock
from .issuer import TokenIssuer
from .refresher import Deadline, SharedSettings, TokenRefresher
from .single_flight import SingleFlight, done, failed, then
from .source import LiveSource, Replacement, joined

__all__ = ["TokenManager", "newest_manager"]

_T = TypeVar("_T")

_EARLY = "early renewal"  # keys of what is asked for; no token holds a space
_REVOKE = "revoke it"

_managers: weakref.WeakValueDictionary[int, TokenManager] = weakref.WeakValueDictionary()
_numbers = itertools.count()


class TokenManager(LiveSource):
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
        clock: tells the time; for tests.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        store: TokenStore | None = None,
        policy: RetryPolicy | None = None,
        session: requests.Session | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        _check("credentials", credentials, Credentials)
        if store is not None:
            _check("store", store, TokenStore)
        if policy is not None:
            _check("policy", policy, RetryPolicy)
        self.credentials: Credentials = credentials
        self._given = store, policy
        self._clock = clock
        self._settings = SharedSettings(credentials, store, policy)
        self._flights = SingleFlight("kis_retry-refresh")
        issuer = TokenIssuer(credentials, session, clock)
        self._refresher = TokenRefresher(self._settings, issuer, clock)
        self._approval = ApprovalKey(self._settings, issuer, clock)
        self._cache = self._refresher.cache
        after_fork(self._refresher, TokenRefresher.after_fork)
        _managers[next(_numbers)] = self

    @classmethod
    def from_env(cls, prefix: str = "KIS_") -> TokenManager:
        """
        Read credentials, store and policy from the environment.

        Args:
            prefix: of the variables of the credentials, for a second pair of keys.

        Raises:
            ConfigurationError: a variable is missing or unusable; the message names it.
        """
        return cls(Credentials.from_env(prefix), store=store_from_env(), policy=RetryPolicy.from_env(prefix))

    @property
    def policy(self) -> RetryPolicy:  # type: ignore[override]  # only read
        """The policy given, or the environment's, read when first needed."""
        return self._settings.policy

    @property
    def store(self) -> TokenStore:
        """Where the token is shared."""
        return self._settings.entry.store

    @property
    def authorization(self) -> str:
        """The value of the `authorization` header, which is `token()` with "Bearer " before it."""
        return self.token().bearer

    def headers(self, tr_id: str, **extra: str) -> dict[str, str]:
        """
        Make a fresh dict of every header KIS wants for one call.

        Args:
            tr_id: the transaction, e.g. "FHKST01010100" (API page of each call).
            extra: more headers by name, e.g. `custtype="P"`; they win over the ones made here.
        """
        return self._headers(self.token(), tr_id, extra)

    async def headers_async(self, tr_id: str, **extra: str) -> dict[str, str]:
        """Do what `headers` does without stopping the event loop."""
        return self._headers(await self.token_async(), tr_id, extra)

    def token(self) -> AccessToken:
        """
        Give the current token, from memory while it is good; renew it ahead of its expiry.

        Inside `refresh_margin` one thread renews it while the others go on with the good one, and a failure is only a
        warning. Once expired, everybody waits; if no new one can be had, the old one is handed out, so that KIS's own
        answer reaches the caller, unless that has been seen already: then it is an error.

        Raises:
            TokenIssueError: there is no token, or a refused one, and no other can be had.
        """
        return self._cache.fresh or self.token_future().result()

    async def token_async(self) -> AccessToken:
        """Do what `token` does without stopping the event loop; a good token is handed out at once."""
        return self.peek() or await _awaited(self.token_future())

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
        began = self._clock.monotonic()
        replacement = self.replace_future(value).result()
        self._tell_renewed(replacement, value, began)
        return replacement.token

    def revoke(self) -> bool:
        """
        Have KIS forget the shared token, and forget it here and in the store.

        Other processes learn of it by their next refusal (EGW00121), which leads to one issue for them all.

        Returns:
            False where there was no token to revoke.

        Raises:
            KisRetryError: KIS did not confirm; the token is still shared then.
        """
        revoked: bool = self._submit(_REVOKE, lambda _: self._refresher.revoke())[0].result()
        return revoked

    def approval_key(self) -> str:
        """
        Give the key with which a websocket is opened; shared and renewed like the token.

        Raises:
            TokenIssueError: there is none, and none can be had.
        """
        return self._approval.future().result()

    async def approval_key_async(self) -> str:
        """Do what `approval_key` does without stopping the event loop."""
        return await _awaited(self._approval.future())

    def peek(self) -> AccessToken | None:
        cached = self._cache.current
        if cached is None or (now := self._clock.time()) >= cached.expired_at:
            return None
        others_renew = self._flights.busy or not self._refresher.may_renew_early()
        return cached.token if now < cached.stale_at or others_renew else None

    def adopt(self, token: AccessToken) -> None:
        self._refresher.keep_issued(token)
        self._submit(f"share {token.value}", lambda _: self._refresher.share(token))

    def token_future(self) -> Future[AccessToken]:
        token, cached = self.peek(), self._cache.current
        if token is not None:
            return done(token)
        if cached is not None and self._clock.time() < cached.expired_at:
            return self._renew_early(cached)
        return self._renew_expired(cached.token if cached is not None else None)

    def replace_future(self, rejected: str | None) -> Future[Replacement]:
        if rejected is not None:
            self.note_refused(rejected)
        return self._replaced(rejected)[0]

    def renewed_future(self) -> Future[AccessToken]:
        fresh, began = self._cache.fresh, self._clock.monotonic()
        if fresh is not None:
            return done(fresh)
        old = self._cache.current
        future, is_first = self._submit("a fresh one", self._refresher.renew)

        def tell(ended: Future[Replacement]) -> AccessToken:
            replacement = ended.result()
            if is_first and old is not None:
                self._tell_renewed(replacement, old.token.value, began)
            return replacement.token

        return then(future, tell)

    def _replaced(self, rejected: str | None) -> tuple[Future[Replacement], bool]:
        """Get a token in place of `rejected`, and tell whether this caller began the refresh."""
        found = self.current_unless(rejected)
        if found is not None:
            return done(Replacement(found, "memory")), False
        cooldown, now = self._refresher.cooldown, self._clock.monotonic()
        if cooldown.failure is not None:
            failure = cooldown.error(now, self.policy.issue_cooldown)
            if failure is not None and (self._flights.busy or not cooldown.may_look(now)):
                return failed(failure), False
        future, is_first = self._submit(
            rejected or "", lambda deadline: self._refresher.replace(rejected, deadline), self._refresher.give_up
        )
        return future if is_first else joined(future), is_first

    def _renew_early(self, cached: CachedToken) -> Future[AccessToken]:
        """Have one caller renew it; the others go on with it meanwhile."""
        began = self._clock.monotonic()
        future, is_first = self._submit(_EARLY, lambda _: self._refresher.renew_early(cached))
        if not is_first:
            return done(cached.token)

        def tell(ended: Future[Replacement]) -> AccessToken:
            error = ended.exception()
            if error is not None:
                self._tell_failed(error, cached.token, began)
            elif ended.result().origin == "issued":
                self._tell_renewed(ended.result(), cached.token.value, began)
            return self.current_unless(None) or self._last_resort(cached.token, error)

        return then(future, tell)

    def _renew_expired(self, old: AccessToken | None) -> Future[AccessToken]:
        """Have everybody wait; if there is no other, the old one lets KIS's own answer reach the caller."""
        began = self._clock.monotonic()
        future, is_first = self._replaced(old.value if old is not None else None)

        def tell(ended: Future[Replacement]) -> AccessToken:
            error = ended.exception()
            if error is None:
                if old is not None and is_first:
                    self._tell_renewed(ended.result(), old.value, began)
                return ended.result().token
            is_new = isinstance(error, TokenIssueLimited) or self._refresher.cooldown.began >= began
            if old is not None and is_first and is_new:  # during the cool-down it has been told already
                self._tell_failed(error, old, began)
            return self._last_resort(old, error)

        return then(future, tell)

    def _last_resort(self, old: AccessToken | None, error: BaseException | None) -> AccessToken:
        if old is None or self._cache.was_refused(old.value):
            raise error or TokenIssueError("the token was refused while another one was asked for", retryable=True)
        return old

    def _submit(
        self,
        key: str,
        ask: Callable[[Deadline], Any],
        when_late: Callable[[Exception], object] | None = None,
    ) -> tuple[Future[Any], bool]:
        try:
            limit = self._settings.limit
            self._settings.entry.store  # noqa: B018  # an unusable setting is the caller's error and no failed refresh
        except ConfigurationError as error:
            return failed(error), False
        deadline = Deadline(limit, self._clock)
        return self._flights.submit(key, lambda: ask(deadline), limit, when_late)

    def _tell_renewed(self, replacement: Replacement, previous: str | None, began: float) -> None:
        token, origin = replacement
        event = RefreshEvent(
            name="token_refreshed" if origin == "issued" else "token_adopted",
            token=token.fingerprint,
            previous_token=fingerprint(previous) if previous else None,
            expires_at=token.expires_at,
            source=origin,
            elapsed=self._clock.monotonic() - began,
        )
        emit(event, logging.DEBUG if origin == "memory" else None)

    def _tell_failed(self, error: BaseException, old: AccessToken, began: float) -> None:
        event = RefreshEvent(
            name="token_refresh_failed",
            msg_cd=getattr(error, "code", None),
            previous_token=old.fingerprint,
            expires_at=old.expires_at,
            elapsed=self._clock.monotonic() - began,
            error=type(error).__name__,
        )
        emit(event)

    def _headers(self, token: AccessToken, tr_id: str, extra: dict[str, str]) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "authorization": token.bearer,
            "appkey": self.credentials.app_key,
            "appsecret": self.credentials.app_secret,
            "tr_id": tr_id,
            **extra,
        }

    def __getstate__(self) -> dict[str, Any]:
        store, policy = self._given
        return {"credentials": self.credentials, "store": store, "policy": policy}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["credentials"], store=state["store"], policy=state["policy"])  # type: ignore[misc]  # remade as new

    def __repr__(self) -> str:
        cached = self._cache.current
        return f"TokenManager({self.credentials!r}, {cached.token if cached else 'no token yet'})"


def newest_manager(base_url: str, app_key: str, app_secret: str) -> TokenManager | None:
    """Return the manager for that account that was made last in this process, as long as somebody holds one."""
    wanted = base_url.rstrip("/"), app_key.strip(), app_secret.strip()
    for manager in reversed(list(_managers.values())):
        known = manager.credentials
        if (known.base_url, known.app_key, known.app_secret) == wanted:
            return manager
    return None


async def _awaited(future: Future[_T]) -> _T:
    import asyncio  # who runs a coroutine has it already

    return await asyncio.wrap_future(future)


def _check(name: str, value: object, kind: type) -> None:
    if isinstance(value, type) or not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"TokenManager takes a {kind.__name__} as {name}, not {given}")
