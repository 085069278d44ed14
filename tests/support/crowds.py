"""Many threads that begin at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from patience import PATIENCE

T = TypeVar("T")


def together(threads: int, work: Callable[[int], T]) -> list[T]:
    """Call `work` with 0, 1, 2 … in as many threads, none of which begins before all are there; give what came back."""
    barrier = threading.Barrier(threads)

    def begin(number: int) -> T:
        barrier.wait(PATIENCE)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))
