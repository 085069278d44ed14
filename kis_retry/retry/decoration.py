"""What is known of a decorated function before any call of it: its causes, token source, pace, policy and name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..context import is_bypassed
from ..policy import RetryPolicy
from ..tokens.broker import broker_source
from ..tokens.source import NonBlockingSource, TokenSource, as_source, is_source
from . import patches
from .binding import Binding, binding_of
from .call import Pace, ProtectedCall
from .history import TokenHistory
from .queues import process_queue
from .token_expired import TokenExpired
from .transient import Transient

__all__ = ["Decoration", "Options", "is_limiter"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    The arguments of both decorators, checked.

    Attributes:
        refreshes: the function is made again after its token expired.
        repeats: it is made again after failures that pass by themselves.
        named_by_caller: its events carry the name of the decorated function that calls it.
        name: that its events carry instead of its own.
        transient: the arguments of `retry_on_transient_error` where that is a decorator of its own.
    """

    refreshes: bool = False
    repeats: bool = False
    tokens: TokenSource | None = None
    policy: RetryPolicy | None = None
    bind: Callable[..., object] | None = None
    watch_transport: bool = True
    limiter: Pace | None = None
    idempotent: bool | None = None
    named_by_caller: bool = False
    name: str | None = None
    transient: Options | None = None

    def joined_with(self, other: Options) -> Options | None:
        """Those of one decorator that does what the two do that these are of; None where there is none."""
        for refreshing, repeating in ((self, other), (other, self)):
            if (refreshing.refreshes, refreshing.repeats, repeating.refreshes) == (True, False, False):
                return replace(refreshing, repeats=True, transient=repeating)
        return None

    def __post_init__(self) -> None:
        if self.tokens is not None and not is_source(self.tokens):
            raise TypeError(
                f"tokens= takes a TokenSource (token() and refresh(rejected)), not {type(self.tokens).__name__}"
            )
        if self.policy is not None and not isinstance(self.policy, RetryPolicy):
            raise TypeError(f"policy= takes a RetryPolicy, not {type(self.policy).__name__}")
        if self.bind is not None and not callable(self.bind):
            raise TypeError(f"bind= takes a function of one AccessToken, not {type(self.bind).__name__}")
        if self.limiter is not None and not is_limiter(self.limiter):
            raise TypeError(f"limiter= takes a RateLimiter, not {type(self.limiter).__name__}")
        if self.idempotent not in (None, True, False):
            raise TypeError(f"idempotent= takes True, False or None, not {type(self.idempotent).__name__}")


class Decoration:
    """
    One decorated function.

    Attributes:
        wrapper: what stands in its place.
    """

    wrapper: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self.function = function
        self.options = options
        own_name: str = getattr(function, "__qualname__", type(function).__qualname__)
        self.name = options.name or own_name
        self.binding: Binding = binding_of(function, options.bind)
        self._tokens = as_source(options.tokens) if options.tokens is not None else None
        self._environment: RetryPolicy | None = None
        self._history = TokenHistory()
        self._seen_on_wire = False
        patches.watch()

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProtectedCall | None:
        """One call, not yet made; None where it is to be left alone."""
        if is_bypassed():
            return None
        patches.look_for_libraries()
        options = self.options
        first = self.binding.first(args, kwargs)
        policy = options.policy or getattr(first, "policy", None)
        source = self._tokens
        if source is None and options.refreshes:
            source = self._source_of(first, policy)
        policy = self._policy_of(policy, source)
        repeating = options.transient
        patience = policy
        if repeating is not None:
            patience = self._policy_of(repeating.policy or getattr(first, "policy", None), None)
        refreshes, repeats = options.refreshes and policy.enabled, options.repeats and patience.enabled
        if not refreshes and not repeats:
            return None
        call = ProtectedCall(self.function, self.name, policy, args, kwargs)
        if options.named_by_caller and call.parent is not None:
            call.name = call.parent.name
        if refreshes:
            location = self.binding.location(args, kwargs)
            if source is None:
                raise self._no_source(first)
            token_expired = TokenExpired(call, source, location, self._history, options.watch_transport)
            call.token_expired = token_expired
            call.causes = (token_expired,)
        if repeats:
            repeating = repeating or options
            call.deadline = patience.transient_deadline
            call.causes = (*call.causes, Transient(call, repeating.idempotent, repeating.watch_transport))
            call.limiter = repeating.limiter or _limiter_of(first) or _limiter_around(call)
            call.takes_slot_itself = not self._seen_on_wire and _has_slots(call.limiter)
        return call

    def end(self, call: ProtectedCall) -> None:
        """Learn from a call that is over whether its requests are seen on the wire, and that it found its token."""
        if call.last_sent is not None and not self._seen_on_wire:
            self._seen_on_wire = True
        if self._history.strikes and not call.gave_up:
            self._history.forget_useless()

    def _source_of(self, first: Any, policy: Any) -> NonBlockingSource | None:
        tokens = getattr(first, "tokens", None)
        if tokens is not None and is_source(tokens):
            return as_source(tokens)
        if _is_broker(first):
            return broker_source(first, self._policy_of(policy, None))
        return None

    def _policy_of(self, policy: Any, source: NonBlockingSource | None) -> RetryPolicy:
        if not isinstance(policy, RetryPolicy):
            policy = getattr(source, "policy", None)
        if isinstance(policy, RetryPolicy):
            return policy
        if self._environment is None:
            self._environment = RetryPolicy.from_env()
        return self._environment

    def _no_source(self, first: Any) -> TypeError:
        held = _held_broker(first)
        return TypeError(
            f"{self.name} is decorated with refresh_on_expired_token, but nothing says where a token comes from: "
            "pass tokens=TokenManager.from_env() (or another TokenSource) to the decorator, or "
            + (
                f"protect the broker that it wraps, its attribute `{held}`"
                if held
                else "give the first argument an attribute `tokens`, or `access_token` and `issue_access_token`"
            )
        )


def _is_broker(value: Any) -> bool:
    return callable(getattr(value, "issue_access_token", None)) and hasattr(value, "access_token")


def _held_broker(wrapper: Any) -> str | None:
    """Where a wrapper keeps the broker that it wraps, be it in another wrapper ("_broker.broker"); None if nowhere."""
    for name, value in getattr(wrapper, "__dict__", {}).items():
        if _is_broker(value):
            return str(name)
        within = [inner for inner, found in getattr(value, "__dict__", {}).items() if _is_broker(found)]
        if within and not isinstance(value, type):
            return f"{name}.{within[0]}"
    return None


def _limiter_of(first: object) -> Pace | None:
    limiter: Pace | None = getattr(first, "limiter", None)
    return limiter if limiter is not None and is_limiter(limiter) else None


def _limiter_around(call: ProtectedCall) -> Pace:
    """That of the call which this one is part of, else what is known of outages in this process."""
    return (call.pace_around if call.parent is not None else None) or process_queue


def _has_slots(limiter: Pace | None) -> bool:
    """The pace of the process has none, unless nothing gets through."""
    return limiter is not process_queue or process_queue.reports.trouble


def is_limiter(value: object) -> bool:
    """Whether `value` has what a call asks of its pace."""
    return all(callable(getattr(value, name, None)) for name in ("acquire", "acquire_async", "report"))
