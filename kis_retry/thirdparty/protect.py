"""
Decorating what others wrote: `protect` a class, an object or a module in place, `unprotect` it again.

What stood in a target before is kept in the target itself, so that it goes when the target goes.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from ..policy import RetryPolicy
from ..retry import patches
from ..retry.call import Pace
from ..retry.decoration import Options
from ..retry.engine import decorate, decoration_of
from ..tokens.source import TokenSource, as_source
from .reissue import ISSUE, shared_reissue

__all__ = ["protect", "unprotect"]

T = TypeVar("T")

_KEPT = "__kis_retry_kept__"
_ABSENT: Any = object()
_SHOWN = 8  # names in a message


def protect(
    target: T,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[..., object] | None = None,
    limiter: Pace | None = None,
    methods: str | Iterable[str] = "fetch_*",
    watch_transport: bool = True,
) -> T:
    """
    Put both decorators on the matching methods of someone else's class, object or module, in place.

    For the library you already have. Doing it twice is doing it once, other methods may follow in a second call;
    `unprotect` leaves the target as it was.

    With `tokens`, the target's own `issue_access_token` is shared there too: inside a protected call it gives a token
    in place of the one that the call started with, so a library that refreshes by itself joins the one refresh instead
    of every thread requesting a token.

    Args:
        target: a class (all its objects, present and future), an object (it alone) or a module.
        tokens: as for the decorator; without it, a broker's own `issue_access_token` is used.
        policy: as for the decorator.
        bind: as for the decorator.
        limiter: a `RateLimiter` whose slots the requests of these methods wait for; without it, none.
        methods: a pattern (`*`, `?`, `[…]`) or names and patterns. Inherited, class and static methods count; a pattern
            passes over what cannot be repeated (generators) and what is no call of KIS (`__init__` and its like).
        watch_transport: as for the decorator.

    Returns:
        The target.

    Raises:
        ValueError: nothing in the target matches; the message says what was looked for.
        TypeError: a method named outright cannot be protected, or the target cannot be changed.
    """
    options = Options(
        refreshes=True,
        repeats=True,
        tokens=tokens,
        policy=policy,
        bind=bind,
        limiter=limiter,
        watch_transport=watch_transport,
    )
    found = _matching(target, [methods] if isinstance(methods, str) else list(methods))
    before = _namespace(target).get(_KEPT) or _Kept()
    kept = _Kept()
    try:
        for name, member in found.items():
            ours = _decorated(target, name, member, options)
            kept.watchers += 1
            kept.replace(target, name, ours)
        shared = shared_reissue(target, as_source(tokens), policy) if tokens is not None else None
        if shared is not None and ISSUE not in before.replaced:
            kept.replace(target, ISSUE, shared)
        setattr(target, _KEPT, before.joined(kept))
    except BaseException:
        kept.undo(target)
        raise
    return target


def unprotect(target: T) -> T:
    """
    Undo `protect`; a target that is not protected is left alone.

    Returns:
        The target.
    """
    kept = _namespace(target).get(_KEPT)
    if kept is None:
        return target
    kept.undo(target)
    delattr(target, _KEPT)
    return target


class _Kept:
    """What stood in a target before, and what stands there now."""

    def __init__(self) -> None:
        self.replaced: dict[str, tuple[Any, Any]] = {}
        self.watchers = 0

    def replace(self, target: Any, name: str, ours: Any) -> None:
        before = _namespace(target).get(name, _ABSENT)
        try:
            setattr(target, name, ours)
            self.replaced[name] = before, _namespace(target)[name]
        except (AttributeError, KeyError, TypeError) as error:
            raise TypeError(f"{_name_of(target)} does not let its methods be replaced: {error}") from error

    def joined(self, later: _Kept) -> _Kept:
        self.replaced.update(later.replaced)
        self.watchers += later.watchers
        return self

    def undo(self, target: Any) -> None:
        for name, (before, ours) in self.replaced.items():
            if _namespace(target).get(name) is not ours:
                continue  # somebody replaced it since: that is theirs
            if before is _ABSENT:
                delattr(target, name)
            else:
                setattr(target, name, before)
        for _ in range(self.watchers):
            patches.unwatch()


def _namespace(target: Any) -> Any:
    try:
        return vars(target)
    except TypeError:
        raise TypeError(
            f"a {type(target).__name__} takes no attributes, so its methods cannot be replaced: protect its class"
        ) from None


def _matching(target: Any, wanted: list[str]) -> dict[str, Any]:
    """The members to decorate, by name, as they stand (unbound, with their staticmethod or classmethod)."""
    members = {name: inspect.getattr_static(target, name, None) for name in dir(target)}
    found: dict[str, Any] = {}
    for pattern in wanted:
        named = pattern in members
        matching = [pattern] if named else [name for name in members if fnmatchcase(name, pattern)]
        usable = [name for name in matching if named or _can_be_decorated(name, members[name])]
        if not usable:
            raise ValueError(
                f"nothing in {_name_of(target)} matches methods={pattern!r}; it has {_methods_of(members)}"
            )
        found.update((name, members[name]) for name in usable if decoration_of(_function_of(members[name])) is None)
    return found


def _methods_of(members: dict[str, Any]) -> str:
    """What somebody may have meant, in a line."""
    names = [name for name in members if not name.startswith("_") and _can_be_decorated(name, members[name])]
    shown = ", ".join(names[:_SHOWN]) or "no methods of its own"
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _function_of(member: Any) -> Any:
    return member.__func__ if isinstance(member, (staticmethod, classmethod, types.MethodType)) else member


def _can_be_decorated(name: str, member: Any) -> bool:
    """What a pattern may mean: not how objects are made and compared, nor what a refresh itself has to call."""
    function = _function_of(member)
    generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    return inspect.isroutine(function) and not generates and not name.startswith("__") and name != ISSUE


def _decorated(target: Any, name: str, member: Any, options: Options) -> Any:
    """The member with the decorator on its function; on an object, bound to what it would be bound to."""
    if name == ISSUE:
        raise TypeError(f"{ISSUE} is what a refresh calls: give tokens= and it is shared there")
    if isinstance(member, types.MethodType):  # bound already
        return types.MethodType(decorate(member.__func__, options), member.__self__)
    decorated = decorate(member, options)
    if isinstance(target, (type, types.ModuleType)) or name in _namespace(target):
        return decorated
    return decorated.__get__(target, type(target))


def _name_of(target: Any) -> str:
    return getattr(target, "__qualname__", None) or getattr(target, "__name__", None) or f"a {type(target).__name__}"
