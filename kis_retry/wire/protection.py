"""
What protects the requests that leave now: of a decorated call, or of the whole process.

The innermost is kept in a context variable, so threads and tasks have their own, and each knows the one around it.
Threads that a decorated function starts carry its protection, and so do the tasks that it hands to a pool; a pool's
worker carries nothing itself.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ..binding import Binding
from ..context import ACTIVE, attribute_of, is_from_signal_handler, is_unprotected
from ..credentials import Credentials
from ..events import warn
from ..pace.limiter import RateLimiter
from ..policy import RetryPolicy
from ..token import AccessToken
from ..tokens.foreign import BrokerSource, as_source, is_broker
from ..tokens.source import LiveSource, is_source
from .account import source_of_account
from .request import KisRequest, LibraryCall

__all__ = ["ACTIVE", "UNDER_WAY", "Protection", "Rules", "chain", "policy_of", "protect_process"]
__all__ += ["start_thread", "submit"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """
    The arguments of a decorator, a protected method or `install`, checked.

    Attributes:
        name: the decorated function, as events show it; None for the process.
        refreshes: a request refused for its token leaves once more.
        repeats: one that was turned away for a moment leaves again.
        calls_again: a function whose requests nobody sees is itself called again.
        sources: `tokens=`.
        policy, bind, limiter, idempotent: as the decorators take them.
        watches: requests are protected; else they are only noticed.
        binding: where the function keeps its token.
        limiter_of: makes the pace of an account, where all accounts are paced.
    """

    name: str | None = None
    refreshes: bool = False
    repeats: bool = False
    calls_again: bool = True
    sources: tuple[LiveSource, ...] = ()
    policy: RetryPolicy | None = None
    bind: Callable[..., object] | None = None
    limiter: RateLimiter | None = None
    idempotent: bool | None = None
    watches: bool = True
    binding: Binding | None = None
    limiter_of: Callable[[KisRequest, LiveSource | None], RateLimiter | None] | None = None


def policy_of(*holders: Any) -> RetryPolicy | None:
    """Return the policy of the first of these that has one."""
    for holder in holders:
        policy = attribute_of(holder, "policy")
        if isinstance(policy, RetryPolicy):
            return policy
    return None


@dataclass(eq=False, repr=False)  # what it is called with is nobody's to see
class Protection:
    """
    The rules for one call of a decorated function, and what was noticed in it.

    Attributes:
        outer: the protection around this one.
        policy: the bounds in force.
        seen: one of its requests has been dealt with on the wire, by whatever protection.
        orders_left: how many requests left it that may have been acted upon.
        settled: the rules by which a call inside it could not be helped: nobody tries again around that one.
        handed: the source that the function asked for its token, and the bare token that it got.
    """

    rules: Rules
    policy: RetryPolicy
    first: Any = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    outer: Protection | None = None
    seen: bool = False
    orders_left: int = 0
    settled: frozenset[str] = frozenset()
    handed: tuple[LiveSource, str] | None = None

    def note_handed(self, source: Any, value: str) -> None:
        """Take note that the function asked `source` for its token."""
        self.handed = source, value
        if self.outer is not None:
            self.outer.note_handed(source, value)

    def source_of(self, call: LibraryCall) -> LiveSource | None:
        """
        Return the source for a request; None where nobody can tell whose the request is.

        In this order: a source that was given, for its own account; the newest `TokenManager` of this process for the
        account; one that is made from the request's own headers; a first argument that issues tokens by itself.
        """
        request, token = call.request, call.request.original_token
        for source in self.sources():
            whose = source.credentials
            if isinstance(whose, Credentials):
                is_its = request.is_of(whose)
            else:
                is_its = token is not None and (source.handed_out(token) or self.keeps(token))
            if is_its:
                return source
        account = source_of_account(call)
        broker = self.broker() if account is None and token is not None else None
        if broker is None or token is None:
            return account
        current = broker.peek()
        return broker if broker.is_dead(token) or (current is not None and current.value == token) else None

    def sources(self) -> tuple[LiveSource, ...]:
        """Return the sources that were given: `tokens=`, else the first argument's attribute `tokens`."""
        if self.rules.sources:
            return self.rules.sources
        found = attribute_of(self.first, "tokens")
        if isinstance(found, LiveSource):
            return (found,)
        return (as_source(found),) if is_source(found) else ()

    def broker(self) -> LiveSource | None:
        """Return the first argument as a source, if it issues tokens by itself."""
        return BrokerSource(self.first, self.policy) if is_broker(self.first) else None

    def limiter(self, request: KisRequest, source: LiveSource | None) -> RateLimiter | None:
        """Return the pace of a request's account, if this protection has it."""
        if self.rules.limiter_of is not None:
            return self.rules.limiter_of(request, source)
        limiter = self.any_limiter()
        return limiter if limiter is not None and request.is_of(limiter.credentials) else None

    def any_limiter(self) -> RateLimiter | None:
        """Return the limiter that was given, else the first argument's attribute `limiter`."""
        if self.rules.limiter is not None:
            return self.rules.limiter
        found = attribute_of(self.first, "limiter") if self.rules.repeats else None
        return found if isinstance(found, RateLimiter) else None

    def keeps(self, token: str) -> bool:
        """Say whether the function keeps `token` for its requests."""
        binding = self.rules.binding
        return binding is not None and binding.kept(self.args, self.kwargs) == token

    def call_back(self, token: AccessToken, source: LiveSource | None) -> None:
        """Hand a token of `source` to `bind=`, where that is of the account of this protection, as far as known."""
        binding, given = self.rules.binding, self.sources()
        if binding is not None and (not given or source in given):
            self._told(binding.call_back, self.first, token)

    def rebind(self, dead: str | None, token: AccessToken) -> None:
        """Put `token` wherever the function keeps `dead`; None: into the first place that is empty."""
        if self.rules.binding is not None:
            found = self._told(self.rules.binding.rebind, self.args, self.kwargs, dead, token)
            self.args, self.kwargs = found or (self.args, self.kwargs)

    def _told(self, put: Callable[..., Any], *given: Any) -> Any:
        """Only tell of what fails where the code keeps its token: the request has the new one all the same."""
        try:
            return put(*given)
        except Exception as error:  # of `bind=`, of a frozen object
            if is_from_signal_handler(error):
                raise
            warn("token_not_rebound", callable=self.rules.name, error=type(error).__name__)


