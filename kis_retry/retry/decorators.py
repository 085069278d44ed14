"""
The decorator: judge the answer, refresh the token, rebind it, repeat once.

A call goes decorator → judgement → refresh → rebind → repeat. What needs thought is in `calls`; here are two thin
shells, one for functions and one for coroutine functions, that do the waiting.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..context import CURRENT
from ..policy import RetryPolicy
from ..retrying import async_call_retrying, call_retrying
from ..token import AccessToken
from ..tokens.source import Replacement, TokenSource
from .call import ProtectedCall, Protection

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["protection_of", "refresh_on_expired_token"]

F = TypeVar("F", bound=Callable[..., Any])

_PROTECTION = "__kis_retry_protection__"


@overload
def refresh_on_expired_token(fn: F) -> F: ...


@overload
def refresh_on_expired_token(
    fn: None = None,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[[AccessToken], object] | None = None,
    watch_transport: bool = False,
) -> Callable[[F], F]: ...


@overload
def refresh_on_expired_token(
    fn: F,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[[AccessToken], object] | None = None,
    watch_transport: bool = False,
) -> F: ...


def refresh_on_expired_token(
    fn: Any = None,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[[AccessToken], object] | None = None,
    watch_transport: bool = False,
) -> Any:
    """
    Have a function that KIS refuses for its expired token refresh the token and run once more.

    For functions, methods and coroutine functions that call KIS and hand back its answer (a `dict`, a response, or an
    exception that carries one). Bare, with `()` or with arguments. What the caller gets is always the function's own
    last value or its own last exception.

    Args:
        fn: the function.
        tokens: where a new token comes from; without it the first argument's `tokens`, or a first argument with
            `access_token` and `issue_access_token`.
        policy: bounds; without it the first argument's or the source's `policy`, or `RetryPolicy.from_env()` at the
            first call.
        bind: is given the new `AccessToken` and puts it where the code keeps it. Without it: a parameter `headers`,
            `authorization`, `access_token` or `token`, else the first argument's attribute `access_token`, else the
            function is taken to ask its source by itself.
        watch_transport: count the call as refused if the last API answer that `requests` or `httpx` received inside it
            was a refusal, whatever the function made of it. For code that swallows answers.

    Raises:
        TypeError: when decorating: not a function, a generator function or a class. When calling: no source found.
        TokenIssueError: when calling, if there is no token at all to make a first attempt with.
    """
    options = {"tokens": tokens, "policy": policy, "bind": bind, "watch_transport": watch_transport}
    if fn is None:
        return lambda function: _decorate(function, **options)
    return _decorate(fn, **options)


def protection_of(function: object) -> Protection | None:
    """What the decorator put around `function`, or None where it did not."""
    found = getattr(function, _PROTECTION, None)
    return found if isinstance(found, Protection) else None


def _decorate(function: Any, **options: Any) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_decorate(function.__func__, **options))
    _refuse_what_cannot_be_repeated(function)
    protection = Protection(function, **options)
    shell = _async_shell if _is_coroutine_function(function) else _shell
    wrapper = functools.wraps(function)(shell(protection))
    setattr(wrapper, _PROTECTION, protection)
    return wrapper


def _refuse_what_cannot_be_repeated(function: Any) -> None:
    name = getattr(function, "__qualname__", repr(type(function).__name__))
    if inspect.isclass(function):
        raise TypeError(f"{name} is a class: use protect({name}) to decorate its methods")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is a generator function: decorate the function that makes one call of it")
    if not callable(function):
        raise TypeError(f"refresh_on_expired_token takes a function, not {type(function).__name__}")


def _is_coroutine_function(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004  # an object with an async __call__ is one too
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


class _Unhelped(Exception):  # noqa: N818  # never seen outside: it carries tenacity's state out of its loop
    def __init__(self, state: RetryCallState) -> None:
        super().__init__()
        self.state = state


def _shell(protection: Protection) -> Callable[..., Any]:
    function = protection.function

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = protection.begin(args, kwargs)
        if call is None:
            return function(*args, **kwargs)
        if call.lacks_token():
            try:
                call.settle(call.source.token())
            except Exception:  # of any source
                if call.used is None:  # there is nothing to make a first attempt with
                    raise
        CURRENT.set(call)
        try:
            try:
                value = function(*call.args, **call.kwargs)
            except Exception as error:
                if not call.refused_error(error):
                    raise
                replay = _raising(error)
            else:
                if not call.refused(value):
                    return value
                replay = _returning(value)
            return _repeat(call, replay)
        finally:
            CURRENT.set(call.parent)

    return wrapper


def _repeat(call: ProtectedCall, replay: Callable[[], Any]) -> Any:
    """Hand tenacity the refused outcome as its first attempt; a good call never gets here."""

    def attempt() -> Any:
        return replay() if call.attempt == 1 else call.protection.function(*call.args, **call.kwargs)

    def refresh(state: RetryCallState) -> None:
        began, rejected = time.monotonic(), call.rejected()
        try:
            token = call.replacement(rejected)
            replacement = Replacement(token, "memory") if token is not None else call.source.replace(rejected)
            call.prepare_next(replacement, rejected, began)
        except Exception as error:  # of any source, or of the user's bind=: KIS's own answer is the better one
            call.say_failed(error, began)
            raise _Unhelped(state) from None

    value: Any
    try:
        value = call_retrying(**_options(call), before_sleep=refresh)(attempt)
    except _Unhelped as unhelped:
        state = unhelped.state
    else:
        return call.recovered(value)
    return call.give_up(state)


def _async_shell(protection: Protection) -> Callable[..., Awaitable[Any]]:
    from . import worker as offloop  # late: asyncio is a third of the import, and only coroutine functions need it

    function = protection.function

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = protection.begin(args, kwargs)
        if call is None:
            return await function(*args, **kwargs)
        if call.lacks_token():
            try:
                call.settle(await offloop.token(call.source))
            except Exception:  # as above
                if call.used is None:
                    raise
        CURRENT.set(call)
        try:
            try:
                value = await function(*call.args, **call.kwargs)
            except Exception as error:
                if not call.refused_error(error):
                    raise
                replay = _raising(error)
            else:
                if not call.refused(value):
                    return value
                replay = _returning(value)
            return await _repeat_async(call, replay)
        finally:
            CURRENT.set(call.parent)

    return wrapper


async def _repeat_async(call: ProtectedCall, replay: Callable[[], Any]) -> Any:
    from . import worker as offloop

    async def attempt() -> Any:
        return replay() if call.attempt == 1 else await call.protection.function(*call.args, **call.kwargs)

    async def refresh(state: RetryCallState) -> None:
        began, rejected = time.monotonic(), call.rejected()
        try:
            token = call.replacement(rejected)
            replacement = (
                Replacement(token, "memory") if token is not None else await offloop.replace(call.source, rejected)
            )
            call.prepare_next(replacement, rejected, began)
        except Exception as error:  # as above
            call.say_failed(error, began)
            raise _Unhelped(state) from None

    value: Any
    try:
        value = await async_call_retrying(**_options(call), before_sleep=refresh)(attempt)
    except _Unhelped as unhelped:
        state = unhelped.state
    else:
        return call.recovered(value)
    return call.give_up(state)


def _options(call: ProtectedCall) -> dict[str, Any]:
    return {
        "policy": call.policy,
        "refused": call.refused,
        "refused_error": call.refused_error,
        "stop": call.stop,
        "after": call.say_expired,
        "retry_error_callback": call.give_up,
    }


def _returning(value: Any) -> Callable[[], Any]:
    return lambda: value


def _raising(error: Exception) -> Callable[[], Any]:
    def replay() -> Any:
        raise error

    return replay
