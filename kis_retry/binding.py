"""
Where a function keeps its token, and putting a new one there. Pure: no clock, no I/O, no source.

A place is written only where it holds the dead token, or none: never over a token that is somebody else's. The new one
goes in in the form in which the other stood there, and nothing else of the arguments changes.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from .forking import after_fork
from .token import AccessToken, bare

__all__ = ["Arguments", "Binding", "attribute_of", "is_authorization"]

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

_TOKEN_NAMES = ("authorization", "access_token", "token")


class _Place(Protocol):
    """One way of keeping a token; the same object serves every call of a function."""

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the bare token there, "" where there is none yet; None where this call has no such place."""

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        """Put `token` there, and return the arguments to go on with."""


class Binding:
    """
    The places of one function.

    Args:
        function: its signature is read once, when it is decorated.
        bind: the user's own way of keeping a token: a function of `(token)` or `(self, token)`.
    """

    def __init__(self, function: Callable[..., object], bind: Callable[..., object] | None) -> None:
        arguments, self._first, open_ended = _arguments_of(function)
        names = [name for name in ("headers", *_TOKEN_NAMES) if name in arguments or open_ended]
        self._places: list[_Place] = [
            _Headers(_named(arguments, name)) if name == "headers" else _Value(_named(arguments, name))
            for name in names
        ]
        if self._first is not None:
            self._places.append(_Attribute(self._first))
        self._callback = _Callback(bind) if bind is not None else None

    def first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the first argument, or None."""
        if args:
            return args[0]
        return self._first.get(args, kwargs) if self._first is not None else None

    def kept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the bare token that a call keeps: "" where its place is empty, None where it has no place."""
        found = [token for place in self._places if (token := place.read(args, kwargs)) is not None]
        return next((token for token in found if token), "" if found else None)

    def has_callback(self) -> bool:
        """Say whether `bind=` was given, so that nobody can look at what the function keeps."""
        return self._callback is not None

    def rebind(self, args: tuple[Any, ...], kwargs: dict[str, Any], dead: str | None, token: AccessToken) -> Arguments:
        """
        Put `token` wherever the call keeps `dead`, and return the arguments to go on with.

        Args:
            args: of the call.
            kwargs: of the call.
            dead: the bare token that is replaced; None puts it into the first place that is empty.
            token: the new one.
        """
        for place in self._places:
            if place.read(args, kwargs) == (dead or ""):
                args, kwargs = place.write(args, kwargs, token)
                if dead is None:
                    break
        return args, kwargs

    def call_back(self, first: Any, token: AccessToken) -> None:
        """Hand `token` to `bind=`, once for each token and first argument."""
        if self._callback is not None:
            self._callback(first, token)


class _Callback:
    """`bind=`: it runs on one thread at a time, since what it does may not be safe for more."""

    def __init__(self, bind: Callable[..., object]) -> None:
        self._bind = bind
        self._takes_self = _takes_two(bind)
        self._bound: dict[int, str] = {}  # by the object's id
        self._remake_lock()
        after_fork(self, _Callback._remake_lock)  # the thread that was in `bind` does not exist in a forked child

    def __call__(self, first: Any, token: AccessToken) -> None:
        owner = first if self._takes_self else self
        with self._binding:
            if self._bound.get(id(owner)) != token.value:
                self._bind(*((owner, token) if self._takes_self else (token,)))
                self._note(owner, token.value)

    def _note(self, owner: Any, value: str) -> None:
        with suppress(TypeError):  # one with __slots__: nothing tells when it goes, so it is bound again next time
            if id(owner) not in self._bound:
                weakref.finalize(owner, self._bound.pop, id(owner), None).atexit = False
            self._bound[id(owner)] = value

    def _remake_lock(self) -> None:
        self._binding = threading.RLock()  # guards _bound, and is held while `bind` runs