UNDER_WAY: ContextVar[object | None] = ContextVar("kis_retry_under_way", default=None)
"""The call of a library that is sending here: however many layers wrap it, its request is dealt with once."""

_of_process: Protection | None = None


def protect_process(protection: Protection | None) -> None:
    """Have `protection` count for every request of this process; None: none."""
    global _of_process
    _of_process = protection


def chain() -> tuple[Protection, ...]:
    """Return the protections of a request that leaves now, the innermost first."""
    active: Any = ACTIVE.get() or _of_spawner()
    if (active is None and _of_process is None) or is_unprotected() or UNDER_WAY.get() is not None:
        return ()
    found = []
    while active is not None:
        found.append(active)
        active = active.outer
    return tuple(found) if _of_process is None else (*found, _of_process)


def _of_spawner() -> Any:
    """Return what is active where a greenlet of gevent was spawned: it begins with an empty context."""
    gevent, active = sys.modules.get("gevent"), None
    greenlet = gevent.getcurrent() if gevent is not None else None
    while active is None and greenlet is not None and hasattr(greenlet, "spawning_greenlet"):
        if isinstance(getattr(getattr(greenlet, "_run", None), "__self__", None), threading.Thread):
            break  # it is a thread's, which has its own
        greenlet = greenlet.spawning_greenlet()
        active = (getattr(greenlet, "gr_context", None) or {}).get(ACTIVE)
    return active


def start_thread(wrapped: Callable[..., Any], thread: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `Thread.start`, for `wrapt`; what the thread runs is its own, or whatever its class has."""
    protection = ACTIVE.get() or _of_spawner()
    if protection is None or thread.ident is not None:
        return wrapped(*args, **kwargs)
    run, own = thread.run, vars(thread)

    def carried() -> None:
        own.pop("run", None)
        _under(protection, run)

    thread.run = carried
    try:
        return wrapped(*args, **kwargs)
    except BaseException:  # it could not be started
        own.pop("run", None)
        raise


def submit(wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in the place of `ThreadPoolExecutor.submit`, for `wrapt`."""
    protection = ACTIVE.get() or _of_spawner()
    if protection is None or not args:
        return wrapped(*args, **kwargs)
    # The worker that this may start carries nothing.
    return _under(None, wrapped, _under, protection, *args, **kwargs)


def _under(protection: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    before = ACTIVE.set(protection)
    try:
        return function(*args, **kwargs)
    finally:
        ACTIVE.reset(before)
