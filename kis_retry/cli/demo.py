"""`kis-retry demo`: the overnight batch of the requirement on a gateway of its own, drawn with `rich`."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import IO, Any

import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from ..client.client import KisClient
from ..credentials import Credentials
from ..events import RefreshEvent, on_event
from ..pace.limiter import RateLimiter
from ..policy import RetryPolicy
from ..stores.base import MemoryTokenStore
from ..tokens.manager import TokenManager

DOMESTIC, OVERSEAS = 5_000, 11_780  # symbols of the batch whose token died at US symbol 11,776
IN_A_ROW = 5  # identical failures after which that batch gave up
PACE = 55 * 18  # calls a second, where KIS allows 18: a quarter of an hour in as many seconds
FAULTS = (
    'refuse_calls {"msg_cd": "EGW00201", "share": 0.05, "path": "domestic-stock"}',
    'drop {"share": 0.005, "path": "domestic-stock"}',
)


def demo(arguments: Namespace) -> int:
    """Run the batch and show how it went; 0 where every symbol was answered, else 1."""
    batch, repeated = Batch(arguments.symbols, protected=not arguments.unprotected), Counter[str]()
    console = Console(markup=False, emoji=False, highlight=False)
    bar = Progress(BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(), console=console)  # and a ^C
    tell = partial(console.print, soft_wrap=True)

    def hear(event: RefreshEvent) -> None:
        if event.name == "call_retried":
            repeated[event.msg_cd or event.error or ""] += 1
        elif event.name == "token_refreshed":
            tell(f"{event.name} token={event.token} source={event.source} elapsed={event.elapsed or 0:.3f}")

    with ExitStack() as stack:
        gateway: Any = stack.enter_context(_new_gateway(batch.dies))
        stack.callback(gateway.terminate)
        client = stack.enter_context(_new_client(gateway.stdout, protected=batch.protected))
        client.tokens.token()  # so that there is one to die
        stack.enter_context(bar)
        stack.callback(on_event(hear))
        tell(f"{batch.symbols:,} symbols, {arguments.threads} at a time, {'' if batch.protected else 'un'}protected")
        tell(f"{PACE} calls a second, 55 times KIS's 18; the token dies at US symbol {batch.dies:,}")
        running = stack.enter_context(closing(batch.run(client, arguments.threads)))
        deque(bar.track(running, total=batch.symbols), maxlen=0)
        gateway.terminate()
        seen = json.load(gateway.stdout)
    table, answered = Table.grid(padding=(0, 2)), batch.outcomes.count(None)
    counts = {"answered": answered, "lost": len(batch.outcomes) - answered}
    counts |= {name: seen[name] for name in ("calls", "token_requests", "tokens_issued")}
    for name, count in {**counts, **{f"repeated after {code}": repeated[code] for code in sorted(repeated)}}.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    console.print(table)
    tell(batch.result)
    return 0 if answered == batch.symbols else 1


class Batch:
    """US symbols and then domestic ones, numbered from 1, in the requirement's proportion, and their outcomes."""

    def __init__(self, total: int | None, *, protected: bool) -> None:
        self.symbols, self.protected = total or OVERSEAS + DOMESTIC, protected
        self.outcomes: list[str | None] = []  # `msg_cd` or an exception's type; None for an answer
        self._overseas = self.symbols - round(self.symbols * DOMESTIC / (OVERSEAS + DOMESTIC))
        self.dies = max(self._overseas - IN_A_ROW + 1, 1)  # the symbol before which the token does

    def run(self, client: KisClient, threads: int) -> Generator[None, None, None]:
        """Ask for each symbol, and yield whenever one has its outcome."""
        with ThreadPoolExecutor(threads) as pool:
            for numbers in (range(1, self.dies), range(self.dies, self.symbols + 1)):  # one call for each before
                for outcome in pool.map(partial(self._fetch, client), numbers):
                    self.outcomes.append(outcome)
                    yield
                    if self._aborted:
                        return

    def _fetch(self, client: KisClient, number: int) -> str | None:
        domestic = number - self._overseas
        if not self.protected:  # the pace stands all the same
            client.limiter.acquire()
        try:
            if domestic > 0:
                answer = client.fetch_domestic_price(f"{domestic:06d}")
            else:
                answer = client.fetch_price_detail_oversea(f"US{number:05d}")
        except Exception as error:  # the batch of the requirement writes a symbol off and goes on to the next
            return type(error).__name__
        return None if answer["rt_cd"] == "0" else str(answer["msg_cd"])

    @property
    def _aborted(self) -> bool:
        last = self.outcomes[-IN_A_ROW:]
        return len(last) == IN_A_ROW and None not in last and len(set(last)) == 1

    @property
    def result(self) -> str:
        """How far it came, in words."""
        if self._aborted:
            place = f"symbol {len(self.outcomes):,} of {self.symbols:,}"
            return f"aborted at {place}: {IN_A_ROW} times {self.outcomes[-1]} in a row"
        return f"{self.outcomes.count(None):,} of {self.symbols:,} symbols"


def _new_gateway(dies: int) -> subprocess.Popen[str]:
    """Start a gateway beside this process, so that the batch has an interpreter for itself; Ctrl-C is not for it."""
    options = ["--expire-at", str(dies), *(word for fault in FAULTS for word in ("--fault", fault))]
    command = [sys.executable, "-m", "kis_retry", "gateway", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)  # noqa: S603  # ours


def _new_client(told: IO[str], *, protected: bool) -> KisClient:
    """Return a client of the gateway that has `told` of itself, in which no setting of this machine has a say."""
    url, keys = told.readline().strip(), json.loads(told.readline())
    credentials = Credentials(keys["app_key"], keys["app_secret"], keys["account"], base_url=url)
    session, store = requests.Session(), MemoryTokenStore()
    session.trust_env = False
    tokens = TokenManager(credentials, store=store, policy=RetryPolicy(enabled=protected), session=session)
    return KisClient(tokens=tokens, limiter=RateLimiter(credentials, rate=PACE, store=store), session=session)
