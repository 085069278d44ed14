"""The public names, their members and their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from kis_retry.tokens.source import LiveSource

MODULES = ("kis_retry", "kis_retry.testing", "kis_retry.instrumentation")
NAMES = [f"{module}.{name}" for module in MODULES for name in import_module(module).__all__]

LEFT_OUT = {"RateLimiter": {"report", "reserve"}, "KisGateway": {"answer"}}
"""Methods for the rest of the package, which the reference leaves out."""

_INHERITED = set(vars(LiveSource))
_OF_A_STORE = {"delete", "load", "lock", "read", "save", "write"}  # described with `TokenStore`


class Thing(NamedTuple):
    """Something with a signature and a docstring: for a class, those of its making."""

    name: str
    function: Any
    doc: str | None
    is_property: bool = False


def things() -> list[Thing]:
    """Every public name, and every public method and property of the classes among them."""
    found = []
    for full in NAMES:
        module, _, name = full.rpartition(".")
        value = getattr(import_module(module), name)
        if not inspect.isclass(value):
            found.append(Thing(name, value, value.__doc__))
            continue
        made_by: Any = inspect.getattr_static(value, "__init__")
        ours = getattr(made_by, "__module__", "").startswith("kis_retry")
        found.append(Thing(name, made_by if ours else None, value.__doc__))
        found += _members(value)
    return found


def _members(cls: type) -> Iterator[Thing]:
    seen = LEFT_OUT.get(cls.__name__, set()) | _INHERITED | (set() if _is_protocol(cls) else _OF_A_STORE)
    for owner in cls.__mro__:
        for name, value in vars(owner).items() if owner.__module__.startswith("kis_retry") else ():
            function = _function_of(value)
            if function is not None and not name.startswith("_") and name not in seen:
                yield Thing(f"{cls.__name__}.{name}", function, function.__doc__, isinstance(value, property))
            seen.add(name)


def _is_protocol(cls: type) -> bool:
    return getattr(cls, "_is_protocol", False)


def _function_of(value: Any) -> Callable[..., Any] | None:
    if isinstance(value, property):
        return value.fget
    if isinstance(value, (classmethod, staticmethod)):
        return value.__func__
    return value if inspect.isfunction(value) else None


def section(doc: str | None, *titles: str) -> dict[str, str]:
    """The entries of a section of a docstring, by name."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in inspect.cleandoc(doc or "").splitlines():
        if line and not line.startswith(" "):
            inside = line.removesuffix(":") in titles
        elif inside and (entry := re.match(r"    ([\w.]+(?:, [\w.]+)*): (.*)", line)):
            name = entry[1]
            found[name] = entry[2]
        elif inside and line:
            found[name] += f" {line.strip()}"
    return found
