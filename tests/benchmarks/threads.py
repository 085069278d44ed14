"""Whether the rate of good calls holds when threads share a function: the interpreter's lock is the only one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from measuring import Line, side_by_side
from overhead import RIVALS, answer, manager

from kis_retry import refresh_on_expired_token

__all__ = ["lines"]

CALLS = 6_400  # in all, however many threads share them
COUNTS = (1, 4, 16, 64)


def lines(*, quick: bool) -> Iterator[Line]:
    rounds = 5 if quick else 20
    tokens = manager()
    headers = tokens.headers("FHKST01010100")
    contenders = {"the decorator": refresh_on_expired_token(tokens=tokens)(answer)}
    contenders |= {name: rival(answer) for name, rival in RIVALS.items()}
    for name, contender in contenders.items():
        measured = side_by_side({str(count): _shared(contender, headers, count) for count in COUNTS}, rounds)
        yield Line(f"{name}: calls on one thread", 1 / measured.median("1") / 1000, "thousand/s")
        for count in COUNTS[1:]:
            bound = 0.667 if name == "the decorator" and count == 16 else None
            kept = measured.ratio("1", str(count))
            yield Line(f"{name}: of that rate on {count} threads", kept, "×", at_least=bound)


def _shared(contender: Callable[..., Any], headers: dict[str, str], count: int) -> Callable[[], float]:
    return lambda: _seconds_each(contender, headers, count)


def _seconds_each(contender: Callable[..., Any], headers: dict[str, str], count: int) -> float:
    """What a call takes, from the moment when every thread is ready until the last has done its share."""
    ready = threading.Barrier(count + 1)

    def work() -> None:
        ready.wait()
        for _ in range(CALLS // count):
            contender("005930", headers)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / CALLS
