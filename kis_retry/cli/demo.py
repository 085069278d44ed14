"""`kis-retry demo`: the overnight batch on a gateway of its own, protected or not, drawn with `rich`."""

from __future__ import annotations

import signal
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import requests

from .. import Credentials, KisClient, KisRetryError, MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager, on_event
from .batch import FAST_FORWARD, IN_A_ROW, PACE, Batch, Failure, Tracker, gateway_process
from .output import clean, echo_json

if TYPE_CHECKING:
    from rich.console import Console

    from .. import RefreshEvent

__all__ = ["demo"]

Tell = Callable[[str], None]

_SEED = 748  # of the gateway's dice, so that each run meets the same faults
_ALWAYS_SHOWN = {"token_refreshed", "token_refresh_failed", "token_issue_waiting", "rate_lowered", "rate_raised"}
_COUNTS = ("answered", "lost", "never_asked", "calls", "token_requests", "tokens_issued", "seconds")


def demo(arguments: Namespace) -> int:
    """
    Run the batch and show how it went.

    Returns:
        0 where every symbol was answered, else 1.

    Raises:
        KisRetryError: `rich` is not installed.
    """
    protected, threads = not arguments.unprotected, arguments.threads
    try:
        from rich.console import Console
    except ImportError:
        advice = "pip install '.[cli]' in a clone of kis-retry, or pip install rich"
        raise KisRetryError(f"the demo needs rich: {advice}") from None
    console = Console(markup=False, emoji=False, highlight=False, quiet=arguments.json)
    batch, tracker, events = Batch(arguments.symbols), Tracker(), list["RefreshEvent"]()
    with (
        gateway_process(seed=_SEED) as gateway,
        _new_client(gateway("credentials"), protected=protected) as client,
        _showing(console, batch.symbols, events) as (tell, advance),
    ):
        gateway("limit_calls", PACE)
        client.tokens.token()  # so that there is one to die

        def fetch(number: int) -> Failure | None:
            if not protected:  # the pace stands all the same
                client.limiter.acquire()
            return batch.fetch(client, number)

        tell(f"{batch.symbols:,} symbols, {threads} at a time, {'protected' if protected else 'unprotected'}")
        tell(f"{PACE} calls a second, {FAST_FORWARD} times KIS's 18; waits and outages take their real time")
        began = time.monotonic()
        with closing(batch.outcomes(fetch, gateway, threads, tell)) as outcomes:
            for failure in outcomes:
                tracker.record(failure)
                advance()
                if tracker.aborted:
                    break
        report = _report(batch, tracker, events, {**gateway("counts"), "seconds": round(time.monotonic() - began, 2)})
    _draw(console, report)
    if arguments.json:
        echo_json(
            {
                "protected": protected,
                **report,
                "events": [{"name": event.name, **_set_fields(event)} for event in events],
            }
        )
    return 0 if tracker.answered == batch.symbols else 1


def _new_client(credentials: Credentials, *, protected: bool) -> KisClient:
    """Return a client in which no setting and no proxy of this machine has a say."""
    session, store = requests.Session(), MemoryTokenStore()
    session.trust_env = False
    policy = RetryPolicy(enabled=protected)
    tokens = TokenManager(credentials, store=store, policy=policy, session=session)
    return KisClient(tokens=tokens, limiter=RateLimiter(credentials, rate=PACE, store=store), session=session)


@contextmanager
def _showing(console: Console, total: int, events: list[RefreshEvent]) -> Iterator[tuple[Tell, Callable[[], None]]]:
    """Keep every event; draw how far the batch is and what happens as it happens, of each kind of call the first."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    # Narrow: with a ^C behind it, it still is one line.
    columns = BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=console, disable=console.quiet)
    task = bar.add_task("", total=total)
    shown, interrupted = set[tuple[str, str | None]](), list[bool]()

    def tell(text: str) -> None:
        console.print(clean(text), soft_wrap=True)

    def advance() -> None:
        if interrupted:
            raise KeyboardInterrupt
        bar.advance(task)

    def hear(event: RefreshEvent) -> None:
        events.append(event)
        kind = event.name, event.msg_cd or event.error
        if event.name in _ALWAYS_SHOWN or kind not in shown:
            shown.add(kind)
            tell(" ".join([event.name, *(f"{name}={value}" for name, value in _set_fields(event).items())]))

    # Raised at any place, it might be dropped (in a destructor), or leave a lock held.
    handler = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    unsubscribe = on_event(hear)
    try:
        with bar:
            yield tell, advance
    finally:
        unsubscribe()
        signal.signal(signal.SIGINT, handler)


def _set_fields(event: RefreshEvent) -> dict[str, Any]:
    """Return what an event has to say, beside its name and the day on which the token ends."""
    found = {name: value for name, value in asdict(event).items() if name not in {"name", "expires_at"}}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items() if value}


def _report(batch: Batch, tracker: Tracker, events: list[RefreshEvent], counts: Mapping[str, float]) -> dict[str, Any]:
    """Return what became of the batch, and by code how many requests were repeated and how many symbols lost."""
    failed = (event for event in events if event.name == "call_retried")
    repeated = Counter(event.msg_cd or event.error or "" for event in failed)
    codes = sorted({*repeated, *tracker.lost})
    result = f"{tracker.answered:,} of {batch.symbols:,} symbols"
    if tracker.aborted and tracker.failure:
        place = f"{batch.name(tracker.asked)} after {IN_A_ROW} identical failures in a row"
        result = f"aborted at {place}, {result}: {tracker.failure[1]}"
    asked = {"answered": tracker.answered, "lost": tracker.lost.total(), "never_asked": batch.symbols - tracker.asked}
    return {
        "symbols": batch.symbols,
        **{name: {**counts, **asked}[name] for name in _COUNTS},
        "aborted_at": tracker.asked if tracker.aborted else None,
        "codes": {code: {"repeated": repeated[code], "lost": tracker.lost[code]} for code in codes},
        "result": result,
    }


def _draw(console: Console, report: Mapping[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    codes = Table("code", "repeated", "lost", box=box.SIMPLE_HEAD)
    for code, count in report["codes"].items():
        codes.add_row(clean(code), f"{count['repeated']:,}", f"{count['lost']:,}")
    outcome = Table.grid(padding=(0, 2))
    for name in _COUNTS:
        outcome.add_row(name.replace("_", " "), f"{report[name]:,}")
    outcome.add_row("result", clean(report["result"]))
    console.print(codes, outcome)
