"""A library's broker object as a token source: `BrokerSource`."""

from __future__ import annotations

import inspect
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ..policy import RetryPolicy
from ..token import AccessToken, bare
from .source import NEVER, NonBlockingSource, Replacement, companion, note

__all__ = ["BrokerSource", "broker_source"]


class BrokerSource(NonBlockingSource):
    """A library's broker object as a source: its `access_token`, renewed by its own `issue_access_token`."""

    def __init__(self, broker: Any) -> None:
        # Weak, since the wrapper is kept beside the broker and must not keep it alive.
        self._broker = weakref.ref(broker)
        self._issuing = threading.Lock()  # guards issue_access_token: one thread asks, the others look again
        self._refused: dict[str, None] = {}
        self._finished = 0  # issues that ended, well or badly
        self._failure: Exception | None = None
        self._failed_at = 0.0  # on the monotonic clock

    def token(self) -> AccessToken:
        return self._held() or self.replace(None).token

    def peek(self) -> AccessToken | None:
        return self._held()

    def renewal_due(self) -> bool:
        return False

    def issued(self, value: str) -> bool:  # the library's own token is never this source's
        return False

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        held = self._held()
        return held if held is not None and held.value != rejected and held.value not in self._refused else None

    def successor_of(self, value: str) -> AccessToken | None:
        return self.current_unless(value) if value in self._refused else None

    def note_refused(self, value: str) -> None:
        note(self._refused, value)

    def replace(self, rejected: str | None) -> Replacement:
        seen = self._finished
        if rejected is not None:
            self.note_refused(rejected)
        with self._issuing:
            held = self.current_unless(rejected)
            if held is not None:
                return Replacement(held, "memory")
            if self._failure is not None and (self._finished != seen or self._is_cooling_down()):
                raise self._failure
            return Replacement(self._issue(), "issued")

    def _is_cooling_down(self) -> bool:
        return time.monotonic() - self._failed_at < RetryPolicy.from_env().issue_cooldown

    def _issue(self) -> AccessToken:
        try:
            self._failure = None
            issue = self._broker().issue_access_token  # type: ignore[union-attr]  # a call on it is under way
            answer = issue(force=True) if _takes_force(issue) else issue()
            if hasattr(answer, "close") and hasattr(answer, "__await__"):
                answer.close()
                raise TypeError("issue_access_token is a coroutine function: pass tokens= instead")
            held = self._held()
            if held is None:
                raise TypeError("issue_access_token left no access_token behind: pass tokens= instead")
        except Exception as error:
            self._failure, self._failed_at = error, time.monotonic()
            raise
        else:
            self._refused.pop(held.value, None)
            return held
        finally:
            self._finished += 1

    def _held(self) -> AccessToken | None:
        value = getattr(self._broker(), "access_token", None)
        try:
            return AccessToken(bare(value), NEVER) if isinstance(value, str) else None
        except ValueError:  # empty, or not a token
            return None


def broker_source(broker: Any) -> NonBlockingSource:
    """The one `BrokerSource` of a broker object."""
    return companion(broker, _brokers, BrokerSource)


_brokers: weakref.WeakKeyDictionary[Any, BrokerSource] = weakref.WeakKeyDictionary()


def _takes_force(issue: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(issue).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "force" or p.kind is p.VAR_KEYWORD for p in parameters)
