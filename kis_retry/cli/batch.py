"""The overnight batch of the requirement: its symbols, what befalls them, its tracker, and a gateway for it."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

from .. import KisClient
from ..testing import KisGateway

__all__ = ["FAST_FORWARD", "IN_A_ROW", "PACE", "Batch", "Failure", "Tracker", "gateway_process", "serve"]

DOMESTIC, OVERSEAS = 5_000, 11_780  # symbols of the batch whose token died at US symbol 11,776
IN_A_ROW = 5  # identical failures after which that batch gave up
FAST_FORWARD = 55
PACE = FAST_FORWARD * 18  # calls a second, where KIS allows 18: a quarter of an hour in as many seconds
REFUSED, DROPPED = 0.05, 0.005  # shares of the calls

Failure = tuple[str, str]  # KIS's `msg_cd` and `msg1`, or the type of an exception, twice
Gateway = Callable[..., Any]  # calls a method of a `KisGateway`, or reads a property: its name, and the arguments


class Tracker:
    """Count what became of each symbol, in their order; `lost` by the code of the failure."""

    def __init__(self) -> None:
        self.answered = 0
        self.lost = Counter[str]()
        self.failure: Failure | None = None
        self._in_a_row = 0

    @property
    def asked(self) -> int:
        """Number of symbols that have an outcome."""
        return self.answered + self.lost.total()

    @property
    def aborted(self) -> bool:
        """True after `IN_A_ROW` identical failures in a row."""
        return self._in_a_row >= IN_A_ROW

    def record(self, failure: Failure | None) -> None:
        """Count the outcome of the next symbol: None for an answer."""
        self._in_a_row = 0 if failure is None else self._in_a_row + 1 if failure == self.failure else 1
        self.failure = failure
        if failure is None:
            self.answered += 1
        else:
            self.lost[failure[0]] += 1


class Batch:
    """US symbols and then domestic ones, numbered from 1: `total` of them in the requirement's proportion."""

    def __init__(self, total: int | None) -> None:
        self.symbols = total or OVERSEAS + DOMESTIC
        self.overseas = self.symbols - round(self.symbols * DOMESTIC / (OVERSEAS + DOMESTIC))
        self._dies = max(self.overseas - IN_A_ROW + 1, 1)
        self._away = (self.overseas + self.symbols) // 2 + 1
        self._outage = round(min(max(0.05 * self.symbols / PACE, 0.5), 3), 1)  # seconds

    def name(self, number: int) -> str:
        """Return a symbol as people count them."""
        domestic = number - self.overseas
        return f"domestic symbol {domestic:,}" if domestic > 0 else f"US symbol {number:,}"

    def fetch(self, client: KisClient, number: int) -> Failure | None:
        """Ask for a symbol; return why there is no answer, None where there is one."""
        domestic = number - self.overseas
        try:
            if domestic > 0:
                answer = client.fetch_domestic_price(f"{domestic:06d}")
            else:
                answer = client.fetch_price_detail_oversea(f"US{number:05d}")
        except Exception as error:  # the batch of the requirement writes a symbol off and goes on to the next
            return type(error).__name__, type(error).__name__
        return None if answer["rt_cd"] == "0" else (answer["msg_cd"], answer["msg1"])

    def outcomes(
        self, fetch: Callable[[int], Failure | None], gateway: Gateway, threads: int, tell: Callable[[str], None]
    ) -> Generator[Failure | None, None, None]:
        """Yield the outcome of each symbol in order, and tell what happens; who closes this has no more asked for."""
        pool = ThreadPoolExecutor(threads)

        def ask(first: int, end: int) -> Iterator[Failure | None]:
            several = max((end - first) // 1_000, 1)  # a thread's symbols in a row: each hand-over costs
            rows = [range(number, min(number + several, end)) for number in range(first, end, several)]
            return chain.from_iterable(pool.map(lambda row: [fetch(number) for number in row], rows))

        try:
            tell(_misbehave(gateway))
            yield from ask(1, self._dies)
            gateway("heal")  # so that nothing comes between five failures for the token, as in the real batch
            gateway("expire")
            gateway("outage", self._outage / 2, "tokens", status=503)
            tell(f"the token dies at {self.name(self._dies)}, and its endpoint is away for {self._outage / 2:g} s")
            yield from ask(self._dies, self.overseas + 1)
            tell(_misbehave(gateway))
            yield from ask(self.overseas + 1, self._away)
            gateway("outage", self._outage, "calls", status=503)
            tell(f"the API is away for {self._outage:g} s at {self.name(self._away)}")
            yield from ask(self._away, self.symbols + 1)
        finally:
            pool.shutdown(cancel_futures=True)


def _misbehave(gateway: Gateway) -> str:
    gateway("refuse_calls", "EGW00201", share=REFUSED)
    gateway("drop", share=DROPPED)
    return f"{REFUSED:.0%} of the calls are refused within the limit (EGW00201), {DROPPED:.1%} of the connections drop"


@contextmanager
def gateway_process(**settings: Any) -> Iterator[Gateway]:
    """Run a gateway beside this process, so that the batch has an interpreter for itself; it ends with either."""
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    # A session of its own: Ctrl-C at the terminal is for this process alone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:  # noqa: S603

        def call(name: str, *arguments: Any, **options: Any) -> Any:
            assert process.stdin is not None  # noqa: S101  # as asked for
            assert process.stdout is not None  # noqa: S101
            pickle.dump((name, arguments, options), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)  # noqa: S301  # this very package wrote it

        call("open", **settings)
        yield call


def serve() -> None:
    """Be that gateway, until nobody writes to standard input any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where there are no sessions
    calls, answers = sys.stdin.buffer, sys.stdout.buffer
    _, _, settings = pickle.load(calls)  # noqa: S301  # this very package wrote it
    with KisGateway(**settings) as gateway, suppress(EOFError, OSError):
        found: Any = None
        while True:
            pickle.dump(found, answers)
            answers.flush()
            name, arguments, options = pickle.load(calls)  # noqa: S301
            found = getattr(gateway, name)
            if callable(found):
                found = found(*arguments, **options)
