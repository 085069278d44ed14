"""
Where a function keeps its token, and putting a new one there. Pure: no clock, no I/O, no source.

A place is written only where it holds the dead token, or none: never over a token that is somebody else's. The new one
goes in in the form in which the other stood there, and nothing else of the arguments changes.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from .context import attribute_of
from .forking import after_fork
from .token import AccessToken, bare

__all__ = ["Binding"]

_Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
_Place: TypeAlias = tuple[Any, Callable[[Any], object]]
"""What stands in one place, and what puts another there."""

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMES = ("headers", "authorization", "access_token", "token")


class Binding:
    """The places of one function, and `bind`, the user's own way of keeping a token."""

    def __init__(self, function: Callable[..., object], bind: Callable[..., object] | None) -> None:
        parameters = _parameters_of(function)
        self._first = parameters[0].name if parameters else ""
        self._defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        self._positions = {each.name: index for index, each in enumerate(parameters) if each.kind in _BY_POSITION}
        required = [each for each in _parameters_of(bind) if each.default is each.empty] if bind is not None else []
        self._bind, self._takes_self = bind, sum(each.kind in _BY_POSITION for each in required) == 2
        self._bound: dict[int, str] = {}  # by the object's id
        self._remake_lock()
        after_fork(self, Binding._remake_lock)  # the thread that was in `bind` does not exist in a forked child

    def first(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return the first argument, or None."""
        return args[0] if args else kwargs.get(self._first, self._defaults.get(self._first))

    def kept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the bare token that a call keeps: "" where its place is empty, None where it has no place."""
        found = [_token_of(value) for value, _ in self._places(list(args), kwargs)]
        return next(filter(None, found), "" if "" in found else None)

    def rebind(self, args: tuple[Any, ...], kwargs: dict[str, Any], dead: str | None, token: AccessToken) -> _Arguments:
        """
        Put `token` wherever the call keeps the bare token `dead`, and return the arguments to go on with.

        Without one that is dead it goes into the first place that is empty.
        """
        by_position, by_name = list(args), dict(kwargs)
        for value, put in self._places(by_position, by_name):
            if _token_of(value) == (dead or ""):
                put(_in_form_of(value, token))
                if dead is None:
                    break
        return tuple(by_position), by_name

    def call_back(self, first: Any, token: AccessToken) -> None:
        """Hand `token` to `bind=`, once for each token and first argument, and on one thread at a time."""
        if self._bind is None:
            return
        owner = first if self._takes_self else self
        with self._binding:
            if self._bound.get(id(owner)) == token.value:
                return
            self._bind(*((owner, token) if self._takes_self else (token,)))
            with suppress(TypeError):  # one with __slots__: nothing tells when it goes, so it is bound again next time
                if id(owner) not in self._bound:
                    weakref.finalize(owner, self._bound.pop, id(owner), None).atexit = False
                self._bound[id(owner)] = token.value

    def _remake_lock(self) -> None:
        self._binding = threading.RLock()  # guards _bound, and is held while `bind` runs

    def _places(self, args: list[Any], kwargs: dict[str, Any]) -> Iterator[_Place]:
        """Yield the places of a call; what is put there changes `args` and `kwargs`, or the caller's own objects."""
        for name in _NAMES:
            index = self._positions.get(name, len(args))
            if name not in kwargs and index < len(args):
                value, put = args[index], partial(args.__setitem__, index)
            else:
                value, put = kwargs.get(name, self._defaults.get(name)), partial(kwargs.__setitem__, name)
            if name == "headers":
                yield from _entries(value, put)
            elif _token_of(value):
                yield value, put
        first = self.first(args, kwargs)
        view = getattr(type(first), "access_token", None)
        if not isinstance(view, property) or view.fset is not None:  # else it is a view on a source, which is asked
            yield attribute_of(first, "access_token", self), partial(setattr, first, "access_token")


def _entries(headers: Any, put: Callable[[Any], object]) -> Iterator[_Place]:
    """Yield the `authorization` entries of headers, whatever their case; where there is none, its empty place."""
    if not isinstance(headers, Mapping):
        return
    for key in [key for key in headers if str(_text(key)).lower() == "authorization"] or ["authorization"]:
        if isinstance(headers, MutableMapping):
            yield headers.get(key), partial(headers.__setitem__, key)
        else:
            yield headers.get(key), partial(lambda key, value: put({**headers, key: value}), key)


def _parameters_of(function: Callable[..., object]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in without a signature
        return []


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _token_of(value: Any) -> str | None:
    """Return the bare token that stands somewhere: "" for none yet, None for what is no token at all."""
    if isinstance(value, AccessToken):
        return value.value
    text = _text(value)
    return "" if text is None else bare(text) if isinstance(text, str) else None


def _in_form_of(found: Any, token: AccessToken) -> Any:
    """Return `token` as what was found: an `AccessToken`, bytes, a bare value, else "Bearer …"."""
    if isinstance(found, AccessToken):
        return token
    if isinstance(found, bytes):
        return _in_form_of(_text(found), token).encode()
    if isinstance(found, str) and bare(found):
        head, _, tail = found.rpartition(bare(found))
        return f"{head}{token.value}{tail}"
    return token.bearer
