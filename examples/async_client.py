"""
Sixty tasks on one `AsyncKisClient`, over an expiry, refusals and dropped connections: none of them notices.

    pip install '.[async]'
    python async_client.py

It runs on a KIS of its own (`KisGateway`), so no app key is needed. For KIS itself: `AsyncKisClient.from_env()`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from kis_retry import AsyncKisClient, MemoryTokenStore, RateLimiter, TokenManager
from kis_retry.testing import KisGateway

SYMBOLS = [f"{number:06d}" for number in range(60)]


async def run(gateway: KisGateway) -> Counter[str]:
    """Ask for every price at once, and count what KIS answers."""
    credentials = gateway.credentials
    tokens = TokenManager(credentials, store=MemoryTokenStore())
    no_pace = RateLimiter(credentials, rate=0)  # leave it out for KIS: 18 calls a second, or 1 on paper
    async with AsyncKisClient(tokens=tokens, limiter=no_pace) as client:
        answers = await asyncio.gather(*(client.fetch_domestic_price(symbol) for symbol in SYMBOLS))
    return Counter(answer["rt_cd"] for answer in answers)


def main() -> int:
    """Run, and say what it cost."""
    try:
        import httpx  # noqa: F401  # is it there?
    except ImportError:
        print("This example needs httpx: pip install '.[async]' in a clone of the repository", file=sys.stderr)
        return 1
    with KisGateway() as gateway:
        gateway.expire_at(30)
        gateway.refuse_calls("EGW00201", 10)
        gateway.drop("calls", 2)
        answers = asyncio.run(run(gateway))
        issued = gateway.counts.tokens_issued
    print(f"{answers['0']} of {len(SYMBOLS)} symbols answered, with {issued} tokens")
    return 0 if answers["0"] == len(SYMBOLS) else 1


if __name__ == "__main__":
    sys.exit(main())
