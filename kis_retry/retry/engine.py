"""
The engine: make the call, judge what came of it, and drive tenacity where a cause says to make it again.

A call goes judgement → refresh → rebind → repeat. What needs thought is in the causes; here are two thin shells, one
for functions and one for coroutine functions, that do the waiting. A good call never reaches tenacity.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..context import CURRENT
from ..retrying import async_call_retrying, call_retrying, matched, outcome_of
from ..signals import is_from_signal_handler
from .call import ProtectedCall
from .decoration import Decoration, Options

if TYPE_CHECKING:
    from tenacity import Future, RetryCallState

    from ..cause import Cause
    from .token_expired import TokenExpired

__all__ = ["decorate", "decoration_of"]

_DECORATION = "__kis_retry_decoration__"


def decorate(function: Any, options: Options) -> Any:
    """`function` with the causes of `options` around it; the same kind of function, with the same signature."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(decorate(function.__func__, options))
    _refuse_what_cannot_be_repeated(function)
    inner = decoration_of(function)
    # What other decorators put on top of it carries the attribute too, and is to be called.
    joined = inner.options.joined_with(options) if inner is not None and inner.wrapper is function else None
    decoration = Decoration(function if inner is None or joined is None else inner.function, joined or options)
    shell = _async_shell if _is_coroutine_function(function) else _shell
    wrapper = functools.wraps(function)(shell(decoration))
    decoration.wrapper = wrapper
    setattr(wrapper, _DECORATION, decoration)
    return wrapper


def decoration_of(function: object) -> Decoration | None:
    """What a decorator put around `function`, or None where none did."""
    found = getattr(function, _DECORATION, None)
    return found if isinstance(found, Decoration) else None


def _refuse_what_cannot_be_repeated(function: Any) -> None:
    name = getattr(function, "__qualname__", repr(type(function).__name__))
    if inspect.isclass(function):
        raise TypeError(f"{name} is a class: use protect({name}) to decorate its methods")
    if any(inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code) for code in _codes_of(function)):
        raise TypeError(f"{name} is a generator function: decorate the function that makes one call of it")
    if not callable(function):
        raise TypeError(f"a decorator of kis_retry takes a function, not {type(function).__name__}")


def _is_coroutine_function(function: Any) -> bool:
    return any(inspect.iscoroutinefunction(code) for code in _codes_of(function))


def _codes_of(function: Any) -> tuple[Any, Any]:
    """`function`, and what it runs if it is an object that can be called."""
    return function, getattr(function, "__call__", None)  # noqa: B004  # its code, not whether it can be called


class _OutcomeStands(BaseException):  # no Exception, which a cause could take for a failure of the call
    """Ends tenacity's loop where the next attempt must not begin, or could not be prepared; never seen outside."""


class _Failures:
    """What became of the attempts so far: of the first, which has been made, and of the last."""

    def __init__(self, call: ProtectedCall, replay: Callable[[], Any]) -> None:
        self._call = call
        self._replay: Callable[[], Any] | None = replay
        self._last: tuple[Cause, Future] | None = None

    def take_first(self) -> Callable[[], Any] | None:
        """What the first attempt came to, once."""
        replay, self._replay = self._replay, None
        return replay

    def note(self, cause: Cause, state: RetryCallState) -> None:
        """Keep what the last attempt came to, and why it failed."""
        assert state.outcome is not None  # noqa: S101  # tenacity sets it before it asks anybody
        self._last = cause, state.outcome

    def begin_next(self) -> None:
        """Begin another attempt, unless an order of the last one has gone out since it was judged."""
        if self._call.orders:
            raise _OutcomeStands
        self._call.begin_attempt()

    def stands(self) -> Any:
        """Give the last outcome as the caller's."""
        assert self._last is not None  # noqa: S101  # noted before anything can end the loop
        return _stand(self._call, *self._last)


def _shell(decoration: Decoration) -> Callable[..., Any]:
    function = decoration.function

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = decoration.begin(args, kwargs)
        if call is None:
            return function(*args, **kwargs)
        if call.unbound is not None:
            _bind_first(call.unbound)
        CURRENT.set(call)
        try:
            if call.takes_slot_itself:
                call.take_slot_for_attempt()
            try:
                value = function(*call.args, **call.kwargs)
            except Exception as error:
                if not call.failed_with_error(error):
                    raise
                replay = _raising(error)
            else:
                if not call.failed_with_value(value):
                    return value
                replay = _returning(value)
            return _repeat(call, replay)
        finally:
            decoration.end(call)
            CURRENT.set(call.parent)

    return wrapper


