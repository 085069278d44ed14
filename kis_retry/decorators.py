"""
The two decorators: `refresh_on_expired_token` and `retry_on_transient_error`.

They say what protects the requests inside a function; the requests are protected where they leave (`wire`). Only a
function whose requests nobody sees is itself called again, by the same two cards (`retrying`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, overload

from .answers import judge
from .binding import Binding, attribute_of
from .calling import FunctionCall, Returned, raised
from .context import ACTIVE, is_unprotected
from .engine import run, run_async
from .pace.limiter import RateLimiter
from .policy import RetryPolicy
from .signals import is_from_signal_handler
from .tokens.foreign import as_source
from .tokens.source import TokenSource, is_source
from .wire import watch
from .wire.protection import Protection, Rules

__all__ = ["decorated", "is_decoratable", "refresh_on_expired_token", "retry_on_transient_error", "rules_of"]

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN = frozenset((str, int, float, bytes, bool, dict, list, tuple, type(None)))  # first arguments without a policy


@overload
def refresh_on_expired_token(
    fn: None = None,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[..., object] | None = None,
    watch_transport: bool = True,
) -> Callable[[F], F]: ...


@overload
def refresh_on_expired_token(
    fn: F,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[..., object] | None = None,
    watch_transport: bool = True,
) -> F: ...


def refresh_on_expired_token(
    fn: Any = None,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[..., object] | None = None,
    watch_transport: bool = True,
) -> Any:
    """
    Have each request that KIS refuses for its expired token leave once more, with a new one.

    For functions, methods and coroutine functions that call KIS. Bare, with `()` or with arguments. The requests inside
    are protected where they leave (`requests`, `httpx`, `aiohttp`, `urllib.request`), in the threads that the function
    starts and in the tasks that it hands to a pool too; the function never sees the refusal. What the caller gets is
    always the function's own last value or its own last exception.

    A function whose requests nobody sees is itself called once more after such a refusal.

    Args:
        fn: the function.
        tokens: where a new token comes from. It may be left out: a request to KIS carries its account's host, app key
            and secret; else the first argument's `tokens` counts.
        policy: bounds; without it the first argument's or the source's `policy`, or `RetryPolicy.from_env()` at the
            first call.
        bind: puts a new `AccessToken` where the code keeps it: a function of `(token)` or, on methods,
            `(self, token)`, called by one thread at a time and once for each token. Without it a parameter `headers`,
            `authorization`, `access_token` or `token` and the first argument's attribute `access_token` are rebound,
            where they hold the dead token.
        watch_transport: False: the requests are not changed, only noticed, so that a function in which an order went
            out is not called again.

    Raises:
        TypeError: when decorating: not a function, a generator function or a class; an argument of a wrong kind.
    """
    watches = bool(watch_transport)
    return _decorate(fn, refreshes=True, tokens=tokens, policy=policy, bind=bind, watches=watches)


@overload
def retry_on_transient_error(
    fn: None = None,
    *,
    limiter: RateLimiter | None = None,
    policy: RetryPolicy | None = None,
    idempotent: bool | None = None,
) -> Callable[[F], F]: ...


@overload
def retry_on_transient_error(
    fn: F,
    *,
    limiter: RateLimiter | None = None,
    policy: RetryPolicy | None = None,
    idempotent: bool | None = None,
) -> F: ...


def retry_on_transient_error(
    fn: Any = None,
    *,
    limiter: RateLimiter | None = None,
    policy: RetryPolicy | None = None,
    idempotent: bool | None = None,
) -> Any:
    """
    Have each request that KIS or the network turned away for a moment wait and leave again, until a deadline.

    For calls a second past the limit (EGW00201, which KIS says within the limit too), dropped connections, time-outs,
    HTTP 5xx without KIS's verdict and "ask again"; `is_transient_response` and `is_transient_error` have the list.
    Beside `refresh_on_expired_token` it stands in either order.

    A read is repeated after any of them, an order after EGW00201 alone and where it is known never to have left, within
    `order_deadline`. A function whose requests nobody sees is itself called again after EGW00201 alone, unless the
    answer or the exception carries a request that is a read.

    Args:
        fn: the function.
        limiter: a `RateLimiter` whose slots its requests wait for; without it the first argument's `limiter`, else
            none. It paces the requests of its own account.
        policy: bounds (`transient_deadline`, `order_deadline`, in seconds); without it the first argument's `policy`,
            or `RetryPolicy.from_env()` at the first call.
        idempotent: True counts everything as a read; False forbids these repeats.

    Raises:
        TypeError: as for `refresh_on_expired_token`.
    """
    return _decorate(fn, repeats=True, limiter=limiter, policy=policy, idempotent=idempotent)


def rules_of(
    *,
    tokens: Any = None,
    policy: Any = None,
    bind: Any = None,
    limiter: Any = None,
    idempotent: Any = None,
    **other: Any,
) -> Rules:
    """Return the rules of a decorator with these arguments, which are checked here."""
    if tokens is not None and not is_source(tokens):
        raise TypeError(f"tokens= takes a TokenSource (TokenManager.from_env()), not {_shown(tokens)}")
    if policy is not None and not isinstance(policy, RetryPolicy):
        raise TypeError(f"policy= takes a RetryPolicy, not {_shown(policy)}")
    if bind is not None and (isinstance(bind, type) or not callable(bind)):
        raise TypeError(f"bind= takes a function of (token) or (self, token), not {_shown(bind)}")
    if limiter is not None and not isinstance(limiter, RateLimiter):
        raise TypeError(f"limiter= takes a RateLimiter (RateLimiter.from_env()), not {_shown(limiter)}")
    if idempotent is not None and not isinstance(idempotent, bool):
        raise TypeError(f"idempotent= takes True, False or None, not {_shown(idempotent)}")
    sources = (as_source(tokens),) if tokens is not None else ()
    return Rules(sources=sources, policy=policy, bind=bind, limiter=limiter, idempotent=idempotent, **other)


def is_decoratable(function: Any) -> bool:
    """Say whether a function can be decorated: it is called, and what it gives comes at once or is awaited."""
    if not callable(function) or isinstance(function, type):
        return False
    called = getattr(type(function), "__call__", None)  # noqa: B004  # of an object: what it runs
    return not any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (function, called))


def decorated(function: F, rules: Rules) -> F:
    """Return `function` with `rules` in force around each call; its signature, docstring and types stay."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    own = replace(rules, name=name, binding=Binding(function, rules.bind))
    wrapped = _coroutine_function if inspect.iscoroutinefunction(function) else _function
    return wrapped(function, own)  # type: ignore[return-value]  # called and awaited as `function` is


