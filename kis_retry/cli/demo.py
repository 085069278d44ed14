"""`kis-retry demo`: the overnight batch on a gateway of its own, protected or not."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..client.client import KisClient
from ..credentials import Credentials
from ..events import RefreshEvent, on_event
from ..policy import RetryPolicy
from ..retry.limiter import RateLimiter
from ..stores.memory import MemoryTokenStore
from ..tokens.manager import TokenManager
from .batch import Batch, symbols
from .causes import Heard
from .gateway import GatewayProcess
from .interrupts import check_interrupt
from .night import PACE, SEED, Night
from .output import Progress, echo_json, echo_table, new_progress
from .report import CAUSE_COLUMNS, Report, description, kind_of

__all__ = ["demo"]

_TICK = 0.1  # seconds between two looks at the batch
_PATIENCE = 2.0  # seconds that calls under way have to end when the demo is interrupted

_News = queue.SimpleQueue[Heard | str]
"""What happens in the batch's threads, for the one thread that draws: events, and lines."""


def demo(*, total: int | None, threads: int, protected: bool, as_json: bool) -> int:
    """
    Run the batch and show how it went.

    Args:
        total: how many symbols; None for the 16,780 of the requirement.
        threads: how many ask at a time.
        protected: False switches the decorators off, with `RetryPolicy(enabled=False)`. The pace stands.
        as_json: one JSON object on stdout instead of progress, events and tables.

    Returns:
        0 where every symbol was answered, else 1.
    """
    batch = symbols(total)
    overseas = sum(symbol.country == "US" for symbol in batch)
    night = Night(overseas, len(batch) - overseas)
    with GatewayProcess(seed=SEED) as gateway, _without_proxy(), _listening() as news:
        with new_progress(len(batch), silent=as_json) as progress, _client(gateway.credentials, protected) as client:
            mode = "protected" if protected else "unprotected"
            progress.tell(f"{night.size}, {threads} at a time, {mode}")
            for line in night.announcement():
                progress.tell(line)
            client.tokens.token()  # so that there is one to die, at whichever symbol
            night.begin(gateway)
            running = Batch(
                client,
                batch,
                threads=threads,
                pace=None if protected else client.limiter,
                before=night.happenings(gateway, news.put),
            )
            began = time.monotonic()
            heard = _run(running, gateway, news, progress)
        seconds = time.monotonic() - began
        report = Report(night, running.tracker, heard, gateway.counts(), gateway.tell("faults_met"))
    if as_json:
        echo_json(report.document(protected=protected, threads=threads, seconds=seconds))
    else:
        echo_table(report.causes(), CAUSE_COLUMNS)
        echo_table(report.outcome(seconds))
    return 0 if running.tracker.answered == len(batch) else 1


def _client(credentials: Credentials, protected: bool) -> KisClient:
    policy = RetryPolicy(enabled=protected)  # not the environment's: the demo is the same everywhere
    store = MemoryTokenStore()
    limiter = RateLimiter(credentials, rate=PACE, store=store)
    return KisClient(credentials, tokens=TokenManager(credentials, store=store, policy=policy), limiter=limiter)


def _run(running: Batch, gateway: GatewayProcess, news: _News, progress: Progress) -> list[Heard]:
    """Show what happens until the batch is over, of events of a kind the first; give back all of them."""
    heard: list[Heard] = []
    shown: set[tuple[str, str] | None] = set()
    try:
        running.start()
        over = False
        while not over:
            over = running.wait(_TICK)
            check_interrupt()
            gateway.check()  # else every call would be repeated until its deadline
            while not news.empty():
                piece = news.get()
                if isinstance(piece, str):
                    progress.tell(piece)
                    continue
                heard.append(piece)
                kind = kind_of(piece.event)
                if kind is None or kind not in shown:
                    progress.tell(description(piece.event))
                shown.add(kind)
            progress.advance(running.tracker.processed)
    finally:
        running.stop(_PATIENCE)
    return heard


@contextmanager
def _listening() -> Iterator[_News]:
    news: _News = queue.SimpleQueue()

    def hear(event: RefreshEvent) -> None:
        news.put(Heard(time.monotonic(), threading.get_ident(), event))

    unsubscribe = on_event(hear)
    try:
        yield news
    finally:
        unsubscribe()


@contextmanager
def _without_proxy() -> Iterator[None]:
    """A proxy of the environment cannot reach this machine's loopback."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "127.0.0.1"
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if before is not None:
            os.environ["no_proxy"] = before
