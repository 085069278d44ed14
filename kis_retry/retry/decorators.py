"""The two decorators: `refresh_on_expired_token` and `retry_on_transient_error`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..policy import RetryPolicy
from ..tokens.source import TokenSource
from .decoration import Options
from .engine import decorate

if TYPE_CHECKING:
    from .call import Pace

__all__ = ["refresh_on_expired_token", "retry_on_transient_error"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def refresh_on_expired_token(fn: F) -> F: ...


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
    Have a function that KIS refuses for its expired token refresh the token and run once more.

    For functions, methods and coroutine functions that call KIS. Bare, with `()` or with arguments. What the caller
    gets is always the function's own last value or its own last exception.

    Wherever the function keeps its token: a request of `requests`, `httpx` or `aiohttp` that is about to leave with a
    token that is known to be dead leaves with the current one, if it goes to the source's host with the source's app
    key. A call in which an order went out that was not itself refused is never repeated.

    Args:
        fn: the function.
        tokens: where a new token comes from; without it the first argument's `tokens`, or a first argument with
            `access_token` and `issue_access_token`.
        policy: bounds; without it the first argument's or the source's `policy`, or `RetryPolicy.from_env()` at the
            first call.
        bind: puts a new `AccessToken` where the code keeps it: a function of `(token)` or, on methods,
            `(self, token)`, called by one thread at a time and once for each token. For what cannot be seen on the
            wire. Without it: a parameter `headers`, `authorization`, `access_token` or `token`, else the first
            argument's attribute `access_token`.
        watch_transport: count the call as refused too if `requests`, `httpx` or `aiohttp` received a refusal inside it
            and the same request was not made again and answered, whatever the function made of it.

    Raises:
        TypeError: when decorating: not a function, a generator function or a class. When calling: no source found.
        TokenIssueError: when calling, if there is no token at all to make a first attempt with.
    """
    options = Options(refreshes=True, tokens=tokens, policy=policy, bind=bind, watch_transport=watch_transport)
    return _decorator(fn, options)


@overload
def retry_on_transient_error(fn: F) -> F: ...


@overload
def retry_on_transient_error(
    fn: None = None,
    *,
    limiter: Pace | None = None,
    policy: RetryPolicy | None = None,
    idempotent: bool | None = None,
) -> Callable[[F], F]: ...


@overload
def retry_on_transient_error(
    fn: F,
    *,
    limiter: Pace | None = None,
    policy: RetryPolicy | None = None,
    idempotent: bool | None = None,
) -> F: ...


def retry_on_transient_error(
    fn: Any = None,
    *,
    limiter: Pace | None = None,
    policy: RetryPolicy | None = None,
    idempotent: bool | None = None,
) -> Any:
    """
    Have a function that KIS or the network turned away for a moment wait and run again, until a deadline.

    For calls a second past the limit (EGW00201, which KIS says within the limit too), dropped connections, time-outs,
    HTTP 5xx without KIS's verdict and "ask again"; `is_transient_response` and `is_transient_error` have the list.
    Beside `refresh_on_expired_token` it stands in either order. At the deadline the caller gets the function's own
    last value or its own last exception.

    A read is repeated, an order after EGW00201 alone and only if that answered the order itself. Which of the two a
    call is, is known from its requests where `requests`, `httpx` or `aiohttp` sends them, or from the request that
    the answer or the exception carries.

    Args:
        fn: the function.
        limiter: a `RateLimiter` whose slots its requests wait for; without it the first argument's `limiter`, else
            none.
        policy: bounds (`transient_deadline`, in seconds); without it the first argument's `policy`, or
            `RetryPolicy.from_env()` at the first call.
        idempotent: True says that it may be repeated where nothing can be seen of its requests; False forbids it.

    Raises:
        TypeError: when decorating: not a function, a generator function or a class.
    """
    options = Options(repeats=True, limiter=limiter, policy=policy, idempotent=idempotent)
    return _decorator(fn, options)


def _decorator(fn: Any, options: Options) -> Any:
    if fn is None:
        return lambda function: decorate(function, options)
    return decorate(fn, options)
