"""
What happens to the token, as Prometheus sees it: counters, a histogram of refreshes, and when the token expires.

    pip install '.[prometheus]'
    python prometheus_events.py

Runs on a KIS of its own (`KisGateway`), on which the token expires twice. A server would call
`prometheus_client.start_http_server(8000)` instead of printing. An alert that says it in time:
`kis_retry_token_expires_timestamp_seconds - time() < 300`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from kis_retry import KisClient, MemoryTokenStore, TokenManager, on_event
from kis_retry.instrumentation import PrometheusHook
from kis_retry.testing import KisGateway


def main() -> None:
    registry = CollectorRegistry()  # without one of your own: PrometheusHook()
    on_event(PrometheusHook(registry))
    with KisGateway() as gateway:
        gateway.expire_at(2, 4)
        client = KisClient(tokens=TokenManager(gateway.credentials, store=MemoryTokenStore()))
        for symbol in ("005930", "000660", "035420"):
            client.fetch_domestic_price(symbol)
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith("kis_retry_") and "_bucket" not in line and "_created" not in line:
            print(line)


if __name__ == "__main__":
    main()
