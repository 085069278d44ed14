"""What stays in memory for each decorated function, and for each manager."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from measuring import Line
from overhead import RIVALS, manager

from kis_retry import refresh_on_expired_token

__all__ = ["lines"]

FUNCTIONS = 10_000
MANAGERS = 200
KILOBYTE = 1024


def lines(*, quick: bool) -> Iterator[Line]:
    count = FUNCTIONS // 10 if quick else FUNCTIONS
    decorators = {"refresh_on_expired_token": refresh_on_expired_token(tokens=manager()), **RIVALS}
    functions = [_function() for _ in range(count)]
    for name, decorate in decorators.items():
        yield Line(f"one function decorated with {name}", _each(partial(map, decorate, functions), count), "kB")
    yield Line("a TokenManager that holds a token", _each(_managers, MANAGERS), "kB")


def _managers() -> Iterator[object]:
    return (manager() for _ in range(MANAGERS))


def _function() -> Callable[..., Any]:
    def fetch(symbol: str, headers: dict[str, str]) -> dict[str, Any]:
        return {}

    return fetch


def _each(make: Callable[[], Iterator[object]], count: int) -> float:
    """What each of `count` things keeps, beside what the first of its kind loads and builds for all."""
    first = next(make())
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = list(make())
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    del first, kept
    return (after - before) / count / KILOBYTE
