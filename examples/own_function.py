"""
The decorator, as it is, on a function of your own that gets its token in `headers`, as the KIS samples do.

    pip install kis-retry
    KIS_APP_KEY=… KIS_APP_SECRET=… python own_function.py

Without credentials it runs on a KIS of its own (`KisGateway`), so that it can be tried right away.
"""

from __future__ import annotations

from typing import Any

import requests

from kis_retry import ConfigurationError, MemoryTokenStore, TokenManager, refresh_on_expired_token
from kis_retry.testing import KisGateway


def show_prices(tokens: TokenManager) -> None:
    @refresh_on_expired_token  # the one line
    def current_price(symbol: str, headers: dict[str, str]) -> dict[str, Any]:
        """Do what it did before; a new token is put into the caller's `headers`, too."""
        answer = requests.get(
            f"{tokens.credentials.base_url}/uapi/domestic-stock/v1/quotations/inquire-price",
            params={"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol},
            headers=headers,
            timeout=10,
        )
        body: dict[str, Any] = answer.json()
        return body

    headers = tokens.headers("FHKST01010100")
    for symbol in ("005930", "000660", "035420"):
        body = current_price(symbol, headers)
        print(symbol, body["output"]["stck_prpr"] if body["rt_cd"] == "0" else body["msg1"])


def main() -> None:
    try:
        tokens = TokenManager.from_env()
    except ConfigurationError as error:
        print(f"Running on a KIS of its own, since {error}")
        with KisGateway() as gateway:
            gateway.expire_at(2)
            show_prices(TokenManager(gateway.credentials, store=MemoryTokenStore()))
            print(f"KIS refused {gateway.counts.refused} call and issued {gateway.counts.tokens_issued} tokens")
    else:
        show_prices(tokens)


if __name__ == "__main__":
    main()
