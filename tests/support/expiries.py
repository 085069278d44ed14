"""A batch over an expiry of the token: how many calls are lost, how many refused, and how many tokens are asked for."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from kis_retry.testing import KisGateway

THREADS = 16
CALLS = 300

_symbols = itertools.count()  # a library may keep answers: no symbol is asked for twice


class Measured(NamedTuple):
    """What became of a batch."""

    lost: int
    token_requests: int
    refused: int
    how: dict[str, int]


def measured(fetch: Callable[[str], Any], is_good: Callable[[Any], bool], gateway: KisGateway) -> Measured:
    """Make 300 calls on 16 threads, with the expiry in the middle of them."""
    gateway.reset_counts()
    begun, lock = 0, threading.Lock()

    def one(_: int) -> str:
        nonlocal begun
        with lock:
            begun += 1
            symbol = f"{next(_symbols):06d}"
            if begun == CALLS // 2:
                gateway.expire()
        try:
            answer = fetch(symbol)
        except Exception as error:  # whatever a library makes of a refusal
            return type(error).__name__
        return "" if is_good(answer) else type(answer).__name__

    with ThreadPoolExecutor(THREADS) as pool:
        return tally(list(pool.map(one, range(CALLS))), gateway)


def tally(outcomes: list[str], gateway: KisGateway) -> Measured:
    """Count outcomes, of which an empty one is good."""
    how = Counter(outcome for outcome in outcomes if outcome)
    return Measured(sum(how.values()), gateway.counts.token_requests, gateway.counts.refused, dict(how.most_common()))
