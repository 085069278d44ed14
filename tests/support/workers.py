"""Real processes that make calls: `Worker`, `Crew`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import requests

from answers import GOOD_CODE, PRICE
from forks import forks
from kis_retry import Credentials, KisClient, install, on_event, refresh_on_expired_token
from kis_retry.testing import KisGateway
from patience import PATIENCE

__all__ = ["WAYS", "Crew", "Report", "Worker", "environment", "total"]

WAYS = ("client", "decorated", "installed")
"""How a process makes its calls: `KisClient`, a bare decorator over `requests`, `install` over `httpx`."""

_REST = 0.02  # seconds between two calls of those who make them until they are stopped, or killed


@dataclass
class Report:
    """What became of a job: how often each code was answered, and what was told meanwhile."""

    answers: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


def total(reports: Sequence[Report]) -> dict[str, int]:
    """The answers of all of them."""
    return dict(sum((report.answers for report in reports), Counter[str]()))


class Worker:
    """
    A process of its own.

    Attributes:
        lost: codes and errors that its calls came to instead of an answer, as far as they are known.
    """

    def __init__(self, way: str, environ: dict[str, str]) -> None:
        self._pipe, theirs = forks().Pipe()
        self._process = forks().Process(target=_work, args=(theirs, way, environ), daemon=True)
        self._process.start()
        theirs.close()
        self.lost: list[str] = []

    def wait_until_ready(self) -> None:
        assert self._pipe.recv() == "ready"

    def begin(self, threads: int = 1, calls: int | None = None) -> None:
        """Have it make so many calls on each of so many threads (None: one after the other until `stop`)."""
        self._pipe.send((threads, calls))

    def stop(self) -> None:
        self._pipe.send("stop")

    def report(self) -> Report:
        """Wait for what became of its job."""
        while self._pipe.poll(PATIENCE):
            said = self._pipe.recv()
            if isinstance(said, Report):
                return said
            self.lost.append(said)
        raise AssertionError(f"it never ended; lost so far: {self.lost}")

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._pipe.closed:
            return
        self._process.kill()
        self._process.join(PATIENCE)
        with suppress(EOFError, OSError):
            self.report()
        self._pipe.close()


class Crew:
    """
    Workers that are let loose together.

    Args:
        ways: of each of them.
        environ: of the worker of a number.
    """

    def __init__(self, ways: Sequence[str], environ: Callable[[int], dict[str, str]]) -> None:
        self.workers = [Worker(way, environ(number)) for number, way in enumerate(ways)]
        for worker in self.workers:
            worker.wait_until_ready()

    def __enter__(self) -> Crew:  # noqa: PYI034  # typing.Self is of 3.11
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()

    def run(self, *, threads: int = 1, calls: int = 1) -> list[Report]:
        """Have each make so many calls on each of so many threads."""
        for worker in self.workers:
            worker.begin(threads, calls)
        return [worker.report() for worker in self.workers]


def environment(gateway: KisGateway, place: str, home: Path) -> dict[str, str]:
    """The settings of a worker that calls a gateway and shares its token at `place`."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "KIS_APP_KEY": gateway.credentials.app_key,
        "KIS_APP_SECRET": gateway.credentials.app_secret,
        "KIS_BASE_URL": gateway.url,
        "KIS_TOKEN_STORE": place,
        "KIS_RATE_LIMIT": "0",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
    }


def _work(pipe: Connection, way: str, environ: dict[str, str]) -> None:
    os.environ.update(environ)
    os.chdir(environ["HOME"])
    sys.stdout = sys.stderr  # what pytest took away
    ask = _asking(way)
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            pipe.send(_done(pipe, ask, *pipe.recv()))


def _asking(way: str) -> Callable[[], Any]:
    """Make what makes one call, and gives the answer."""
    if way == "client":
        client = KisClient.from_env()
        return lambda: client.fetch_domestic_price("005930")
    given = Credentials.from_env()
    url, headers = given.base_url + PRICE, {"appkey": given.app_key, "appsecret": given.app_secret}
    if way == "decorated":
        return refresh_on_expired_token(lambda: requests.get(url, headers=headers, timeout=PATIENCE).json())
    install()
    by_httpx = httpx.Client(timeout=PATIENCE, trust_env=False)
    return lambda: by_httpx.get(url, headers=headers).json()


def _done(pipe: Connection, ask: Callable[[], Any], threads: int, calls: int | None) -> Report:
    report, lock, logger = Report(), threading.Lock(), logging.getLogger("kis_retry")
    warned = logging.Handler(logging.WARNING)
    warned.emit = lambda record: report.warnings.append(record.getMessage())  # type: ignore[method-assign]  # no more
    logger.addHandler(warned)
    unsubscribe = on_event(lambda event: report.events.update([event.name]))
    stopped = threading.Event()

    def work() -> None:
        made = 0
        while made != calls and not stopped.is_set():
            try:
                code = ask()["msg_cd"]
            except Exception as error:  # whatever it is, the test wants to see it
                code = type(error).__name__
            made += 1
            if calls is None:
                time.sleep(_REST)
            with lock:
                report.answers[code] += 1
                if code != GOOD_CODE:
                    pipe.send(code)

    crowd = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    if calls is None:
        assert pipe.recv() == "stop"
        stopped.set()
    for thread in crowd:
        thread.join()
    unsubscribe()
    logger.removeHandler(warned)
    return report
