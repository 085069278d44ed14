"""What is remade in the child of `os.fork`: locks that nobody there will release, and the parent's connections."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from .events import warn

__all__ = ["after_fork"]

T = TypeVar("T")

_hooks: dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]] = {}  # by id: not every object can be hashed


def after_fork(target: T, hook: Callable[[T], None]) -> None:
    """Have `hook(target)` called in each forked child while `target` lives, which a bound method would keep alive."""
    key = id(target)
    _hooks[key] = weakref.ref(target, lambda _: _hooks.pop(key, None)), hook


def _run_hooks() -> None:
    for reference, hook in list(_hooks.values()):
        target = reference()
        try:
            if target is not None:
                hook(target)
        except Exception as error:  # of a session that a user gave; the others still have to be told
            warn("fork_hook_failed", target=type(target).__name__, error=type(error).__name__)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_run_hooks)