def _bind_first(token: TokenExpired) -> None:
    try:
        found = token.source.token()
    except Exception as error:  # of any source
        if token.has_none() or is_from_signal_handler(error):
            raise  # there is nothing to make a first attempt with
    else:
        token.bind_first(found)


async def _bind_first_async(token: TokenExpired) -> None:
    from . import worker  # late: asyncio is a third of the import, and only coroutine functions need it

    try:
        found = await worker.token(token.source)
    except Exception as error:  # as above
        if token.has_none() or is_from_signal_handler(error):
            raise
    else:
        token.bind_first(found)


def _repeat(call: ProtectedCall, replay: Callable[[], Any]) -> Any:
    """Hand tenacity the failed outcome as its first attempt; a good call never gets here."""
    failures = _Failures(call, replay)

    def attempt() -> Any:
        first = failures.take_first()
        if first is not None:
            return first()
        if not call.take_slot_for_repeat():
            raise _OutcomeStands
        failures.begin_next()
        return call.decoration.function(*call.args, **call.kwargs)

    def prepare(state: RetryCallState) -> None:
        cause = matched(call.causes, state)
        failures.note(cause, state)
        call.begin_by = None
        if not cause.prepare(*_prospect(call, state)):
            raise _OutcomeStands

    value: Any
    try:
        value = call_retrying(call.causes, before_sleep=prepare, **_hooks(call))(attempt)
    except _OutcomeStands:
        pass
    else:
        return _recovered(call, value)
    return failures.stands()


def _async_shell(decoration: Decoration) -> Callable[..., Awaitable[Any]]:
    function = decoration.function

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = decoration.begin(args, kwargs)
        if call is None:
            return await function(*args, **kwargs)
        if call.unbound is not None:
            await _bind_first_async(call.unbound)
        CURRENT.set(call)
        try:
            if call.takes_slot_itself:
                await call.take_slot_for_attempt_async()
            try:
                value = await function(*call.args, **call.kwargs)
            except Exception as error:
                if not call.failed_with_error(error):
                    raise
                replay = _raising(error)
            else:
                if not call.failed_with_value(value):
                    return value
                replay = _returning(value)
            return await _repeat_async(call, replay)
        finally:
            decoration.end(call)
            CURRENT.set(call.parent)

    return wrapper


async def _repeat_async(call: ProtectedCall, replay: Callable[[], Any]) -> Any:
    failures = _Failures(call, replay)

    async def attempt() -> Any:
        first = failures.take_first()
        if first is not None:
            return first()
        if not await call.take_slot_for_repeat_async():
            raise _OutcomeStands
        failures.begin_next()
        return await call.decoration.function(*call.args, **call.kwargs)

    async def prepare(state: RetryCallState) -> None:
        cause = matched(call.causes, state)
        failures.note(cause, state)
        call.begin_by = None
        if not await cause.prepare_async(*_prospect(call, state)):
            raise _OutcomeStands

    value: Any
    try:
        value = await async_call_retrying(call.causes, before_sleep=prepare, **_hooks(call))(attempt)
    except _OutcomeStands:
        pass
    else:
        return _recovered(call, value)
    return failures.stands()


def _hooks(call: ProtectedCall) -> dict[str, Any]:
    def emit_failed(state: RetryCallState) -> None:
        matched(call.causes, state).emit_failed(call.code_of(*outcome_of(state)))

    return {"after": emit_failed, "retry_error_callback": functools.partial(_give_up, call)}


def _prospect(call: ProtectedCall, state: RetryCallState) -> tuple[float, str | None, BaseException | None]:
    """What a cause is told before another attempt: in how many seconds, and why."""
    value, error = outcome_of(state)
    return state.upcoming_sleep, call.code_of(value, error), error


def _recovered(call: ProtectedCall, value: Any) -> Any:
    if not call.gave_up:
        call.emit_recovered()
    return value


def _give_up(call: ProtectedCall, state: RetryCallState) -> Any:
    """Tenacity's `retry_error_callback`: the last outcome is the function's own, and stands."""
    assert state.outcome is not None  # noqa: S101  # tenacity sets it before it asks whether to stop
    return _stand(call, matched(call.causes, state), state.outcome)


def _stand(call: ProtectedCall, cause: Cause, outcome: Future) -> Any:
    error = outcome.exception()
    call.give_up(cause, None if error is not None else outcome.result(), error)
    cause.gave_up()
    return outcome.result()


def _returning(value: Any) -> Callable[[], Any]:
    return lambda: value


def _raising(error: Exception) -> Callable[[], Any]:
    def replay() -> Any:
        raise error

    return replay
