"""`kis-retry demo`: the overnight batch on a gateway of its own, protected or not."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ..client.client import KisClient
from ..credentials import Credentials
from ..events import RefreshEvent, on_event
from ..policy import RetryPolicy
from ..retry.limiter import RateLimiter
from ..stores.memory import MemoryTokenStore
from ..tokens.manager import TokenManager
from .batch import IN_A_ROW, Batch, Symbol, Tracker, dies_at, symbols
from .gateway import GatewayProcess
from .output import Progress, new_progress, say_json, say_table

__all__ = ["demo"]

_TICK = 0.1  # seconds between two looks at the batch
_PATIENCE = 2.0  # seconds that a call under way has to end when the demo is interrupted


def demo(*, total: int | None, threads: int, protected: bool, as_json: bool) -> int:
    """
    Run the batch and show how it went.

    Args:
        total: how many symbols; None for the 16,780 of the requirement.
        threads: how many ask at a time.
        protected: False switches the decorator off, with `RetryPolicy(enabled=False)`.
        as_json: one JSON object on stdout instead of progress, events and table.

    Returns:
        0 where every symbol was answered, else 1.
    """
    batch = symbols(total)
    with GatewayProcess(expire_at=dies_at(batch)) as gateway, _without_proxy(), _listening() as events:
        with new_progress(len(batch), silent=as_json) as progress, _client(gateway.credentials, protected) as client:
            progress.tell(_announcement(batch, threads, protected))
            began = time.monotonic()
            tracker, heard = _run(Batch(client, batch, threads=threads), events, progress)
        seconds = time.monotonic() - began
        report = _report(batch, tracker, gateway.counts())
    report = {"protected": protected, "threads": threads, **report, "seconds": round(seconds, 2)}
    if as_json:
        say_json({**report, "events": [_plain(event) for event in heard]})
    else:
        say_table(_rows(report))
    return 0 if report["answered"] == len(batch) else 1


def _client(credentials: Credentials, protected: bool) -> KisClient:
    policy = RetryPolicy(enabled=protected)  # not the environment's: the demo is the same everywhere
    store = MemoryTokenStore()
    limiter = RateLimiter(credentials, rate=0, store=store)  # at KIS's 18 calls a second it would take 16 minutes
    return KisClient(credentials, tokens=TokenManager(credentials, store=store, policy=policy), limiter=limiter)


def _run(
    running: Batch, events: queue.SimpleQueue[RefreshEvent], progress: Progress
) -> tuple[Tracker, list[RefreshEvent]]:
    """Show what happens until the batch is over."""
    heard: list[RefreshEvent] = []
    running.start()
    try:
        over = False
        while not over:
            over = running.wait(_TICK)
            while not events.empty():
                heard.append(events.get())
                progress.tell(_description(heard[-1]))
            progress.advance(running.tracker.processed)
    finally:
        running.stop(_PATIENCE)
    return running.tracker, heard


@contextmanager
def _listening() -> Iterator[queue.SimpleQueue[RefreshEvent]]:
    """Events as they happen in the batch's threads, for the one thread that draws."""
    events: queue.SimpleQueue[RefreshEvent] = queue.SimpleQueue()
    unsubscribe = on_event(events.put)
    try:
        yield events
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


def _announcement(batch: list[Symbol], threads: int, protected: bool) -> str:
    domestic = sum(symbol.country == "KR" for symbol in batch)
    return (
        f"{len(batch):,} symbols, {domestic:,} domestic and {len(batch) - domestic:,} US, {threads} at a time, "
        f"{'protected' if protected else 'unprotected'}; the token dies at US symbol {dies_at(batch) - domestic:,}"
    )


def _description(event: RefreshEvent) -> str:
    parts = [
        event.callable,
        event.msg_cd,
        f"token {event.token}" if event.token else None,
        f"in place of {event.previous_token}" if event.previous_token else None,
        event.source,
        f"{event.elapsed:.3f} s" if event.elapsed is not None else None,
        event.error,
    ]
    return f"{event.name}: {', '.join(part for part in parts if part)}"


def _plain(event: RefreshEvent) -> dict[str, Any]:
    """An event's fields that say something, for JSON."""
    fields = {name: value for name, value in asdict(event).items() if value is not None}
    return {**fields, "expires_at": event.expires_at.isoformat()} if event.expires_at else fields


def _report(batch: list[Symbol], tracker: Tracker, counts: dict[str, int]) -> dict[str, Any]:
    """What became of the symbols, and what the gateway has counted."""
    domestic = sum(symbol.country == "KR" for symbol in batch)
    return {
        "symbols": len(batch),
        "domestic": domestic,
        "us": len(batch) - domestic,
        "processed": tracker.processed,
        "answered": tracker.answered,
        "failed": tracker.failed,
        "failure": tracker.last_failure,
        "aborted": tracker.aborted,
        "calls": counts["calls"],
        "refused": counts["refused"],
        "token_requests": counts["token_requests"],
        "tokens_issued": counts["tokens_issued"],
        "result": _result(len(batch), tracker),
    }


def _result(total: int, tracker: Tracker) -> str:
    done = f"{tracker.answered:,} of {total:,} symbols"
    if tracker.answered == total:
        return f"complete, {done}"
    if tracker.aborted:
        return f"aborted after {IN_A_ROW} identical failures in a row, {done}: {tracker.last_failure}"
    return f"incomplete, {done}: {tracker.last_failure}"


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    names = {
        "symbols": "symbols",
        "processed": "processed",
        "answered": "answered",
        "refused": "refused, token expired",
        "token_requests": "token requests",
        "tokens_issued": "tokens issued",
        "seconds": "seconds",
        "result": "result",
    }
    values = {name: report[name] for name in names}
    return [(names[name], f"{value:,}" if isinstance(value, int | float) else value) for name, value in values.items()]