class _Argument:
    """An argument, whether it is given by keyword, by position or left to its default."""

    def __init__(self, name: str, index: int | None = None, default: Any = None) -> None:
        self.name = name
        self.index = index
        self.default = default

    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.name in kwargs:
            return kwargs[self.name]
        if self.index is not None and self.index < len(args):
            return args[self.index]
        return self.default

    def put(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> Arguments:
        if self.index is not None and self.index < len(args) and self.name not in kwargs:
            return (*args[: self.index], value, *args[self.index + 1 :]), kwargs
        return args, {**kwargs, self.name: value}


class _Headers:
    """The `authorization` entry of a mapping of headers, whatever its case: in the caller's own mapping."""

    def __init__(self, argument: _Argument) -> None:
        self._argument = argument

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        headers = self._argument.get(args, kwargs)
        if not isinstance(headers, Mapping):
            return None
        value = next((headers[key] for key in headers if is_authorization(key)), "")
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        return bare(text) if isinstance(text, str) else None

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        headers = self._argument.get(args, kwargs)
        keys = [key for key in headers if is_authorization(key)] or ["authorization"]
        changes: dict[Any, Any] = {key: _in_form_of(headers.get(key), token) for key in keys}
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
        return _token_of(self._argument.get(args, kwargs)) or None

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        return self._argument.put(args, kwargs, _in_form_of(self._argument.get(args, kwargs), token))


class _Attribute:
    """`access_token` of the first argument, as the brokers of other libraries have it."""

    def __init__(self, first: _Argument) -> None:
        self._first = first

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        first = args[0] if args else self._first.get(args, kwargs)
        view = getattr(type(first), "access_token", None)
        if isinstance(view, property) and view.fset is None:  # a view on a source, which is asked anyway
            return None
        value = attribute_of(first, "access_token", self)
        return _token_of(value) if value is None or isinstance(value, (str, AccessToken)) else None

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], token: AccessToken) -> Arguments:
        first = args[0] if args else self._first.get(args, kwargs)
        first.access_token = _in_form_of(first.access_token, token)
        return args, kwargs


def attribute_of(target: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of somebody else's object; the default also where its property or a proxy raises."""
    try:
        return getattr(target, name, default)
    except Exception:
        return default


def is_authorization(key: Any) -> bool:
    """Say whether a key of headers, text or bytes, is the one that carries the token."""
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    return isinstance(text, str) and text.lower() == "authorization"


def _named(arguments: dict[str, _Argument], name: str) -> _Argument:
    return arguments.get(name) or _Argument(name)


def _arguments_of(function: Callable[..., object]) -> tuple[dict[str, _Argument], _Argument | None, bool]:
    """Return the named arguments, the first of them, and whether others may come by keyword."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in without a signature
        return {}, _Argument("", 0), True
    arguments: dict[str, _Argument] = {}
    first: _Argument | None = None
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        by_position = parameter.kind is not parameter.KEYWORD_ONLY
        default = None if parameter.default is parameter.empty else parameter.default
        argument = _Argument(parameter.name, index if by_position else None, default)
        first = first or argument
        if parameter.kind is not parameter.VAR_POSITIONAL:
            arguments[parameter.name] = argument
    return arguments, first, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _token_of(value: Any) -> str:
    if isinstance(value, AccessToken):
        return value.value
    return bare(value) if isinstance(value, str) else ""


def _in_form_of(found: Any, token: AccessToken) -> Any:
    """Return `token` as what was found: an `AccessToken`, bytes, a bare value, else "Bearer …"."""
    if isinstance(found, AccessToken):
        return token
    if isinstance(found, bytes):
        return token.bearer.encode()
    if isinstance(found, str) and bare(found):
        head, _, tail = found.rpartition(bare(found))
        return f"{head}{token.value}{tail}"
    return token.bearer


def _takes_two(bind: Callable[..., object]) -> bool:
    """Say whether `bind=` is a function of `(self, token)`, by the arguments that it cannot do without."""
    try:
        parameters = inspect.signature(bind).parameters.values()
    except (TypeError, ValueError):  # a built-in without a signature
        return False
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in by_position and p.default is p.empty for p in parameters) == 2
