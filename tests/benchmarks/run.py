"""
What it costs, beside what it stands in front of; fails where a bound is missed: `tox -e bench`.

Each figure is the quickest of many rounds that alternate with what it is compared to, so that a busy machine slows
both. The gateway is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import requests
import tenacity

from kis_retry import (
    Credentials,
    KisClient,
    MemoryTokenStore,
    TokenManager,
    refresh_on_expired_token,
)

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
QUERY = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}
NO_PACE = {**os.environ, "KIS_RATE_LIMIT": "0", "KIS_TOKEN_STORE": "memory"}

_failed: list[str] = []


def quickest(*functions: Callable[[], Any], calls: int, rounds: int) -> list[float]:
    """Give seconds a call of each, the quickest round of all."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for index, function in enumerate(functions):
            began = time.perf_counter()
            for _ in range(calls):
                function()
            best[index] = min(best[index], (time.perf_counter() - began) / calls)
    return best


def told(what: str, figure: float, bound: float) -> None:
    missed = figure > bound
    print(f"{what:<78} {figure:6.3f}  at most {bound:5.2f}{'  MISSED' if missed else ''}")
    if missed:
        _failed.append(what)


def without_requests() -> None:
    def fetch(symbol: str = "005930") -> dict[str, str]:
        return {"rt_cd": "0"}

    plain, ours, theirs = quickest(
        fetch, refresh_on_expired_token(fetch), tenacity.retry(fetch), calls=2_000, rounds=30
    )
    told("a decorated function that sends nothing ÷ tenacity's @retry", (ours - plain) / (theirs - plain), 0.40)


def with_requests(url: str, key: str, secret: str) -> None:
    tokens = TokenManager(Credentials(key, secret, base_url=url), store=MemoryTokenStore())
    session, headers = requests.Session(), tokens.headers("FHKST01010100")

    def fetch() -> Any:
        return session.get(url + PRICE, params=QUERY, headers=headers, timeout=9).json()

    client = KisClient(tokens=tokens)
    plain, ours, shipped = quickest(
        fetch,
        refresh_on_expired_token(fetch),
        lambda: client.fetch_domestic_price("005930"),
        calls=100,
        rounds=20,
    )
    told("a decorated function that sends one request ÷ itself undecorated", ours / plain, 1.10)
    told("KisClient ÷ requests.Session.get", shipped / plain, 0.95)


def importing() -> None:
    def of(names: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {names}"], check=True)
        return time.perf_counter() - began

    pairs = [(of("kis_retry.decorators"), of("tenacity, requests"), of("sys")) for _ in range(15)]
    ours, theirs, nothing = (min(column) for column in zip(*pairs, strict=True))
    told("importing kis_retry ÷ tenacity and requests", (ours - nothing) / (theirs - nothing), 1.25)


def main() -> int:
    os.environ.update(NO_PACE)
    without_requests()
    gateway = subprocess.Popen(
        [sys.executable, "-m", "kis_retry", "gateway", "--app-key", "k" * 36, "--app-secret", "s" * 180],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert gateway.stdout is not None
        with_requests(gateway.stdout.readline().strip(), "k" * 36, "s" * 180)
    finally:
        gateway.terminate()
        gateway.wait()
    importing()
    return len(_failed)


if __name__ == "__main__":
    sys.exit(main())
