"""
A night of maintenance on a simulated clock: ten minutes in which every call fails, and four processes outlast them.

What waits in `kis_retry` and tenacity goes by a clock that runs thirty times as fast; the gateway's outage is as much
shorter. So the pace asks for more calls than a machine makes, and what is measured is whether anything is lost, how
many requests go out meanwhile, and how soon all go on.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway import Gateway, running
from measuring import Line

from kis_retry import Credentials, FileTokenStore, KisClient, TokenManager

__all__ = ["lines"]

FASTER = 30
OUTAGE = 600.0  # seconds of the simulated clock
PROCESSES, THREADS = 4, 4
CLOCKED = (
    *("tenacity", "tenacity.nap", "kis_retry.retry.call", "kis_retry.retry.ledger"),
    *("kis_retry.retry.reports", "kis_retry.retry.shared_ledger", "kis_retry.retry.slots"),
)
"""Modules that wait, or measure waits."""


def lines(*, quick: bool) -> Iterator[Line]:
    with running(latency=0.02) as gateway, tempfile.TemporaryDirectory() as folder:
        yield from _night(gateway, folder, OUTAGE / 4 if quick else OUTAGE)


def _night(gateway: Gateway, folder: str, outage: float) -> Iterator[Line]:
    who = gateway.credentials
    command = [sys.executable, str(Path(__file__)), who.base_url, who.app_key, folder]
    environment = {**os.environ, "KIS_RETRY_TRANSIENT_DEADLINE": "7200"}
    with ExitStack() as end:
        workers = []
        for _ in range(PROCESSES):
            worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            end.callback(worker.kill)
            workers.append(end.enter_context(worker))
        for worker in workers:
            _tell(worker, who.app_secret)
        for worker in workers:
            assert _line(worker) == "ready"
        for worker in workers:
            _tell(worker, "go")
        time.sleep(2)
        gateway.ask(json_command("outage", seconds=outage / FASTER, where="calls", status=500))
        over = time.monotonic() + outage / FASTER
        time.sleep(outage / FASTER + 4)
        for worker in workers:
            _tell(worker, "stop")
        found = [json.loads(_line(worker)) for worker in workers]
    met = gateway.ask("faults_met")["outage"]
    resumed = max(min(now for now in worker["answered"] if now > over) for worker in found) - over
    what = f"{outage / 60:g} minutes of outage, 4 processes, deadline 7,200"
    yield Line(f"{what}: calls made in all", sum(len(worker["answered"]) for worker in found))
    yield Line(f"{what}: lost", sum(worker["lost"] for worker in found), at_most=0)
    yield Line(f"{what}: all have resumed within", resumed * FASTER, "s", at_most=10)
    yield Line(f"{what}: requests a second while it lasts", met / outage, "", at_most=4)


def json_command(name: str, **arguments: Any) -> str:
    return f"{name} {json.dumps(arguments)}"


def _tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


class FastClock:
    """The module `time`, but that waits end sooner; all processes of the machine see the same."""

    def monotonic(self) -> float:
        return time.monotonic() * FASTER

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / FASTER)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _worker(base_url: str, app_key: str, folder: str) -> None:
    """One of the processes; the secret comes through the pipe, since anybody may read command lines."""
    for name in CLOCKED:
        importlib.import_module(name).time = FastClock()  # type: ignore[attr-defined]  # the module that they import
    credentials = Credentials(app_key, sys.stdin.readline().strip(), base_url=base_url)
    answered: list[float] = []
    lost: list[Any] = []
    done = threading.Event()
    with KisClient(tokens=TokenManager(credentials, store=FileTokenStore(folder))) as client:
        client.fetch_domestic_price("005930")
        print("ready", flush=True)
        sys.stdin.readline()

        def work() -> None:
            while not done.is_set():
                try:
                    good = client.fetch_domestic_price("005930")["rt_cd"] == "0"
                except Exception:  # whatever it is, the call is lost
                    good = False
                (answered if good else lost).append(time.monotonic())

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        sys.stdin.readline()
        done.set()
        for thread in threads:
            thread.join()
    print(json.dumps({"answered": answered, "lost": len(lost)}), flush=True)


if __name__ == "__main__":
    _worker(*sys.argv[1:])
