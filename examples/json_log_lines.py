"""
What happens to the token, as JSON lines: the standard logger `kis_retry` with a formatter of python-json-logger.

    pip install kis-retry python-json-logger
    python json_log_lines.py

Runs on a KIS of its own (`KisGateway`), on which the token expires once. No hook is needed: the logger is always on.
`kis_name` is what happened; the message would say it again with the fields that have keys of their own here.
"""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from kis_retry import KisClient, MemoryTokenStore, TokenManager
from kis_retry.testing import KisGateway


class WithoutNulls(JsonFormatter):
    """A field that says nothing is left out."""

    def process_log_record(self, log_data):
        return {name: value for name, value in super().process_log_record(log_data).items() if value is not None}


def main() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(WithoutNulls("%(asctime)s %(levelname)s %(kis_name)s", json_ensure_ascii=False))
    logger = logging.getLogger("kis_retry")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with KisGateway() as gateway:
        gateway.expire_at(2)
        client = KisClient(tokens=TokenManager(gateway.credentials, store=MemoryTokenStore()))
        for symbol in ("005930", "000660"):
            client.fetch_domestic_price(symbol)


if __name__ == "__main__":
    main()
