"""
The overnight batch of the requirement: its symbols, its tracker, and the threads that ask. Draws and prints nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..client.client import KisClient

__all__ = ["DOMESTIC", "OVERSEAS", "Batch", "Symbol", "Tracker", "dies_at", "symbols"]

DOMESTIC, OVERSEAS = 5_000, 11_780
"""KR and US symbols of the batch whose token died at US symbol 11,776."""

IN_A_ROW = 5
"""Identical failures after which that batch gives up: one more symbol would not fare better."""


class Symbol(NamedTuple):
    """What to ask for; `country` is "KR" or "US"."""

    code: str
    country: str


def symbols(total: int | None = None) -> list[Symbol]:
    """The batch's symbols, domestic ones first; `total` (from 2) of them in the same proportion."""
    domestic, overseas = DOMESTIC, OVERSEAS
    if total is not None:
        domestic = min(max(round(total * DOMESTIC / (DOMESTIC + OVERSEAS)), 1), total - 1)
        overseas = total - domestic
    return [
        *(Symbol(f"{number:06d}", "KR") for number in range(1, domestic + 1)),
        *(Symbol(f"US{number:05d}", "US") for number in range(1, overseas + 1)),
    ]


def dies_at(batch: list[Symbol]) -> int:
    """At which call, from 1, the token dies: the fifth US symbol from the end (11,776 of 11,780), or the first."""
    domestic = sum(symbol.country == "KR" for symbol in batch)
    return max(len(batch) - IN_A_ROW + 1, domestic + 1)


class Tracker:
    """
    Counts what became of each symbol, and gives up after so many identical failures in a row. For many threads.

    With several calls under way "in a row" needs a rule: a success ends the row only if its call began after the last
    failure was known. One that began before says nothing about now.
    """

    def __init__(self, in_a_row: int = IN_A_ROW) -> None:
        self._in_a_row = in_a_row
        self._lock = threading.Lock()  # guards everything below
        self._row = 0
        self.answered = 0
        self.failed = 0
        self.last_failure: str | None = None
        self.aborted = False

    @property
    def processed(self) -> int:
        """Symbols that have got an outcome, good or bad."""
        return self.answered + self.failed

    def begin(self) -> int:
        """What `succeed` wants to be told: how many failures were known when the call began."""
        return self.failed

    def succeed(self, began: int) -> None:
        """One symbol was answered."""
        with self._lock:
            self.answered += 1
            if began == self.failed:
                self._row = 0

    def fail(self, message: str) -> None:
        """One symbol was not."""
        with self._lock:
            self.failed += 1
            self._row = self._row + 1 if self._row and message == self.last_failure else 1
            self.last_failure = message
            self.aborted = self.aborted or self._row >= self._in_a_row


class Batch:
    """
    Asks for every symbol, each once, in threads of its own, until all are done or the tracker has given up.

    The threads are daemons, so that an interrupted program ends at once.
    """

    def __init__(self, client: KisClient, batch: Iterable[Symbol], *, threads: int) -> None:
        self.tracker = Tracker()
        self._client = client
        self._left = iter(batch)
        self._lock = threading.Lock()  # guards _left
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
        """Begin no further call, and wait as long at most for each that is under way."""
        self._stopped = True
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(seconds)

    def _work(self) -> None:
        while (symbol := self._next()) is not None:
            began = self.tracker.begin()
            failure = _ask(self._client, symbol)
            if failure is None:
                self.tracker.succeed(began)
            else:
                self.tracker.fail(failure)

    def _next(self) -> Symbol | None:
        with self._lock:
            return None if self._stopped or self.tracker.aborted else next(self._left, None)


def _ask(client: KisClient, symbol: Symbol) -> str | None:
    """What is wrong with the answer for a symbol; None where it is good."""
    fetch: Any = client.fetch_domestic_price if symbol.country == "KR" else client.fetch_price_detail_oversea
    try:
        answer = fetch(symbol.code)
    except Exception as error:  # the batch of the requirement writes a symbol off and goes on to the next
        return type(error).__name__
    return None if answer.get("rt_cd") == "0" else str(answer.get("msg1"))