def _decorate(fn: Any, **arguments: Any) -> Any:
    rules = rules_of(**arguments)
    watch()

    def decorate(function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(decorate(function.__func__))
        if is_source(function) and not inspect.isroutine(function):
            raise TypeError(f"the decorator takes a function; a {type(function).__name__} is given as tokens=")
        if not is_decoratable(function):
            advice = "; protect() takes a class" if isinstance(function, type) else ""
            raise TypeError(f"the decorator takes a function or a coroutine function, not {_shown(function)}{advice}")
        return decorated(function, rules)

    return decorate if fn is None else decorate(fn)


def _function(function: Callable[..., Any], rules: Rules) -> Callable[..., Any]:
    begin = _Beginning(rules)

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        protection = begin(args, kwargs)
        if protection is None:
            return function(*args, **kwargs)
        if begin.takes_slots and not begin.is_awaited:
            begin.take_slot(protection)
        before = ACTIVE.set(protection)
        try:
            value = function(*args, **kwargs)
            begin.is_awaited = inspect.iscoroutine(value)
            if inspect.iscoroutine(value):
                return _awaited(value, function, protection, begin)
            begin.learn(protection)
            if protection.seen or (type(value) is dict and value.get("rt_cd") == "0"):
                return value
            returned = Returned(judge(value, protection.policy.expired_codes), value)
        except Exception as error:
            if protection.seen or is_from_signal_handler(error):
                raise
            returned = raised(error, protection)
        finally:
            ACTIVE.reset(before)
        call = FunctionCall(protection, function)
        try:
            if call.concerns(returned):
                returned = run(call.flow(returned), call.send)
            return returned.end()
        finally:
            del returned  # a circle would keep the call's arguments alive

    return protected


def _coroutine_function(function: Callable[..., Any], rules: Rules) -> Callable[..., Any]:
    begin = _Beginning(rules)

    @wraps(function)
    async def protected(*args: Any, **kwargs: Any) -> Any:
        protection = begin(args, kwargs)
        if protection is None:
            return await function(*args, **kwargs)
        return await _awaited(None, function, protection, begin)

    return protected


async def _awaited(value: Any, function: Callable[..., Any], protection: Protection, begin: _Beginning) -> Any:
    """Await what the function gave, or gives now, under its protection."""
    if begin.takes_slots:
        await begin.take_slot_async(protection)
    call = FunctionCall(protection, function)
    returned = await call.send_async(value)
    try:
        if returned.error is None:
            begin.learn(protection)
        if call.concerns(returned):
            returned = await run_async(call.flow(returned), call.send_async)
        return returned.end()
    finally:
        del returned  # as above


class _Beginning:
    """
    What is needed to begin a call: the first argument, the policy in force, and a slot.

    Attributes:
        takes_slots: no request of the last call was seen, so that the next call takes a slot itself.
        is_awaited: the last call gave a coroutine, so that the slot is waited for in that: here it would stop the loop.
    """

    def __init__(self, rules: Rules) -> None:
        self.takes_slots = self.is_awaited = False
        self._rules = rules
        self._environment: RetryPolicy | None = None

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Protection | None:
        """Return the protection of one call; None where it is to be left alone."""
        rules = self._rules
        if is_unprotected():
            return None
        first = args[0] if args else rules.binding.first(args, kwargs) if rules.binding is not None else None
        policy = rules.policy or self._policy_of(first)
        if not policy.enabled:
            return None
        watch()
        return Protection(rules, policy, first, args, kwargs, ACTIVE.get())  # type: ignore[arg-type]  # nothing else is set

    def learn(self, protection: Protection) -> None:
        """Take note of whether the requests of a call that came to its end were seen: one that raised may have none."""
        self.takes_slots = self._rules.repeats and not protection.seen

    def take_slot(self, protection: Protection) -> None:
        """Wait for the slot of a function whose requests nobody sees."""
        limiter = protection.any_limiter()
        if limiter is not None:
            limiter.acquire()

    async def take_slot_async(self, protection: Protection) -> None:
        """Wait as `take_slot` does, without stopping the event loop."""
        limiter = protection.any_limiter()
        if limiter is not None:
            await limiter.acquire_async()

    def _policy_of(self, first: Any) -> RetryPolicy:
        """Return the policy of the first argument, of the source, or of the environment."""
        if type(first) not in _PLAIN:
            for holder in (first, attribute_of(first, "tokens")):
                policy = attribute_of(holder, "policy")
                if isinstance(policy, RetryPolicy):
                    return policy
        for source in self._rules.sources:
            policy = getattr(source, "policy", None)
            if isinstance(policy, RetryPolicy):
                return policy
        if self._environment is None:
            self._environment = RetryPolicy.from_env()
        return self._environment


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    generates = inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value)
    return "a generator function" if generates else type(value).__name__
