"""
Sixty tasks over one expiry, with httpx: they share one refresh.

    pip install kis-retry httpx
    python async_httpx.py

The tasks share one dict of headers. The first to be refused renews the token, the others wait for it as tasks, and the
new token is put into that dict. It runs against a gateway of its own, whose token expires on the way.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from kis_retry import MemoryTokenStore, TokenManager, refresh_on_expired_token
from kis_retry.testing import KisGateway

TASKS = 60
PATH = "/uapi/domestic-stock/v1/quotations/inquire-price"


async def run(gateway: KisGateway) -> int:
    """Ask for many prices at once."""
    import httpx

    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore())

    @refresh_on_expired_token  # the one line
    async def fetch(client: httpx.AsyncClient, symbol: str, headers: dict[str, str]) -> Any:
        params = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
        return (await client.get(PATH, params=params, headers=headers)).json()

    headers = await tokens.headers_async("FHKST01010100")
    gateway.expire_at(TASKS // 2)
    limits, timeout = httpx.Limits(max_connections=20), httpx.Timeout(10, pool=None)  # in the queue as long as it takes
    async with httpx.AsyncClient(base_url=gateway.url, limits=limits, timeout=timeout) as client:
        answers = await asyncio.gather(*(fetch(client, f"{number:06d}", headers) for number in range(TASKS)))
    return sum(answer["rt_cd"] == "0" for answer in answers)


def main() -> int:
    """Run, and say what it cost."""
    try:
        import httpx  # noqa: F401  # is it there?
    except ImportError:
        print("This example needs httpx: pip install httpx", file=sys.stderr)
        return 1
    with KisGateway() as gateway:
        good = asyncio.run(run(gateway))
        counts = gateway.counts
    print(f"{good} of {TASKS} answers are good")
    print(f"{counts.refused} calls were refused, and {counts.tokens_issued - 1} token was issued for all of them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
