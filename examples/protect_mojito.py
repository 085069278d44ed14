"""
The library mojito2, protected: its `fetch_*` methods outlive the access token.

    pip install '.[testing]' mojito2 pandas
    python protect_mojito.py

With KIS_APP_KEY, KIS_APP_SECRET and KIS_ACCOUNT_NO in the environment it asks KIS. Without them it asks a gateway of
its own, whose token dies on the way.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from kis_retry import ConfigurationError, Credentials, MemoryTokenStore, RefreshEvent, TokenManager, on_event, protect

BATCH = ("005930", "000660", "035420", "005380", "051910")


def say(event: RefreshEvent) -> None:
    """One line for each step; an event holds no secret."""
    print(f"  {event.name}")


def run(broker: Any) -> None:
    """Ask for a few prices, and say what came of it."""
    good = 0
    for symbol in BATCH:
        answer = broker.fetch_price(symbol)
        good += answer["rt_cd"] == "0"
        print(f"{symbol}: {answer['msg1']}")
    print(f"{good} of {len(BATCH)} answers are good")


def main() -> int:
    """Protect the class before the first broker is made: then it shares the token from the start."""
    try:
        from mojito import KoreaInvestment
    except ImportError:
        print("This example needs mojito2: pip install mojito2 pandas", file=sys.stderr)
        return 1
    on_event(say)
    with ExitStack() as stack:
        try:
            credentials = Credentials.from_env()
            tokens = TokenManager.from_env()
        except ConfigurationError:
            from kis_retry.testing import KisGateway

            gateway = stack.enter_context(KisGateway().mocked())
            gateway.expire_at(3)
            credentials = gateway.credentials
            tokens = TokenManager(credentials, store=MemoryTokenStore())
        protect(KoreaInvestment, tokens=tokens)
        run(KoreaInvestment(credentials.app_key, credentials.app_secret, credentials.account, mock=credentials.paper))
    return 0


if __name__ == "__main__":
    sys.exit(main())
