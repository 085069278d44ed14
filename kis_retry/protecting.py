"""Protect what others wrote: `protect` a class, an object or a module in place, `install` for the whole process."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial, wraps
from typing import Any, TypeVar

from .decorators import decorated, is_decoratable, rules_of
from .pace.limiter import RATE_TAKES, RateLimiter, checked_rate, parse_rate
from .policy import RetryPolicy
from .settings import Environment
from .stores.entry import store_from_env
from .tokens.source import LiveSource, TokenSource
from .wire import watch
from .wire.account import credentials_of
from .wire.protection import Protection, Rules, protect_process
from .wire.request import KisRequest

__all__ = ["install", "protect", "uninstall", "unprotect"]

T = TypeVar("T")

_KEPT = "__kis_retry_kept__"  # what stood in a class or a module before, by name
_ORIGINAL = "__kis_retry_original__"  # the function behind one that stands in its place
_OBJECT = "__kis_retry_object__"  # in the class that stands in an object's class's place: that, its methods, the calls
_ABSENT: Any = object()


def protect(
    target: T,
    *,
    tokens: TokenSource | None = None,
    policy: RetryPolicy | None = None,
    bind: Callable[..., object] | None = None,
    limiter: RateLimiter | None = None,
    methods: str | Iterable[str] | None = None,
    watch_transport: bool = True,
) -> T:
    """
    Put both decorators on the methods of someone else's class, object or module, in place.

    For the library you already have. Doing it twice is doing it once, with the later arguments in force; `unprotect`
    leaves the target as it was. A protected object pickles and copies as itself: a copy is protected and acts for
    itself.

    Args:
        target: a class (all its objects, present and future), an object (it alone) or a module.
        tokens: as for the decorator; it may be left out, since the requests carry their account.
        policy: as for the decorator.
        bind: as for the decorator.
        limiter: a `RateLimiter` whose slots the requests of these methods wait for; without it, none.
        methods: a pattern (`*`, `?`, `[…]`), or names and patterns; by default every public method that can be
            repeated. What sends nothing to KIS is not affected. A method that is named here, and whose requests nobody
            sees, is itself called again; by default none is.
        watch_transport: as for the decorator.

    Returns:
        The target.

    Raises:
        ValueError: nothing in the target matches; the message says what was looked for.
        TypeError: a method named outright cannot be protected, or the target cannot be changed.
    """
    arguments: dict[str, Any] = {"tokens": tokens, "policy": policy, "bind": bind, "limiter": limiter}
    methods = (methods,) if isinstance(methods, str) else methods and tuple(methods)
    again = partial(protect, **arguments, methods=methods, watch_transport=watch_transport)
    rules = rules_of(
        **arguments, refreshes=True, repeats=True, calls_again=methods is not None, watches=bool(watch_transport)
    )
    watch()
    ours = {name: _around(member, rules) for name, member in _matching(target, methods).items()}
    delegate = inspect.getattr_static(target, "__getattr__", None)
    if methods is None and inspect.isfunction(delegate) and not isinstance(target, types.ModuleType):
        ours["__getattr__"] = _delegating(delegate, rules)
    if not ours:
        raise ValueError(f"nothing in {_name_of(target)} can be protected: it has no public methods; give its classes")
    is_shared = isinstance(target, (type, types.ModuleType))
    held = {name for name in ours if is_shared or name in getattr(target, "__dict__", {})}
    if len(held) < len(ours):
        _with_class(target, {name: member for name, member in ours.items() if name not in held}, again)
    if held:
        _replace(target, {name: ours[name] for name in held})
    return target


def unprotect(target: T) -> T:
    """Undo `protect`, and return the target; one that is not protected is left alone."""
    own = vars(type(target)).get(_OBJECT)
    if own is not None:
        object.__setattr__(target, "__class__", own[0])
    kept = getattr(target, "__dict__", {}).get(_KEPT)
    if kept is None:
        return target
    for name, (before, ours) in kept.items():
        if vars(target).get(name) is not ours:
            continue  # somebody replaced it since: that is theirs
        if before is _ABSENT:
            delattr(target, name)
        else:
            setattr(target, name, before)
    delattr(target, _KEPT)
    return target


def install(
    *,
    tokens: TokenSource | Iterable[TokenSource] | None = None,
    policy: RetryPolicy | None = None,
    rate: float | None = None,
) -> None:
    """
    Protect and pace every request to KIS of this process, whatever makes it, on every thread.

    Both rules count for each request, as if each were made in a function with both decorators. A second call puts the
    later arguments in force; `uninstall` ends it.

    Args:
        tokens: a `TokenSource` or several, for accounts that are not to be learned from their requests.
        policy: bounds; without one, `RetryPolicy.from_env()`.
        rate: calls a second for each app key, 0.1 to 1,000, or 0 for no pace; without one, what `KIS_RATE_LIMIT` sets,
            else 18, on paper 1.

    Raises:
        ConfigurationError: a variable or an argument cannot be used; the message names it.
        TypeError: an argument is of a wrong kind; the message names it.
    """
    several = tokens if isinstance(tokens, Iterable) and not isinstance(tokens, type) else [tokens]
    sources = tuple(source for each in several for source in rules_of(tokens=each).sources)
    rules = replace(rules_of(refreshes=True, repeats=True, policy=policy, limiter_of=_limiters(rate)), sources=sources)
    bounds = policy or RetryPolicy.from_env()
    protect_process(Protection(rules, bounds) if bounds.enabled else None)
    watch()


def uninstall() -> None:
    """End what `install` began; requests that are under way end as they began."""
    protect_process(None)


def _limiters(rate: float | None) -> Callable[[KisRequest, LiveSource | None], RateLimiter | None]:
    """Return what gives the pace of each account of a process; None where nobody can tell whose a request is."""
    rate = None if rate is None else checked_rate(rate)
    made: dict[tuple[str, str | None], RateLimiter] = {}
    Environment().read(parse_rate, RATE_TAKES, "KIS_RATE_LIMIT")  # a bad value is told now

    def limiter_of(request: KisRequest, source: LiveSource | None) -> RateLimiter | None:
        account = request.base_url, request.app_key
        if account not in made:
            credentials = credentials_of(request, source)
            if credentials is None:
                return None
            limiter = RateLimiter(credentials, rate=rate, store=getattr(source, "store", None) or store_from_env())
            made.setdefault(account, limiter)  # atomic: of threads that come here together all take one
        return made[account]

    return limiter_of


def _around(member: Any, rules: Rules) -> Any:
    if isinstance(member, (staticmethod, classmethod)):
        return type(member)(_around(member.__func__, rules))
    if isinstance(member, types.MethodType):
        return types.MethodType(_around(member.__func__, rules), member.__self__)
    return _in_place_of(member, lambda original: decorated(original, rules))


def _delegating(delegate: Any, rules: Rules) -> Any:
    """Return a `__getattr__` that puts the rules around the methods of others that it hands on."""

    def around(original: Any) -> Any:
        @wraps(original)
        def ours(target: Any, name: str) -> Any:
            found = original(target, name)
            is_method = not name.startswith("_") and isinstance(found, types.MethodType) and _can_be_repeated(found)
            return _around(found, rules) if is_method else found

        return ours

    return _in_place_of(delegate, around)


def _in_place_of(function: Any, around: Callable[[Any], Any]) -> Any:
    """Put ours around a function, or around the original of one of ours; not of somebody's that wraps one of ours."""
    marked, original = getattr(function, _ORIGINAL, (None, None))
    original = original if marked == id(function) else function
    ours = around(original)
    setattr(ours, _ORIGINAL, (id(ours), original))
    return ours


