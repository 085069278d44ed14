"""Many threads: that begin at once, and that end."""

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


def started(number: int, work: Callable[[], object]) -> list[threading.Thread]:
    """Have so many threads do the work."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def ended(threads: list[threading.Thread]) -> None:
    """Wait until they are done."""
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
