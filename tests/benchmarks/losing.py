"""
What a batch loses, and what its orders come to: beside the libraries that people use, against a gateway with a limit.

Ten times as fast as KIS would have it: the gateway takes 180 calls a second instead of 18, and who paces itself does so
at ten times its own rate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from calling import library
from gateway import Gateway, running
from korea_investment_stock.rate_limit import RateLimitedKoreaInvestment
from measuring import Line

from kis_retry import KisClient, MemoryTokenStore, RateLimiter, ResponseError, RetryPolicy, TokenManager, protect

__all__ = ["lines"]

SYMBOLS = 16_780
THREADS = 16
FASTER = 10
LIMIT, THEIR_RATE = 18 * FASTER, 15 * FASTER
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"

TABLE = {
    **dict.fromkeys(("EGW00201",), 10),
    **dict.fromkeys(("EGW00215", "EGW00316", "EGW00300", "EGW00001", "EGW00002", "EGW00202", "EGW00203"), 1),
    **dict.fromkeys(("OPSQ1002", "OPSQ0003", "OPSQ0010", "OPSQ0011", "EGW00301", "EGW00302"), 1),
    **dict.fromkeys(("EGW00206", "EGW00207", "EGW00303"), 1),
}
"""How often an order may go out that meets the code three times at most."""

Fetch = Callable[[str], Any]


def lines(*, quick: bool) -> Iterator[Line]:
    with running() as gateway:
        yield from _whole_batch(gateway, SYMBOLS // 10 if quick else SYMBOLS)
    with running(latency=0.02) as gateway:
        yield from _beside_others(gateway, 300 if quick else 1_000)
    with running() as gateway:
        yield from _orders(gateway)


def _whole_batch(gateway: Gateway, symbols: int) -> Iterator[Line]:
    """As fast as the machine can: the pace is out of the way at a thousand calls a second."""
    tokens = _tokens(gateway)
    with KisClient(tokens=tokens, limiter=_limiter(gateway, 1_000)) as client:
        client.access_token  # noqa: B018  # the first token
        gateway.ask('refuse_calls {"msg_cd": "EGW00201", "share": 0.22}')
        gateway.ask('drop {"where": "calls", "share": 0.01}')
        gateway.ask('fail {"status": 503, "share": 0.01}')
        gateway.ask(f"expire_at [{symbols // 2}]")
        lost = _lost(client.fetch_domestic_price, symbols)
    met = gateway.ask("faults_met")
    yield Line(f"{symbols:,} symbols, 22 % EGW00201, 1 % drops, 1 % 503, an expiry: lost", lost, at_most=0)
    for name in ("EGW00201", "dropped", "HTTP 503"):
        yield Line(f"… calls that met {name}", met[name])


def _beside_others(gateway: Gateway, symbols: int) -> Iterator[Line]:
    for share in (0.0, 0.22):
        for name, fetch in _contenders(gateway).items():
            gateway.ask("heal")
            gateway.ask(f'limit_calls {{"per_second": {LIMIT}}}')
            if share:
                gateway.ask(f'refuse_calls {{"msg_cd": "EGW00201", "share": {share}}}')
            lost = _lost(fetch, symbols)
            what = f"{symbols:,} symbols, 16 threads, {share:.0%} refused within the limit: lost by {name}"
            yield Line(what, lost, at_most=0 if "kis_retry" in name else None)


def _contenders(gateway: Gateway) -> dict[str, Fetch]:
    tokens = _tokens(gateway)
    alone = library(gateway, tokens)
    paced = RateLimitedKoreaInvestment(library(gateway, tokens), calls_per_second=THEIR_RATE)
    protected = protect(library(gateway, tokens), tokens=tokens, limiter=_limiter(gateway, LIMIT))
    client = KisClient(tokens=tokens, limiter=_limiter(gateway, LIMIT))
    return {
        "korea-investment-stock": alone.fetch_domestic_price,
        "… with its RateLimitedKoreaInvestment": paced.fetch_domestic_price,
        "… protected by kis_retry": protected.fetch_domestic_price,
        "kis_retry's KisClient": client.fetch_domestic_price,
    }


def _orders(gateway: Gateway) -> Iterator[Line]:
    """One order for each row of the table, which meets it three times or, where nobody answers, once."""
    tokens = _tokens(gateway)
    again = placed_twice = 0
    with KisClient(tokens=tokens, limiter=_limiter(gateway, 1_000)) as client:
        client.access_token  # noqa: B018  # the first token
        troubles = [(f'refuse_calls {{"msg_cd": "{code}", "times": 3}}', most) for code, most in TABLE.items()]
        troubles += [(f'fail {{"status": {status}, "times": 3}}', 1) for status in (429, 500, 502, 503, 504)]
        troubles += [(f'fail {{"status": {status}, "times": 3, "reached": true}}', 1) for status in (500, 503)]
        troubles += [(f'drop {{"where": "calls", "times": 3, "reached": {kind}}}', 1) for kind in ("true", "false")]
        troubles += [("expire", 2)]
        for number, (trouble, most) in enumerate(troubles):
            gateway.ask("heal")
            before = gateway.counts()["calls"]
            gateway.ask(trouble)
            with contextlib.suppress(requests.RequestException, ResponseError):
                client.post(ORDER, "TTTC0012U", {"PDNO": "005930", "ID": str(number)})
            again += gateway.counts()["calls"] - before > most
        placed = [order["ID"] for order in gateway.ask("orders")]
        placed_twice = len(placed) - len(set(placed))
    yield Line(f"{len(troubles)} orders that meet the table: sent more often than it allows", again, at_most=0)
    yield Line("… placed twice", placed_twice, at_most=0)


def _tokens(gateway: Gateway) -> TokenManager:
    return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())


def _limiter(gateway: Gateway, rate: float) -> RateLimiter:
    return RateLimiter(gateway.credentials, rate=rate, store=MemoryTokenStore())


def _lost(fetch: Fetch, symbols: int) -> int:
    def is_lost(number: int) -> bool:
        try:
            return bool(fetch(f"{number:06d}")["rt_cd"] != "0")
        except Exception:  # of any library
            return True

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(is_lost, range(symbols)))