def _replace(target: Any, members: dict[str, Any]) -> None:
    kept: dict[str, tuple[Any, Any]] = dict(vars(target).get(_KEPT, {}))
    for name, ours in members.items():
        before = kept[name][0] if name in kept else vars(target).get(name, _ABSENT)
        try:
            setattr(target, name, ours)
        except (AttributeError, TypeError) as error:
            raise TypeError(f"{_name_of(target)} does not let its methods be replaced: {error}") from None
        kept[name] = before, vars(target)[name]
    setattr(target, _KEPT, kept)


def _with_class(target: Any, members: dict[str, Any], again: Callable[[Any], Any]) -> None:
    """Give one object a class of its own, which differs in its methods alone."""
    original, before, calls = vars(type(target)).get(_OBJECT, (type(target), {}, ()))
    members = {**before, **members}
    space = {**members, **{name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")}}
    space.update({"__slots__": (), "__reduce_ex__": _reduced, _OBJECT: (original, members, (*calls, again))})
    try:
        object.__setattr__(target, "__class__", type(original.__name__, (original,), space))
    except Exception:  # of an enum, of a builtin, of what its base class asks of subclasses
        raise TypeError(f"a {original.__name__} does not let its methods be replaced: protect its class") from None


def _reduced(target: Any, protocol: Any) -> tuple[Any, ...]:
    """Pickle or copy an object as its own class does, and have the copy protected again, with the same arguments."""
    original, _, calls = getattr(target, _OBJECT)
    make, args, *state = original.__reduce_ex__(target, protocol)
    make, *args = (original if each is type(target) else each for each in (make, *args))
    return partial(_remade, calls, make), tuple(args), *state


def _remade(calls: tuple[Callable[[Any], Any], ...], make: Callable[..., Any], *args: Any) -> Any:
    target = make(*args)
    for again in calls:
        again(target)
    return target


def _matching(target: Any, methods: Iterable[str] | None) -> dict[str, Any]:
    """Return the members to decorate, by name, as they stand (unbound, with their staticmethod or classmethod)."""
    members = {name: inspect.getattr_static(target, name, None) for name in dir(target)}
    able = {name: member for name, member in members.items() if _can_be_repeated(member)}
    public = {name: member for name, member in able.items() if not name.startswith("_")}
    found = public if methods is None else {}
    for pattern in methods or ():
        if pattern in members and pattern not in able:
            raise TypeError(f"{pattern} of {_name_of(target)} cannot be protected: it is no method to be repeated")
        names = [name for name in able if fnmatchcase(name, pattern) and (name == pattern or name[:2] != "__")]
        if not names:
            has = ", ".join(public) or "no methods of its own"
            raise ValueError(f"nothing in {_name_of(target)} matches methods={pattern!r}; it has {has}")
        found.update((name, able[name]) for name in names)
    return found


def _can_be_repeated(member: Any) -> bool:
    """Say whether a member is a function that is called, and no generator, class, property or `partialmethod`."""
    bound = isinstance(member, (staticmethod, classmethod, types.MethodType))
    function = member.__func__ if bound else member
    return inspect.isroutine(function) and not inspect.isbuiltin(function) and is_decoratable(function)


def _name_of(target: Any) -> str:
    return getattr(target, "__qualname__", None) or getattr(target, "__name__", None) or f"a {type(target).__name__}"
