"""When a token dies: how long the call that notices takes, and what many threads or processes cost KIS."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from gateway import Gateway, running
from measuring import Line, side_by_side

from kis_retry import (
    Credentials,
    FileTokenStore,
    KisClient,
    RateLimiter,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    on_event,
)

__all__ = ["lines"]

MILLISECOND = 1e-3
LATENCY = 0.02  # seconds an answer takes: a fast one of KIS
CALLS = 10  # of each thread or process around the expiry
THREADS = (1, 4, 16, 64)
PROCESSES = (1, 2, 4, 8)


def lines(*, quick: bool) -> Iterator[Line]:
    with running(latency=LATENCY) as gateway:
        yield from _time_to_answer(gateway, rounds=5 if quick else 25)
        for count in THREADS:
            yield from _herd(gateway, count, "threads", _in_threads)
        for count in PROCESSES:
            yield from _herd(gateway, count, "processes", _in_processes)


def client_of(credentials: Credentials, folder: str) -> KisClient:
    store = FileTokenStore(folder)
    tokens = TokenManager(credentials, store=store, policy=RetryPolicy())
    return KisClient(tokens=tokens, limiter=RateLimiter(credentials, rate=0, store=store))


def _time_to_answer(gateway: Gateway, rounds: int) -> Iterator[Line]:
    refused: list[float] = []

    def note(event: RefreshEvent) -> None:
        if event.name == "token_expired":
            refused.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, client_of(gateway.credentials, folder) as client, ExitStack() as end:
        end.callback(on_event(note))
        session = end.enter_context(requests.Session())

        def recovery() -> float:
            gateway.expire()
            client.fetch_domestic_price("005930")
            return time.perf_counter() - refused.pop()

        def token_request() -> float:
            gateway.expire()
            return _seconds(lambda: _ask_for_token(session, gateway.credentials))

        contenders = {
            "recovery": recovery,
            "call": lambda: _seconds(lambda: client.fetch_domestic_price("005930")),
            "token request": token_request,
        }
        client.fetch_domestic_price("005930")
        # The order is kept: a call finds the token that the recovery before it brought.
        measured = side_by_side(contenders, rounds, turning=False)
    for name, what in (
        ("recovery", "from the refusal to the repeated call's answer"),
        ("token request", "one token request"),
        ("call", "one call"),
    ):
        yield Line(what, measured.median(name) / MILLISECOND, "ms")
    both = measured.sum("token request", "call")
    yield Line("recovery: of one token request and one call", both.ratio("recovery", "sum"), "×", at_most=1.2)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _ask_for_token(session: requests.Session, credentials: Credentials) -> Any:
    body = {
        "grant_type": "client_credentials",
        "appkey": credentials.app_key,
        "appsecret": credentials.app_secret,
    }
    answer = session.post(f"{credentials.base_url}/oauth2/tokenP", json=body, timeout=10)
    answer.raise_for_status()
    return answer.json()


# -- many at once

Herd = Callable[[Gateway, str, int, Callable[[], None]], None]


def _herd(gateway: Gateway, count: int, kind: str, herd: Herd) -> Iterator[Line]:
    """`count` of them call at once and again; when every one has had an answer, the token dies."""
    gateway.expire()
    counted: dict[str, int] = {}

    def all_ready() -> None:
        gateway.expire()
        counted.update(gateway.counts())

    with tempfile.TemporaryDirectory() as folder:
        herd(gateway, folder, count, all_ready)
    after = gateway.counts()
    answered = after["answered"] - counted["answered"]
    assert answered == count * CALLS, f"{answered} answers instead of {count * CALLS}"
    asked = after["token_requests"] - counted["token_requests"]
    wasted = after["refused"] - counted["refused"]
    yield Line(f"{kind}, {count} of them: token requests", asked, at_most=1)
    yield Line(f"{kind}, {count} of them: wasted calls", wasted, at_most=count)


def _in_threads(gateway: Gateway, folder: str, count: int, all_ready: Callable[[], None]) -> None:
    ready = threading.Barrier(count, action=all_ready)

    def work() -> None:
        client.fetch_domestic_price("005930")
        ready.wait()
        for _ in range(CALLS):
            assert client.fetch_domestic_price("005930")["rt_cd"] == "0"

    with client_of(gateway.credentials, folder) as client, ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()


def _in_processes(gateway: Gateway, folder: str, count: int, all_ready: Callable[[], None]) -> None:
    who = gateway.credentials
    command = [sys.executable, str(Path(__file__)), who.base_url, who.app_key, folder]
    with ExitStack() as end:
        workers = [
            end.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(count)
        ]
        for worker in workers:
            _pipe(worker.stdin).write(f"{who.app_secret}\n")
            _pipe(worker.stdin).flush()
        for worker in workers:
            assert _pipe(worker.stdout).readline() == "ready\n"
        all_ready()
        for worker in workers:
            _pipe(worker.stdin).write("go\n")
            _pipe(worker.stdin).flush()
        assert [worker.wait() for worker in workers] == [0] * count


def _pipe(pipe: Any) -> Any:
    assert pipe is not None
    return pipe


def _worker(base_url: str, app_key: str, folder: str) -> None:
    """One of the processes; the secret comes through the pipe, since anybody may read command lines."""
    credentials = Credentials(app_key, sys.stdin.readline().strip(), base_url=base_url)
    with client_of(credentials, folder) as client:
        client.fetch_domestic_price("005930")
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(CALLS):
            assert client.fetch_domestic_price("005930")["rt_cd"] == "0"


if __name__ == "__main__":
    _worker(*sys.argv[1:])
