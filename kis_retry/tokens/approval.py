"""The key with which a websocket is opened, one for everybody with the app key: `ApprovalKey`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, TypeVar

from ..errors import ConfigurationError, TokenIssueLimited
from ..stores.base import DocumentStore, documents_of
from ..stores.entry import fallback_documents, warn_unavailable
from .cache import Clock
from .issuer import TokenIssuer
from .refresher import MINUTE, Cooldown, Deadline, SharedSettings, issue_retrying
from .single_flight import SingleFlight, done, failed, then

__all__ = ["ApprovalKey"]

T = TypeVar("T")

_KIND = "approval"
_LIFETIME = 86_400.0  # seconds (KIS: 24 hours; the answer does not say)
_AHEAD = 300.0  # seconds by which another machine's clock may be ahead


class _Issued(NamedTuple):
    value: str
    at: float  # seconds since the epoch


class ApprovalKey:
    """
    Issued once for everybody, shared in the store, and renewed before its 24 hours are over.

    A store that keeps tokens alone shares no key: each process has its own then.
    """

    def __init__(self, settings: SharedSettings, issuer: TokenIssuer, clock: Clock) -> None:
        self._settings = settings
        self._issuer = issuer
        self._clock = clock
        self._flights = SingleFlight("kis_retry-approval")
        self._cooldown = Cooldown()
        self._current: _Issued | None = None
        self._minute_ends = -math.inf
        self._failing = False

    def future(self) -> Future[str]:
        """Get the key: done at once where there is a good one."""
        try:
            limit, policy = self._settings.limit, self._settings.policy
            self._settings.entry.store  # noqa: B018  # an unusable setting is the caller's error
        except ConfigurationError as error:
            return failed(error)
        alive = self._alive(0)
        if alive is not None and (self._flights.busy or self._alive(policy.refresh_margin) is not None):
            return done(alive.value)
        now = self._clock.monotonic()
        failure = self._cooldown.error(now, policy.issue_cooldown)
        if failure is not None and not self._cooldown.may_look(now):
            return done(alive.value) if alive is not None else failed(failure)
        deadline = Deadline(limit, self._clock)
        future, _ = self._flights.submit(_KIND, lambda: self._renew(deadline), limit, self._begin_cooldown)

        def value(ended: Future[_Issued]) -> str:
            return alive.value if alive is not None and ended.exception() is not None else ended.result().value

        return then(future, value)

    def _alive(self, margin: float) -> _Issued | None:
        current = self._current
        return current if current is not None and self._is_good(current, margin) else None

    def _is_good(self, issued: _Issued, margin: float) -> bool:
        return -_AHEAD <= self._clock.time() - issued.at < _LIFETIME - margin

    def _renew(self, deadline: Deadline) -> _Issued:
        policy = self._settings.policy
        retrying = issue_retrying(
            deadline,
            once=not policy.issue_wait or self._cooldown.failure is not None,
            minute_left=lambda: self._minute_ends - self._clock.monotonic(),
            is_over=lambda: self._shared() is not None,
        )
        try:
            issued = retrying(lambda: self._issue(min(policy.issue_timeout, max(deadline.left(), 0.5))))
        except BaseException as error:  # of a hook, too, that exits: nobody asks again at once
            self._begin_cooldown(error)
            raise
        self._cooldown.end()
        self._current = issued
        return issued

    def _issue(self, timeout: float) -> _Issued:
        settings = self._settings
        with ExitStack() as stack:
            self._try(
                "lock",
                lambda documents: stack.enter_context(
                    documents.lock(settings.key, _KIND, timeout=settings.lock_timeout, lease=settings.lease)
                ),
            )
            shared = self._shared()
            if shared is not None:
                return shared
            try:
                issued = _Issued(self._issuer.approve(timeout), self._clock.time())
            except TokenIssueLimited:
                self._minute_ends = self._clock.monotonic() + MINUTE
                raise
            entry = {"version": 1, "key": settings.key, "approval_key": issued.value, "issued_at": issued.at}
            data = json.dumps(entry).encode()
            self._try("write", lambda documents: documents.write(settings.key, _KIND, data, _LIFETIME))
            return issued

    def _shared(self) -> _Issued | None:
        data = self._try("read", lambda documents: documents.read(self._settings.key, _KIND))
        try:
            entry: Any = json.loads(data or b"")
            issued = _Issued(entry["approval_key"], float(entry["issued_at"]))
            is_own = (entry["version"], entry["key"]) == (1, self._settings.key)
        except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
            return None
        is_key = isinstance(issued.value, str) and issued.value.isascii() and issued.value.isprintable()
        good = is_own and is_key and self._is_good(issued, self._settings.policy.refresh_margin)
        return issued if good else None

    def _try(self, operation: str, act: Callable[[DocumentStore], T]) -> T | None:
        """Do something with the store, or with what takes its place; one warning where it cannot be used."""
        documents = documents_of(self._settings.entry.store)
        if documents is None:
            return None
        try:
            result = act(documents)
        except Exception as error:  # any engine, any fault
            if not self._failing:
                warn_unavailable(documents, operation, error)
            self._failing = True
            with suppress(Exception):
                return act(fallback_documents())
            return None
        self._failing = False
        return result

    def _begin_cooldown(self, error: BaseException) -> None:
        self._cooldown.begin(error, self._clock.monotonic())
