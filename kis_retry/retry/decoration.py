"""What is known of a decorated function before any call of it: its causes, token source, pace, policy and name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..cause import Cause
from ..context import CURRENT, current_call, is_bypassed
from ..policy import RetryPolicy
from ..tokens.broker import broker_source
from ..tokens.source import NonBlockingSource, TokenSource, as_source, is_source
from . import patches
from .binding import Binding, NoLocation, binding_of
from .call import Pace, ProtectedCall
from .history import TokenHistory
from .limiter import RateLimiter
from .queues import process_queue
from .token_expired import TokenExpired
from .transient import Transient

__all__ = ["Decoration", "Options", "is_limiter"]

_PLAIN = frozenset((str, int, float, bytes, bool, dict, list, tuple, type(None)))
"""First arguments that have neither a policy nor a limiter: it takes longer to find that out of each call."""


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
        around = CURRENT.get()
        if around is not None:
            if is_bypassed():
                return None
            around = current_call()
        patches.look_for_libraries()
        options = self.options
        first = args[0] if args else self.binding.first(args, kwargs)
        source = self._tokens
        if source is None and options.refreshes:
            source = self._source_of(first)
        policy = options.policy or self._policy_for(first, source)
        repeating, patience = options.transient or options, policy
        if options.transient is not None:
            patience = options.transient.policy or self._policy_for(first, None)
        refreshes, repeats = options.refreshes and policy.enabled, options.repeats and patience.enabled
        if not refreshes and not repeats:
            return None
        call = ProtectedCall(self, around, args, kwargs, policy)
        if around is not None and options.named_by_caller:
            call.name = around.name
        if refreshes:
            self._look_for_token(call, source, first)
        if repeats:
            call.deadline = patience.transient_deadline
            self._set_pace(call, repeating.limiter, first)
        return call

    def token_expired(self, call: ProtectedCall) -> TokenExpired:
        """The cause of a call with a source that is about its token."""
        assert call.source is not None  # noqa: S101  # asked of no other call
        assert call.location is not None  # noqa: S101  # as above
        return TokenExpired(call, call.source, call.location, self._history, self.options.watch_transport)

    def causes(self, call: ProtectedCall) -> tuple[Cause, ...]:
        """The reasons to make `call` again, in the order in which they are asked."""
        token_expired, repeating = call.token_expired, self.options.transient or self.options
        causes: tuple[Cause, ...] = (token_expired,) if token_expired is not None else ()
        if call.limiter is not None:
            causes = (*causes, Transient(call, repeating.idempotent, repeating.watch_transport))
        return causes

    def end(self, call: ProtectedCall) -> None:
        """Learn from a call that is over whether its requests are seen on the wire, and that it found its token."""
        call.finish()
        if call.last_sent is not None and not self._seen_on_wire:
            self._seen_on_wire = True
        if self._history.strikes and not call.gave_up:
            self._history.forget_useless()

    def _look_for_token(self, call: ProtectedCall, source: NonBlockingSource | None, first: Any) -> None:
        if source is None:
            raise self._no_source(first)
        call.source = source
        call.location, found = self.binding.find(call.args, call.kwargs)
        current = source.peek()
        if current is not None:  # nearly always; what there is to know of its token costs a good call more
            if found == current.bearer:
                call.used = current.value
                return
            if type(call.location) is NoLocation and not source.hands_out_unseen:
                return
        token_expired = call.token_expired
        if token_expired is not None and token_expired.needs_token(found):
            call.unbound = token_expired

    def _set_pace(self, call: ProtectedCall, limiter: Pace | None, first: Any) -> None:
        if limiter is None and type(first) not in _PLAIN:
            limiter = _limiter_of(first)
        if limiter is None and isinstance(call.parent, ProtectedCall):
            limiter = call.parent.pace
        call.limiter = limiter = process_queue if limiter is None else limiter
        # The pace of the process has no slots, unless nothing gets through.
        if not self._seen_on_wire and (limiter is not process_queue or process_queue.reports.trouble):
            call.takes_slot_itself = True

    def _source_of(self, first: Any) -> NonBlockingSource | None:
        tokens = getattr(first, "tokens", None)
        if isinstance(tokens, NonBlockingSource):
            return tokens
        if tokens is not None and is_source(tokens):
            return as_source(tokens)
        if _is_broker(first):
            return broker_source(first, self.options.policy or self._policy_for(first, None))
        return None

    def _policy_for(self, first: Any, source: NonBlockingSource | None) -> RetryPolicy:
        """That of the first argument, of the source, or of the environment."""
        policy = None if type(first) in _PLAIN else getattr(first, "policy", None)
        if source is not None and not isinstance(policy, RetryPolicy):
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
    if isinstance(limiter, RateLimiter):
        return limiter
    return limiter if limiter is not None and is_limiter(limiter) else None


def is_limiter(value: object) -> bool:
    """Whether `value` has what a call asks of its pace."""
    return all(callable(getattr(value, name, None)) for name in ("acquire", "acquire_async", "report"))
