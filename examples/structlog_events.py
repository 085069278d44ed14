"""
What happens to the token, in structlog's words: one line an event, fields instead of sentences.

    pip install '.[structlog]'
    python structlog_events.py

Runs on a KIS of its own (`KisGateway`), on which the token expires twice.
"""

from __future__ import annotations

import logging

import structlog

from kis_retry import KisClient, MemoryTokenStore, TokenManager, on_event
from kis_retry.instrumentation import StructlogHook
from kis_retry.testing import KisGateway


def main() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),  # on DEBUG: who joined another's refresh
    )
    on_event(StructlogHook())
    with KisGateway() as gateway:
        gateway.expire_at(2, 4)
        client = KisClient(tokens=TokenManager(gateway.credentials, store=MemoryTokenStore()))
        for symbol in ("005930", "000660", "035420"):
            with structlog.contextvars.bound_contextvars(symbol=symbol):  # the program's own context is in the line too
                client.fetch_domestic_price(symbol)


if __name__ == "__main__":
    main()
