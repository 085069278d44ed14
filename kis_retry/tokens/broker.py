"""A library's broker object as a token source: `broker_source`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from ..policy import RetryPolicy
from ..token import YEARS, AccessToken, bare
from .cache import SYSTEM_CLOCK, TokenCache
from .single_flight import without_traceback
from .source import ForeignSource, LiveSource, Replacement

__all__ = ["broker_source", "is_broker"]

_NEVER = datetime(YEARS.stop - 1, 12, 31, tzinfo=timezone.utc)  # a library does not say when its token dies


def is_broker(value: object) -> bool:
    """Tell whether `value` has an `access_token` and an `issue_access_token` that renews it; a class has not."""
    if isinstance(value, type):
        return False
    return hasattr(value, "access_token") and callable(getattr(value, "issue_access_token", None))


def broker_source(value: Any, policy: RetryPolicy | None = None) -> LiveSource:
    """
    Make a source of a broker object: its `access_token`, renewed by its own `issue_access_token`.

    Args:
        value: is asked on a thread of this package, with `force=True` where it takes that.
        policy: `issue_wait` bounds how long others wait for it, `issue_cooldown` how soon it is asked again after a
            failure; without one, the environment's.
    """
    return _BrokerSource(value, policy)


class _BrokerSource(ForeignSource):
    @property
    def _cache(self) -> TokenCache:  # type: ignore[override]  # only read
        """What is known, with what the library holds now as the current token."""
        cache = self._known.cache
        value = getattr(self._target, "access_token", None)
        value = bare(value) if isinstance(value, str) else ""
        if cache.current is None or cache.current.token.value != value:
            try:
                cache.keep(AccessToken(value, _NEVER))
            except ValueError:  # empty, or not a token
                cache.current = None
        return cache

    def _ask(self, rejected: str | None) -> Replacement:
        known, policy = self._known, self.policy or RetryPolicy.from_env()
        if known.failure is not None and SYSTEM_CLOCK.monotonic() - known.failed_at < policy.issue_cooldown:
            raise without_traceback(known.failure)
        try:
            token = self._issued()
        except BaseException as error:  # of the library
            known.failure, known.failed_at = without_traceback(error), SYSTEM_CLOCK.monotonic()
            raise
        known.failure = None
        return Replacement(token, "issued")

    def _issued(self) -> AccessToken:
        issue = self._target.issue_access_token
        answer = issue(force=True) if _takes_force(issue) else issue()
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError("issue_access_token is a coroutine function: pass tokens= instead")
        current = self._cache.current
        if current is None:
            raise TypeError("issue_access_token left no access_token behind: pass tokens= instead")
        self._known.cache.refused.pop(current.token.value, None)
        self._known.cache.keep(current.token)
        return current.token


def _takes_force(issue: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(issue).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "force" or p.kind is p.VAR_KEYWORD for p in parameters)
