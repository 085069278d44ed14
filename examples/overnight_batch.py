"""
An overnight batch: a price for every symbol, in a pool of threads, and a token that expires on the way.

    pip install kis-retry
    KIS_APP_KEY=… KIS_APP_SECRET=… python overnight_batch.py

Without credentials it runs on a KIS of its own (`KisGateway`), so that it can be tried right away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from kis_retry import ConfigurationError, KisClient, MemoryTokenStore, RateLimiter, TokenManager, on_event
from kis_retry.testing import KisGateway

SYMBOLS = ["005930", "000660", "035420", "005380", "051910", "006400", "035720", "105560"] * 25


@contextmanager
def connect() -> Iterator[KisClient]:
    """Give a client of KIS, 18 calls a second, or of a KIS of its own, as fast as it goes."""
    try:
        client = KisClient.from_env()
    except ConfigurationError as error:
        print(f"Running on a KIS of its own, since {error}")
        with KisGateway() as gateway:
            gateway.expire_at(75, 150)
            credentials, store = gateway.credentials, MemoryTokenStore()
            limiter = RateLimiter(credentials, rate=0, store=store)
            yield KisClient(tokens=TokenManager(credentials, store=store), limiter=limiter)
    else:
        yield client


def main() -> int:
    on_event(lambda event: print(f"  {event.name} {event.token or ''}\n", end=""))  # one write: threads print at once
    failures: Counter[str] = Counter()

    with connect() as client, ThreadPoolExecutor(max_workers=2) as pool:

        def fetch(symbol: str) -> None:
            answer = client.fetch_domestic_price(symbol)  # nothing about tokens or the pace here
            if answer["rt_cd"] != "0":
                failures[answer["msg1"]] += 1

        list(pool.map(fetch, SYMBOLS))

    print(f"{len(SYMBOLS) - failures.total()} of {len(SYMBOLS)} symbols answered")
    for message, times in failures.most_common():
        print(f"  {times} times: {message}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
