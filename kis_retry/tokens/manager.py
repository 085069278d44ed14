"""
`TokenManager`: the token source people use. One refresh for everybody.

It looks for another token in memory, in the store, and once more under the store's lock; only then it asks KIS.
"""

from __future__ import annotations

import hashlib
import math
import random
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import requests

from .. import clock as system_clock
from ..context import ACTIVE
from ..credentials import Credentials
from ..errors import TokenIssueError, TokenIssueLimited
from ..events import RefreshEvent, emit
from ..policy import RetryPolicy
from ..stores.base import TokenStore, key_of
from ..stores.entry import StoreEntry, store_from_env
from ..token import AccessToken, bare, fingerprint
from .issuer import TokenIssuer
from .single_flight import without_traceback
from .source import CachedToken, LiveSource, Memory, Replacement, headers_for

__all__ = ["TokenManager", "every_manager"]

_MINUTE = 60.0  # seconds in which KIS issues one token for an app key (observed since 2023-10-27)
_LOOK = 0.5  # seconds between two looks into the store while waiting for somebody else's token
_BACKOFF, _LONGEST = 0.2, 2.0  # seconds; so much longer is each pause while the endpoint is away, with jitter
_LAST_TRY = 0.5  # seconds that a token request gets at least, however little of issue_wait is left
_LOCK_MARGIN = 2.0  # seconds beyond issue_timeout in which a live holder of the store's lock is done
_OTHERS_TAKE = 1.0  # seconds after which it is looked again what came of another process's early renewal

_AskKis = Callable[[float], AccessToken]

_managers: weakref.WeakValueDictionary[int, TokenManager] = weakref.WeakValueDictionary()


class Refresher(LiveSource):
    """What KIS issues to one app key, in memory and in a store, and the way to the next one; `ask` asks KIS once."""

    def __init__(
        self, ask: _AskKis, key: str, store: TokenStore | None, policy: RetryPolicy | None, clock: Any
    ) -> None:
        self._ask_kis, self._key, self._clock, self._memory = ask, key, clock, Memory()
        self._policy, entry = policy, StoreEntry(store, key) if store is not None else None
        self._entry: StoreEntry = entry  # type: ignore[assignment]  # `_bounds` makes it before it is asked
        self._issued_at = self._minute_ends = -math.inf  # on the monotonic clock
        self._reissued = ""  # the last token of KIS's, where it was an old one

    @property
    def policy(self) -> RetryPolicy:  # type: ignore[override]  # only read
        """The policy given, or the environment's, read when first needed."""
        if self._policy is None:
            self._policy = RetryPolicy.from_env()
        return self._policy

    def adopt(self, token: AccessToken) -> None:
        self._keep_issued(token)
        self._submit(f"share {token.value}", lambda _: self._entry.save(token))

    def _bounds(self) -> RetryPolicy:
        policy = self.policy
        self._entry = self._entry or StoreEntry(store_from_env(), self._key)
        return policy

    def _renew_early(self, cached: CachedToken, _: float) -> Replacement:
        """Get a token in place of `cached`, which is good still: one try, and no waiting for anything."""
        now = self._clock.monotonic()
        self._memory.next_early = now + _OTHERS_TAKE
        with self._store_lock(0) as held:
            renewed = self._adopt(cached.token.value, self._entry.load())
            if self._memory.current is not cached or not held:
                return renewed or Replacement(cached.token, "memory")
            self._memory.next_early = now + self.policy.issue_cooldown
            return self._issue(self.policy.issue_timeout)

    def _ask(self, rejected: str | None, ends: float) -> Replacement:
        before, failure = self._entry.load(), self._cooling()
        adopted = self._adopt(rejected, before)
        if adopted is None and failure is not None:
            raise without_traceback(failure)
        failures, told = 0, set[float]()
        while adopted is None:
            try:
                adopted = self._attempt(rejected, before, ends)
            except TokenIssueError as error:
                left = ends - self._clock.monotonic()
                if not error.retryable or not self.policy.issue_wait or left < system_clock.LEAST_WAIT:
                    raise
                failures, is_minute = failures + 1, isinstance(error, TokenIssueLimited)
                if self._minute_ends not in told:  # each minute that is waited out, and one wait for the endpoint
                    told.add(self._minute_ends)
                    most, name = min(self._minute_left(), left) if is_minute else left, type(error).__name__
                    emit(RefreshEvent(name="token_issue_waiting", msg_cd=error.code, wait=most, error=name))
                jitter = random.uniform(0, _BACKOFF)  # noqa: S311  # no key
                pause = min(_LOOK, self._minute_left()) if is_minute else min(_BACKOFF * failures, _LONGEST) + jitter
                self._clock.sleep(min(pause, left))
        return adopted

    def _attempt(self, rejected: str | None, before: AccessToken | None, ends: float) -> Replacement:
        timeout, left = self.policy.issue_timeout, ends - self._clock.monotonic()
        with self._store_lock(min(timeout + _LOCK_MARGIN, left / 2)):
            adopted = self._adopt(rejected, before)
            if adopted is None and self._minute_left() > system_clock.LEAST_WAIT:  # KIS said so a moment ago
                raise TokenIssueLimited("KIS issues one token a minute", code="EGW00133", retryable=True)
            return adopted or self._issue(max(min(timeout, ends - self._clock.monotonic()), _LAST_TRY))

    def _issue(self, timeout: float) -> Replacement:
        try:
            token = self._ask_kis(timeout)
        except TokenIssueLimited as error:
            now, ours = self._clock.monotonic(), self._issued_at + _MINUTE
            self._minute_ends = ours if ours > now else now + _MINUTE
            if now < ours and self._reissued in self._memory.refused:
                # KIS hands the refused one out again, as it does for six hours: waiting would only bring it back.
                raise TokenIssueLimited("KIS refuses a token that it hands out again", code=error.code) from None
            raise
        self._keep_issued(token)
        self._entry.save(token)
        return Replacement(token, "issued")

    def _adopt(self, rejected: str | None, before: AccessToken | None) -> Replacement | None:
        """
        Take a live token from the store: not the refused one, nor another that KIS refused before.

        One that took the place of `before` since this refresh began was just issued, whatever this machine's clock
        makes of its expiry.
        """
        token, now = self._entry.load(), self._clock.time()
        if token is None or token.value == rejected or token.value in self._memory.refused:
            return None
        if token == before and now >= token.expires:
            return None
        self._memory.keep(token, now, margin=self.policy.refresh_margin, just_issued=token != before)
        return Replacement(token, "store")

    def _keep_issued(self, token: AccessToken) -> None:
        self._reissued = token.value if self.is_dead(token.value) else ""
        self._issued_at, margin = self._clock.monotonic(), self.policy.refresh_margin
        self._memory.keep(token, self._clock.time(), margin=margin, just_issued=True)

    def _store_lock(self, timeout: float) -> AbstractContextManager[bool]:
        """Wait for the store's lock; whoever waits longer than a live holder needs goes on without."""
        return self._entry.lock(timeout=timeout, lease=2 * self.policy.issue_timeout + 10)

    def _minute_left(self) -> float:
        return float(self._minute_ends - self._clock.monotonic())


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
        import asyncio  # who runs a coroutine has it already

        token = self.peek()
        return self._handed(token if token is not None else await asyncio.wrap_future(self.token_future()))

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
        import asyncio  # as above

        return (await asyncio.wrap_future(self._approval.token_future())).value

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


def _check(name: str, value: object, *kinds: type) -> None:
    if isinstance(value, type) or not isinstance(value, kinds):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"TokenManager takes a {kinds[0].__name__} as {name}, not {given}")
