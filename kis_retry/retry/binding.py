"""
Where a call keeps its token, and putting a new one there. Pure: no clock, no I/O, no source.

In this order: `bind=`; an argument named `headers`; an argument named `authorization`, `access_token` or `token`; an
attribute `access_token` of the first argument; else the function asks its source by itself. The token goes back in
the form in which it was found, and nothing else of the arguments changes.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache, partial
from typing import Any, Protocol

from ..forking import after_fork
from ..token import AccessToken, bare

__all__ = ["Arguments", "Binding", "CallbackLocation", "NoLocation", "TokenLocation", "binding_of", "in_form_of"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_TOKEN_NAMES = ("authorization", "access_token", "token")
_MISSING = object()
_MOST_OWNERS = 4096  # objects whose methods one decoration remembers; the oldest is bound once more


class TokenLocation(Protocol):
    """One way of keeping a token; the same object serves every call of a function."""

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """What is there, as found, which may be empty still; None where this call has no such place."""
        ...

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        """Put `token` there; gives the arguments to go on with."""
        ...


class NoLocation:
    """Nowhere: the function asks its source by itself at every call."""

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:  # one signature for all
        return ""

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:  # as above
        return args, kwargs


class CallbackLocation(NoLocation):
    """
    `bind=`: the user's own function puts it there, and nobody can look.

    It is called by one thread at a time, and once for a token and an object: what it does may not be safe for more.
    """

    def __init__(self, bind: Callable[..., object]) -> None:
        self._bind = bind
        self._takes_self = _takes_two(bind)
        self._bound: dict[int, tuple[Any, str]] = {}  # by the object's id, which the first entry tells to be its own
        self._remake_lock()
        # In a forked child the thread that was in `bind` does not exist, and would never release it.
        after_fork(self, CallbackLocation._remake_lock)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        return self._bound_to(args[0] if self._takes_self and args else None) or ""

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        owner = args[0] if self._takes_self and args else None
        with self._binding:
            if self._bound_to(owner) != token.value:
                if self._takes_self:
                    self._bind(owner, token)
                else:
                    self._bind(token)
                self._note(owner, token)
        return args, kwargs

    def _remake_lock(self) -> None:
        self._binding = threading.RLock()  # guards _bound, and is held while `bind` runs

    def _bound_to(self, owner: Any) -> str | None:
        """The token that was bound last, for one object."""
        reference, value = self._bound.get(id(owner), (None, None))
        return value if reference is not None and reference() is owner else None

    def _note(self, owner: Any, token: AccessToken) -> None:
        try:
            reference: Callable[[], Any] = weakref.ref(owner, partial(_drop, self._bound, id(owner)))
        except TypeError:  # None, or a class with __slots__: it is kept, since nothing tells when it goes
            reference = partial(_itself, owner)
        self._bound[id(owner)] = reference, token.value
        while len(self._bound) > _MOST_OWNERS:
            self._bound.pop(next(iter(self._bound)), None)


class _Argument:
    """Finds an argument by name, whether given by keyword, by position or left to its default, and relocations it."""

    def __init__(self, name: str, index: int | None, default: Any, before: tuple[Any, ...] | None = None) -> None:
        self.name = name
        self.index = index
        self.default = default
        self._before = before  # defaults of the arguments in front of one that can be given by position alone

    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.name in kwargs:
            return kwargs[self.name]
        if self.index is not None and self.index < len(args):
            return args[self.index]
        return self.default

    def put(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> Arguments:
        if self.index is not None and self.index < len(args) and self.name not in kwargs:
            return (*args[: self.index], value, *args[self.index + 1 :]), kwargs
        if self._before is not None:
            return (*args, *self._before[len(args) :], value), kwargs
        return args, {**kwargs, self.name: value}


class _Headers:
    """The `authorization` entry of a mapping of headers, whatever its case: in the caller's own mapping."""

    def __init__(self, argument: _Argument) -> None:
        self._argument = argument

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        headers = self._argument.get(args, kwargs)
        if type(headers) is not dict and not isinstance(headers, Mapping):
            return None
        value = headers.get("authorization")
        if value is None:
            value = next((headers[key] for key in _authorization_keys(headers)), None)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        return value if isinstance(value, str) else ""

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        headers = self._argument.get(args, kwargs)
        changes: dict[Any, Any] = {
            key: token.bearer.encode() if isinstance(headers[key], bytes) else token.bearer
            for key in _authorization_keys(headers)
        }
        changes = changes or {"authorization": token.bearer}
        if isinstance(headers, MutableMapping):
            for key, value in changes.items():
                headers[key] = value
            return args, kwargs
        return self._argument.put(args, kwargs, {**headers, **changes})


class _Value:
    """An argument that is the token: a text with or without "Bearer ", or an `AccessToken`."""

    def __init__(self, argument: _Argument) -> None:
        self._argument = argument

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        return _as_text(self._argument.get(args, kwargs)) or None

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        return self._argument.put(args, kwargs, in_form_of(self._argument.get(args, kwargs), token))


