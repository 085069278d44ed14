"""A library's broker object as a token source: `BrokerSource`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

from ..errors import TokenIssueError
from ..policy import RetryPolicy
from ..signals import is_from_signal_handler
from ..token import AccessToken, bare
from .companions import Companions
from .single_flight import AskedWithinError, SingleFlight, StillUnderWayError, fresh
from .source import NEVER, NonBlockingSource, Replacement, note

__all__ = ["BrokerSource", "broker_source"]


class _BrokerState:
    """What is known of a broker object, whoever asks and under whatever policy."""

    def __init__(self) -> None:
        self.refused: dict[str, None] = {}
        # On the thread of who asks first: a library may keep something that belongs to the thread that made it.
        self.flights: SingleFlight[Replacement] = SingleFlight(own_thread=False)
        self.found: AccessToken | None = None  # what the library held when it was looked at last
        self.failure: Exception | None = None
        self.failed_at = 0.0  # on the monotonic clock


_states: Companions[_BrokerState] = Companions(_BrokerState)


class BrokerSource(NonBlockingSource):
    """
    A library's broker object as a source: its `access_token`, renewed by its own `issue_access_token`.

    Made anew for each call; what has to last is kept beside the broker object. Sources of one object are equal.

    Args:
        broker: has `access_token` and `issue_access_token`.
        policy: `issue_wait` bounds how long others wait for who asks, `issue_cooldown` how soon it is asked again
            after a failure; without one, `RetryPolicy.from_env()` when first needed.
    """

    def __init__(self, broker: Any, policy: RetryPolicy | None = None) -> None:
        self._broker = broker
        self._given_policy = policy
        self._state = _states.of(broker)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrokerSource) and other._state is self._state

    def __hash__(self) -> int:
        return id(self._state)

    @property
    def identity(self) -> object:
        """What sources of one object have in common."""
        return self._state

    def token(self) -> AccessToken:
        return self._found() or self.replace(None).token

    def peek(self) -> AccessToken | None:
        return self._found()

    def renewal_due(self) -> bool:
        return False

    def issued(self, value: str) -> bool:  # the library's own token is never this source's
        return False

    def current_unless(self, rejected: str | None) -> AccessToken | None:
        found = self._found()
        refused = found is None or found.value == rejected or found.value in self._state.refused
        return None if refused else found

    def successor_of(self, value: str) -> AccessToken | None:
        return self.current_unless(value) if value in self._state.refused else None

    def is_dead(self, value: str) -> bool:
        return value in self._state.refused

    def note_refused(self, value: str) -> None:
        note(self._state.refused, value)

    def replace(self, rejected: str | None) -> Replacement:
        policy = self._given_policy or RetryPolicy.from_env()
        limit = policy.issue_wait or policy.issue_timeout
        if rejected is not None:
            self.note_refused(rejected)
        try:
            replacement, mine = self._state.flights.run(
                rejected, lambda: self._issue(policy.issue_cooldown), look=lambda: self._look(rejected), seconds=limit
            )
        except AskedWithinError:
            failure = "issue_access_token asks for what it is about to issue, or a signal handler does meanwhile"
        except StillUnderWayError:
            failure = f"issue_access_token has not come to an end in {limit:g} seconds"
        else:
            return replacement if mine else Replacement(replacement.token, "memory")
        # Raised out here: in there the error would carry the other one, and with it the frames, as its context.
        raise TokenIssueError(failure, retryable=True)

    def _look(self, rejected: str | None) -> Replacement | None:
        found = self.current_unless(rejected)
        return Replacement(found, "memory") if found is not None else None

    def _issue(self, cooldown: float) -> Replacement:
        state = self._state
        if state.failure is not None and time.monotonic() - state.failed_at < cooldown:
            raise fresh(state.failure)
        try:
            token = self._asked()
        except Exception as error:  # of the library
            if not is_from_signal_handler(error):
                state.failure, state.failed_at = fresh(error), time.monotonic()
            raise
        state.failure = None
        state.refused.pop(token.value, None)
        return Replacement(token, "issued")

    def _asked(self) -> AccessToken:
        issue = self._broker.issue_access_token
        answer = issue(force=True) if _takes_force(issue) else issue()
        if hasattr(answer, "close") and hasattr(answer, "__await__"):
            answer.close()
            raise TypeError("issue_access_token is a coroutine function: pass tokens= instead")
        found = self._found()
        if found is None:
            raise TypeError("issue_access_token left no access_token behind: pass tokens= instead")
        return found

    def _found(self) -> AccessToken | None:
        value = getattr(self._broker, "access_token", None)
        if not isinstance(value, str):
            return None
        value, last = bare(value), self._state.found
        if last is None or last.value != value:  # checking it anew costs a good call as much as all the rest
            try:
                self._state.found = last = AccessToken(value, NEVER)
            except ValueError:  # empty, or not a token
                return None
        return last


def broker_source(broker: Any, policy: RetryPolicy | None = None) -> NonBlockingSource:
    """The source of a broker object, under the policy of the decorated function."""
    return BrokerSource(broker, policy)


def _takes_force(issue: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(issue).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "force" or p.kind is p.VAR_KEYWORD for p in parameters)
