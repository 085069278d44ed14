"""
What is remade in the child of `os.fork`: locks that nobody there will release, and the parent's connections.

And what no child is forked in the middle of: an import, which nobody there would end.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # its own hooks must not come into force in the middle of a fork
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from .events import warn

__all__ = ["after_fork", "no_fork"]

T = TypeVar("T")

_LONGEST_IMPORT = 10.0  # seconds that a fork waits

_importing = threading.RLock()  # held by a thread while it imports something late, and by one that forks

_hooks: dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]] = {}  # by id: not every object can be hashed


def after_fork(target: T, hook: Callable[[T], None]) -> None:
    """Have `hook(target)` called in each forked child while `target` lives, which a bound method would keep alive."""
    key = id(target)
    _hooks[key] = weakref.ref(target, lambda _: _hooks.pop(key, None)), hook


@contextmanager
def no_fork() -> Iterator[None]:
    """Have every fork wait meanwhile: in a child that was forked in the middle of an import, that would never end."""
    with _importing:
        yield


def _await_imports() -> None:
    _importing.acquire(timeout=_LONGEST_IMPORT)


def _let_imports_begin() -> None:
    with suppress(RuntimeError):  # it took too long, and is another's
        _importing.release()


def _begin_as_child() -> None:
    global _importing
    _importing = threading.RLock()
    for reference, hook in list(_hooks.values()):
        target = reference()
        try:
            if target is not None:
                hook(target)
        except Exception as error:  # of a session that a user gave; the others still have to be told
            warn("fork_hook_failed", target=type(target).__name__, error=type(error).__name__)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_await_imports, after_in_parent=_let_imports_begin, after_in_child=_begin_as_child)