class _Attribute:
    """`access_token` of the first argument, as the brokers of other libraries have it."""

    def __init__(self, first: _Argument) -> None:
        self._first = first

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        first = args[0] if args else self._first.get(args, kwargs)
        return _kept_by(first)

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        first = self._first.get(args, kwargs)
        first.access_token = in_form_of(first.access_token, token)
        return args, kwargs


class Binding:
    """What can be known of a function's locations before it is called."""

    def __init__(self, locations: tuple[TokenLocation, ...], first: _Argument | None) -> None:
        self._locations = locations
        self._first = first

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[TokenLocation, str]:
        """The first place that this call has, and what is there."""
        for location in self._locations:
            found = location.read(args, kwargs)
            if found is not None:
                return location, found
        return _NOWHERE, ""

    def first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The first argument, or None."""
        if args:
            return args[0]
        return self._first.get(args, kwargs) if self._first is not None else None


_NOWHERE = NoLocation()


def binding_of(function: Callable[..., object], bind: Callable[..., object] | None) -> Binding:
    """Read a function's signature once, when it is decorated."""
    arguments, first, open_ended = _arguments_of(function)
    if bind is not None:
        return Binding((CallbackLocation(bind),), first)
    locations: list[TokenLocation] = []
    if "headers" in arguments or open_ended:
        locations.append(_Headers(arguments.get("headers") or _Argument("headers", None, None)))
    locations += [
        _Value(arguments.get(name) or _Argument(name, None, None))
        for name in _TOKEN_NAMES
        if name in arguments or open_ended
    ]
    if first is not None:
        locations.append(_Attribute(first))
    return Binding(tuple(locations), first)


def in_form_of(found: Any, token: AccessToken) -> Any:
    """`token` in the form of what was found: an `AccessToken`, a bare value, or "Bearer …" as an empty place gets."""
    if isinstance(found, AccessToken):
        return token
    if isinstance(found, str) and found.strip():
        value = bare(found)
        head, _, tail = found.rpartition(value) if value else (found, "", "")
        return f"{head}{token.value}{tail}"
    return token.bearer


def _arguments_of(function: Callable[..., object]) -> tuple[dict[str, _Argument], _Argument | None, bool]:
    """The named arguments, the first of them, and whether others may come by keyword."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in without a signature
        return {}, _Argument("", 0, None), True
    arguments: dict[str, _Argument] = {}
    first: _Argument | None = None
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        positional = parameter.kind is not parameter.KEYWORD_ONLY
        default = None if parameter.default is parameter.empty else parameter.default
        before = tuple(p.default for p in parameters[:index]) if parameter.kind is parameter.POSITIONAL_ONLY else None
        argument = _Argument(parameter.name, index if positional else None, default, before)
        first = first or argument
        if parameter.kind is not parameter.VAR_POSITIONAL:
            arguments[parameter.name] = argument
    return arguments, first, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _authorization_keys(headers: Mapping[Any, Any]) -> list[Any]:
    return [key for key in headers if _is_authorization(key)]


def _is_authorization(key: Any) -> bool:
    if isinstance(key, bytes):
        return key.lower() == b"authorization"
    return isinstance(key, str) and key.lower() == "authorization"


def _as_text(value: Any) -> str:
    if isinstance(value, AccessToken):
        return value.bearer
    return value if isinstance(value, str) and _holds_token(value) else ""


def _holds_token(text: str) -> bool:
    """Whether there is more than "Bearer ", which ends in white space: a text that does not is never taken apart."""
    return bool(text) and (not text[-1].isspace() or bool(bare(text)))


def _kept_by(first: Any) -> str | None:
    """What `access_token` holds, if it can be set; a property without a setter is a view on a source."""
    view = _property_of(type(first))  # type: ignore[arg-type]  # a class can be hashed, though mypy asks its instances
    if view is not None:
        return _as_text(first.access_token) if view.fset is not None else None
    value = getattr(first, "access_token", _MISSING)
    return _as_text(value) if value is None or isinstance(value, (str, AccessToken)) else None


@lru_cache(maxsize=64)
def _property_of(cls: type) -> property | None:
    """Kept, since a class is slow to say that it lacks an attribute, and every call of a method asks."""
    found = getattr(cls, "access_token", None)
    return found if isinstance(found, property) else None


def _takes_two(bind: Callable[..., object]) -> bool:
    """Whether `bind=` is a function of `(self, token)`, by the arguments that it cannot do without."""
    try:
        parameters = inspect.signature(bind).parameters.values()
    except (TypeError, ValueError):  # a built-in without a signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) == 2


def _drop(bound: dict[int, Any], key: int, _reference: object) -> None:
    bound.pop(key, None)


def _itself(value: Any) -> Any:
    return value
