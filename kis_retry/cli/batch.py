"""
The overnight batch of the requirement: its symbols, its tracker, and the threads that ask. Draws and prints nothing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..client.client import KisClient
    from ..retry.call import Pace

__all__ = ["DOMESTIC", "IN_A_ROW", "OVERSEAS", "Batch", "Failure", "Symbol", "Tracker", "symbols"]

DOMESTIC, OVERSEAS = 5_000, 11_780
"""KR and US symbols of the batch whose token died at US symbol 11,776."""

IN_A_ROW = 5
"""Identical failures after which that batch gives up: one more symbol would not fare better."""


class Symbol(NamedTuple):
    """What to ask for; `country` is "KR" or "US"."""

    code: str
    country: str


class Failure(NamedTuple):
    """Why a symbol has no answer: KIS's `msg_cd` and `msg1`, or the type of an exception, twice."""

    code: str
    message: str


def symbols(total: int | None = None) -> list[Symbol]:
    """The batch's symbols, US ones first; `total` (from 2) of them in the same proportion."""
    domestic, overseas = DOMESTIC, OVERSEAS
    if total is not None:
        domestic = round(total * DOMESTIC / (DOMESTIC + OVERSEAS))
        overseas = total - domestic
    return [
        *(Symbol(f"US{number:05d}", "US") for number in range(1, overseas + 1)),
        *(Symbol(f"{number:06d}", "KR") for number in range(1, domestic + 1)),
    ]


class Tracker:
    """
    Counts what became of each symbol, and gives up after `IN_A_ROW` identical failures in a row. For many threads.

    With several calls under way "in a row" needs a rule: the order is that of the symbols, not that of their answers.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything below
        self._early: dict[int, Failure | None] = {}  # outcomes of symbols after one that has none yet
        self._known = 0  # how many symbols from the first on have an outcome
        self._row = 0  # outcomes in a row that are the same as the last one, which counts too
        self._last: Failure | None = None
        self.answered = 0
        self.failed = 0
        self.lost: Counter[str] = Counter()  # by the code of the failure; to be read when the batch is over
        self.failure: Failure | None = None
        self.aborted_at: int | None = None

    @property
    def processed(self) -> int:
        """Symbols that have got an outcome, good or bad."""
        return self.answered + self.failed

    @property
    def aborted(self) -> bool:
        """Whether it has given up, at the symbol number `aborted_at`."""
        return self.aborted_at is not None

    def record(self, number: int, failure: Failure | None) -> None:
        """Symbol `number` of the batch, from 1, was answered, or was not."""
        with self._changed:
            if failure is None:
                self.answered += 1
            else:
                self.failed += 1
                self.lost[failure.code] += 1
            self._early[number] = failure
            while self._known + 1 in self._early:
                self._known += 1
                self._judge(self._early.pop(self._known))
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait until the symbols before this one have got their outcomes."""
        with self._changed:
            self._changed.wait_for(lambda: self._known >= number - 1)

    def _judge(self, failure: Failure | None) -> None:
        if self.aborted:
            return
        self._row = self._row + 1 if failure == self._last else 1
        self._last = failure
        self.failure = failure or self.failure
        if failure is not None and self._row >= IN_A_ROW:
            self.aborted_at = self._known


class Batch:
    """
    Asks for every symbol, each once, in threads of its own, until all are done or the tracker has given up.

    The threads are daemons, so that an interrupted program ends at once.

    Args:
        client: whom to ask.
        batch: for what.
        threads: how many ask at a time.
        pace: what each call waits for, where the client does not see to it.
        before: what happens, by the number of the symbol from 1, when those before it have got their outcomes and it
            has not been asked for.
    """

    def __init__(
        self,
        client: KisClient,
        batch: Sequence[Symbol],
        *,
        threads: int,
        pace: Pace | None = None,
        before: Mapping[int, Callable[[], object]] | None = None,
    ) -> None:
        self.tracker = Tracker()
        self._client = client
        self._left = iter(enumerate(batch, start=1))
        self._pace = pace
        self._before = before or {}
        self._lock = threading.Lock()  # guards _left, and is held while something happens
        self._stopped = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def start(self) -> None:
        """Begin; `wait` tells when it is over."""
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait as long at most; says whether the batch is over."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(seconds)
                break
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self, seconds: float) -> None:
        """Begin no further call, and wait as long at most for those that are under way."""
        self._stopped = True
        until = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(until - time.monotonic(), 0))

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            number, symbol = taken
            if self._pace is not None:
                self._pace.acquire()
            self.tracker.record(number, _ask(self._client, symbol))

    def _next(self) -> tuple[int, Symbol] | None:
        with self._lock:
            number, symbol = next(self._left, (0, None))
            happens = self._before.get(number)
            if happens is not None and not self._is_over():
                self.tracker.wait_for(number)
                if not self._is_over():
                    happens()
            return None if symbol is None or self._is_over() else (number, symbol)

    def _is_over(self) -> bool:
        return self._stopped or self.tracker.aborted


def _ask(client: KisClient, symbol: Symbol) -> Failure | None:
    """What is wrong with the answer for a symbol; None where it is good."""
    fetch: Any = client.fetch_domestic_price if symbol.country == "KR" else client.fetch_price_detail_oversea
    try:
        answer = fetch(symbol.code)
    except Exception as error:  # the batch of the requirement writes a symbol off and goes on to the next
        return Failure(type(error).__name__, type(error).__name__)
    return None if answer.get("rt_cd") == "0" else Failure(str(answer.get("msg_cd")), str(answer.get("msg1")))
