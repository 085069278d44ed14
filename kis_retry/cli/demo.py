"""`kis-retry demo`: the overnight batch of the requirement on a gateway of its own, drawn with `rich`."""

from __future__ import annotations

import multiprocessing
import signal
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import requests

from ..client.client import KisClient
from ..credentials import Credentials
from ..errors import KisRetryError
from ..events import RefreshEvent, on_event
from ..pace.limiter import RateLimiter
from ..policy import RetryPolicy
from ..stores.base import MemoryTokenStore
from ..testing.gateway import KisGateway
from ..tokens.manager import TokenManager
from .output import clean, echo_json

DOMESTIC, OVERSEAS = 5_000, 11_780  # symbols of the batch whose token died at US symbol 11,776
IN_A_ROW = 5  # identical failures after which that batch gave up
FAST_FORWARD = 55
PACE = FAST_FORWARD * 18  # calls a second, where KIS allows 18: a quarter of an hour in as many seconds
REFUSED, DROPPED = 0.05, 0.005  # shares of the calls
SEED = 748  # of the gateway's dice, so that each run meets the same faults
SHOWN = {"token_refreshed", "token_refresh_failed", "token_issue_waiting", "rate_lowered", "rate_raised"}

Failure = tuple[str, str]  # KIS's `msg_cd` and `msg1`, or the type of an exception, twice
Gateway = Callable[..., Any]  # calls a method of a `KisGateway`, or reads a property: its name, and the arguments


def demo(arguments: Namespace) -> int:
    """Run the batch and show how it went; 0 where every symbol was answered, else 1."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
        from rich.table import Table
    except ImportError:
        advice = "pip install '.[cli]' in a clone of kis-retry, or pip install rich"
        raise KisRetryError(f"the demo needs rich: {advice}") from None
    batch = Batch(arguments.symbols, protected=not arguments.unprotected)
    events = list[RefreshEvent]()
    console = Console(markup=False, emoji=False, highlight=False, quiet=arguments.json)
    columns = BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn()  # narrow, for a ^C behind it
    bar = Progress(*columns, console=console, disable=console.quiet)

    def tell(text: str) -> None:
        console.print(clean(text), soft_wrap=True)

    def hear(event: RefreshEvent) -> None:
        events.append(event)
        if event.name in SHOWN:
            said = (f"{name}={value}" + " (at most)" * (name == "wait") for name, value in _set_fields(event).items())
            tell(" ".join([event.name, *said]))

    with ExitStack() as stack:
        gateway = stack.enter_context(_gateway_process())
        gateway("limit_calls", PACE)
        client = stack.enter_context(_new_client(gateway("credentials"), protected=batch.protected))
        stack.enter_context(bar)
        stack.callback(on_event(hear))
        client.tokens.token()  # so that there is one to die
        tell(f"{batch.symbols:,} symbols, {arguments.threads} at a time, {'' if batch.protected else 'un'}protected")
        tell(f"{PACE} calls a second, {FAST_FORWARD} times KIS's 18; waits and outages take their real time")
        running, began = batch.run(client, gateway, arguments.threads, tell), time.monotonic()
        for _ in bar.track(stack.enter_context(closing(running)), total=batch.symbols):
            pass
        report = {**gateway("counts"), "seconds": round(time.monotonic() - began, 2), **batch.report(events)}
    if arguments.json:
        echo_json({**report, "events": [{"name": event.name, **_set_fields(event)} for event in events]})
    table = Table.grid(padding=(0, 2))
    for name in ("answered", "lost", "never_asked", "calls", "token_requests", "tokens_issued", "seconds"):
        table.add_row(name.replace("_", " "), f"{report[name]:,}")
    for code, count in report["codes"].items():
        table.add_row(clean(code), f"{count['repeated']:,} repeated, {count['lost']:,} lost")
    table.add_row("result", clean(report["result"]))
    console.print(table)
    return 0 if report["answered"] == batch.symbols else 1


class Batch:
    """US symbols and then domestic ones, numbered from 1, in the requirement's proportion, and their outcomes."""

    def __init__(self, total: int | None, *, protected: bool) -> None:
        self.symbols = total or OVERSEAS + DOMESTIC
        self.protected = protected
        self.outcomes: list[Failure | None] = []  # in the order of the symbols, None for an answer
        self._overseas = self.symbols - round(self.symbols * DOMESTIC / (OVERSEAS + DOMESTIC))
        self._outage = round(min(max(0.05 * self.symbols / PACE, 0.5), 3), 1)  # seconds
        self._dies = max(self._overseas - IN_A_ROW + 1, 1)
        self._away = (self._overseas + self.symbols) // 2 + 1

    @property
    def aborted(self) -> bool:
        """True after `IN_A_ROW` identical failures in a row."""
        last = self.outcomes[-IN_A_ROW:]
        return len(last) == IN_A_ROW and None not in last and len(set(last)) == 1

    def run(
        self, client: KisClient, gateway: Gateway, threads: int, tell: Callable[[str], None]
    ) -> Generator[None, None, None]:
        """Ask for each symbol, tell what befalls them, and yield whenever one has its outcome."""
        begins = (1, self._dies, self._overseas + 1, self._away, self.symbols + 1)
        happens = (_misbehave, self._kill_the_token, _misbehave, self._take_the_api_away)
        pool = ThreadPoolExecutor(threads)
        try:
            for happen, first, end in zip(happens, begins, begins[1:], strict=False):
                tell(happen(gateway))
                for failure in pool.map(lambda number: self._fetch(client, number), range(first, end)):
                    self.outcomes.append(failure)
                    yield
                    if self.aborted:
                        return
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch(self, client: KisClient, number: int) -> Failure | None:
        domestic = number - self._overseas
        if not self.protected:  # the pace stands all the same
            client.limiter.acquire()
        try:
            if domestic > 0:
                answer = client.fetch_domestic_price(f"{domestic:06d}")
            else:
                answer = client.fetch_price_detail_oversea(f"US{number:05d}")
        except Exception as error:  # the batch of the requirement writes a symbol off and goes on to the next
            return type(error).__name__, type(error).__name__
        return None if answer["rt_cd"] == "0" else (answer["msg_cd"], answer["msg1"])

    def _name(self, number: int) -> str:
        domestic = number - self._overseas
        return f"domestic symbol {domestic:,}" if domestic > 0 else f"US symbol {number:,}"

    def _kill_the_token(self, gateway: Gateway) -> str:
        gateway("heal")  # so that nothing comes between five failures for the token, as in the real batch
        gateway("expire")
        gateway("outage", self._outage / 2, "tokens", status=503)
        return f"the token dies at {self._name(self._dies)}, and its endpoint is away for {self._outage / 2:g} s"

    def _take_the_api_away(self, gateway: Gateway) -> str:
        gateway("outage", self._outage, "calls", status=503)
        return f"the API is away for {self._outage:g} s at {self._name(self._away)}"

    def report(self, events: list[RefreshEvent]) -> dict[str, Any]:
        """Return what became of it, and by code how many requests were repeated and how many symbols lost."""
        repeated = Counter(event.msg_cd or event.error or "" for event in events if event.name == "call_retried")
        lost, asked = Counter(failure[0] for failure in self.outcomes if failure), len(self.outcomes)
        answered = asked - lost.total()
        result = f"{answered:,} of {self.symbols:,} symbols"
        if self.aborted:
            place = f"{self._name(asked)} after {IN_A_ROW} identical failures in a row"
            result = f"aborted at {place}, {result}: {(self.outcomes[-1] or '?')[-1]}"
        return {
            "protected": self.protected,
            "symbols": self.symbols,
            "answered": answered,
            "lost": lost.total(),
            "never_asked": self.symbols - asked,
            "result": result,
            "codes": {code: {"repeated": repeated[code], "lost": lost[code]} for code in sorted({*repeated, *lost})},
        }


