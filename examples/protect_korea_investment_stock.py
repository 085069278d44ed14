"""
The library korea-investment-stock, protected: its `fetch_*` methods outlive the access token.

    pip install '.[testing]' korea-investment-stock
    python protect_korea_investment_stock.py

With KIS_APP_KEY, KIS_APP_SECRET and KIS_ACCOUNT_NO (or KOREA_INVESTMENT_API_KEY and so on) in the environment it asks
KIS. Without them it asks a gateway of its own, whose token dies on the way.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kis_retry import ConfigurationError, Credentials, MemoryTokenStore, RefreshEvent, TokenManager, on_event, protect

BATCH = (("005930", "KR"), ("AAPL", "US"), ("069500", "KR"), ("SPY", "US"), ("000660", "KR"))


def say(event: RefreshEvent) -> None:
    """One line for each step; an event holds no secret."""
    print(f"  {event.name}")


def run(broker: Any) -> None:
    """Ask for a few prices, and say what came of it."""
    good = 0
    for symbol, country in BATCH:
        answer = broker.fetch_price(symbol, country)
        good += answer["rt_cd"] == "0"
        print(f"{symbol}: {answer['msg1']}")
    print(f"{good} of {len(BATCH)} answers are good")


def main() -> int:
    """Make a broker as ever, then protect it."""
    try:
        from korea_investment_stock import FileTokenStorage, KoreaInvestment
    except ImportError:
        print("This example needs korea-investment-stock: pip install korea-investment-stock", file=sys.stderr)
        return 1
    on_event(say)
    with ExitStack() as stack:
        try:
            credentials, storage = Credentials.from_env(), None
            tokens = TokenManager.from_env()
        except ConfigurationError:
            from kis_retry.testing import KisGateway

            gateway = stack.enter_context(KisGateway().mocked())
            gateway.expire_at(6)
            credentials = gateway.credentials
            storage = FileTokenStorage(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "token.key")
            tokens = TokenManager(credentials, store=MemoryTokenStore())
        broker = KoreaInvestment(
            credentials.app_key, credentials.app_secret, credentials.account, token_storage=storage
        )
        run(protect(broker, tokens=tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main())
