"""Where a pace is kept: in memory, in a file, on a Redis server; and what happens when that fails."""

from __future__ import annotations

import threading
import time
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any, Protocol

from .state import Ask, Block, PaceState

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MemoryPace", "PaceStore", "monotonic"]


def _unfrozen(module: Any) -> ModuleType:
    """Make a copy of the module `time`: freezegun replaces the functions of the one that everybody has."""
    copy = module_from_spec(module.__spec__)
    module.__spec__.loader.exec_module(copy)
    return copy


monotonic = _unfrozen(time).monotonic


class PaceStore(Protocol):
    """One pace, for everybody who shares the place. Called from any thread."""

    blocks: bool
    """Whether `reserve` reads or writes a disk or the network."""

    def reserve(self, ask: Ask) -> Block:
        """Do what `PaceState.reserve` says, on what is kept here; times are of `monotonic`."""


class MemoryPace:
    """For one process."""

    blocks = False

    def __init__(self) -> None:
        self._state = PaceState()
        self._lock = threading.Lock()  # guards _state

    def reserve(self, ask: Ask) -> Block:
        """Reserve slots."""
        with self._lock:
            return self._state.reserve(ask, monotonic())
