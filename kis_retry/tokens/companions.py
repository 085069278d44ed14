"""What is kept beside somebody else's object, one for each and gone with it: `Companions`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Companions"]

T = TypeVar("T")

_KEPT_ALIVE = 64  # objects that cannot be referred to weakly; a program has one or two of them


class Companions(Generic[T]):
    """
    Found by the identity of the object: a dataclass that compares by its fields can neither be hashed nor told apart.

    An object that allows no weak references (one with `__slots__`) is kept alive, for else another one might get its
    identity; the oldest of them is let go when there are too many.

    Args:
        make: makes a companion, when it is first asked for.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: dict[int, tuple[Callable[[], Any], T]] = {}
        self._kept_alive: dict[int, Any] = {}

    def of(self, target: Any) -> T:
        """The one companion of `target`."""
        key = id(target)
        found = self._kept.get(key)
        if found is None or found[0]() is not target:
            if found is not None:  # of an object that is gone, and had the same identity
                self._kept.pop(key, None)
            # Atomic: of threads that come here together one puts its own, and all take that.
            found = self._kept.setdefault(key, (self._reference(target), self._make()))
        return found[1]

    def _reference(self, target: Any) -> Callable[[], Any]:
        key = id(target)
        try:
            return weakref.ref(target, lambda _: self._kept.pop(key, None))
        except TypeError:
            self._kept_alive[key] = target
            while len(self._kept_alive) > _KEPT_ALIVE:
                oldest = next(iter(self._kept_alive))
                self._kept.pop(oldest, None)
                self._kept_alive.pop(oldest, None)
            return lambda: target