def _misbehave(gateway: Gateway) -> str:
    gateway("refuse_calls", "EGW00201", share=REFUSED)
    gateway("drop", share=DROPPED)
    return f"{REFUSED:.0%} of the calls are refused within the limit (EGW00201), {DROPPED:.1%} of the connections drop"


@contextmanager
def _gateway_process() -> Iterator[Gateway]:
    """Run a gateway beside this process, so that the batch has an interpreter for itself; it ends with either."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,))
    process.start()
    theirs.close()

    def call(name: str, *arguments: Any, **options: Any) -> Any:
        ours.send((name, arguments, options))
        return ours.recv()

    with ours:
        yield call
    process.join()


def _serve(calls: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process
    with KisGateway(seed=SEED) as gateway, suppress(EOFError, OSError):
        while True:
            name, arguments, options = calls.recv()
            found = getattr(gateway, name)
            calls.send(found(*arguments, **options) if callable(found) else found)


def _new_client(credentials: Credentials, *, protected: bool) -> KisClient:
    """Return a client in which no setting and no proxy of this machine has a say."""
    session, store = requests.Session(), MemoryTokenStore()
    session.trust_env = False
    tokens = TokenManager(credentials, store=store, policy=RetryPolicy(enabled=protected), session=session)
    return KisClient(tokens=tokens, limiter=RateLimiter(credentials, rate=PACE, store=store), session=session)


def _set_fields(event: RefreshEvent) -> dict[str, Any]:
    """Return what an event has to say, beside its name and the day on which the token ends."""
    found = {name: value for name, value in asdict(event).items() if name not in {"name", "expires_at"}}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items() if value}
