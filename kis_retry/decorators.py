"""The two decorators; the requests inside a function are protected where they leave (`wire`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, overload

from .binding import Binding
from .calling import DecoratedFunction
from .pace.limiter import RateLimiter
from .policy import RetryPolicy
from .tokens.foreign import as_source
from .tokens.source import TokenSource, is_source
from .wire import watch
from .wire.protection import Rules

__all__ = ["decorated", "is_decoratable", "refresh_on_expired_token", "retry_on_transient_error", "rules_of"]

F = TypeVar("F", bound=Callable[..., Any])

_TAKES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tokens": (is_source, "a TokenSource (TokenManager.from_env())"),
    "policy": (lambda value: isinstance(value, RetryPolicy), "a RetryPolicy"),
    "bind": (lambda value: callable(value) and not isinstance(value, type), "a function of (token) or (self, token)"),
    "limiter": (lambda value: isinstance(value, RateLimiter), "a RateLimiter (RateLimiter.from_env())"),
    "idempotent": (lambda value: isinstance(value, bool), "True, False or None"),
}


@overload
def refresh_on_expired_token(
    fn: F,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[..., object] | None = None,
    watch_transport: bool = True,
) -> F: ...


@overload
def refresh_on_expired_token(
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[..., object] | None = None,
    watch_transport: bool = True,
) -> Callable[[F], F]: ...


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

    For functions, methods and coroutine functions; bare, with `()` or with arguments. The requests inside are protected
    where they leave (`requests`, `httpx`, `aiohttp`, `urllib.request`), in the threads that the function starts and in
    the tasks that it hands to a pool too; the function never sees the refusal. A function whose requests nobody sees is
    itself called once more. The caller always gets the function's own last value or its own last exception.

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
    options = {"tokens": tokens, "policy": policy, "bind": bind, "watches": bool(watch_transport)}
    return _decorate(fn, refreshes=True, **options)


@overload
def retry_on_transient_error(
    fn: F, *, limiter: RateLimiter | None = None, policy: RetryPolicy | None = None, idempotent: bool | None = None
) -> F: ...


@overload
def retry_on_transient_error(
    *, limiter: RateLimiter | None = None, policy: RetryPolicy | None = None, idempotent: bool | None = None
) -> Callable[[F], F]: ...


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


def rules_of(**arguments: Any) -> Rules:
    """Return the rules of a decorator with these arguments, which are checked here."""
    for name, (is_right, takes) in _TAKES.items():
        value = arguments.get(name)
        if value is not None and not is_right(value):
            raise TypeError(f"{name}= takes {takes}, not {_shown(value)}")
    tokens = arguments.pop("tokens", None)
    return Rules(sources=(as_source(tokens),) if tokens is not None else (), **arguments)


def is_decoratable(function: Any) -> bool:
    """Say whether a function can be decorated: it is called, and what it gives comes at once or is awaited."""
    if not callable(function) or isinstance(function, type):
        return False
    called = getattr(type(function), "__call__", None)  # noqa: B004  # of an object: what it runs
    return not any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (function, called))


def decorated(function: F, rules: Rules) -> F:
    """Return `function` with `rules` in force around each call; its signature, docstring and types stay."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    binding = Binding(function, rules.bind)
    begin = DecoratedFunction(function, replace(rules, name=name, binding=binding), binding).begin

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        call = begin(args, kwargs)
        return function(*args, **kwargs) if call is None else call.run()

    @wraps(function)
    async def protected_coroutine(*args: Any, **kwargs: Any) -> Any:
        call = begin(args, kwargs)
        return await (function(*args, **kwargs) if call is None else call.run_async())

    return protected_coroutine if inspect.iscoroutinefunction(function) else protected  # type: ignore[return-value]  # called and awaited as `function` is


def _decorate(fn: Any, **arguments: Any) -> Any:
    rules = rules_of(**arguments)
    watch()

    def decorate(function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(decorate(function.__func__))
        if not is_decoratable(function):
            advice = "; protect() takes a class" if isinstance(function, type) else ""
            advice = "; it is given as tokens=" if is_source(function) else advice
            raise TypeError(f"the decorator takes a function or a coroutine function, not {_shown(function)}{advice}")
        return decorated(function, rules)

    return decorate if fn is None else decorate(fn)


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    generates = inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value)
    return "a generator function" if generates else type(value).__name__
