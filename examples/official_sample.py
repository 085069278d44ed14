"""
A function in the manner of KIS's official samples, made to outlive its access token.

    pip install kis-retry
    python official_sample.py

The samples keep their token in base headers of the module. On anything but HTTP 200 they print the error and hand back
an empty table, so the caller never sees why. The decorator sees it all the same: it looks at what `requests` sends and
receives inside the function. `bind=` puts the new token into the base headers, for whoever else uses them.

It runs against a gateway of its own, whose token expires on the way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import requests

from kis_retry import AccessToken, MemoryTokenStore, TokenManager, refresh_on_expired_token
from kis_retry.testing import KisGateway

SYMBOLS = [f"{number:06d}" for number in range(5930, 5942)]

base_url = ""
base_headers = {"content-type": "application/json", "authorization": "", "appkey": "", "appsecret": ""}


def inquire_price(symbol: str) -> list[dict[str, Any]]:
    """As the samples do it."""
    answer = requests.get(
        f"{base_url}/uapi/domestic-stock/v1/quotations/inquire-price",
        headers={**base_headers, "tr_id": "FHKST01010100"},
        params={"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol},
        timeout=10,
    )
    if answer.status_code != 200:
        print(f"  {symbol}: Error {answer.status_code}: {answer.json()['msg1']}")
        return []
    return [answer.json()["output"]]


def keep(token: AccessToken) -> None:
    """Where this program keeps its token."""
    base_headers["authorization"] = token.bearer


def run(title: str, inquire: Callable[[str], list[dict[str, Any]]]) -> None:
    """Ask for every symbol, and count the tables that hold something."""
    tables = [inquire(symbol) for symbol in SYMBOLS]
    print(f"{title}: {sum(map(bool, tables))} of {len(tables)} tables hold data")


def main() -> int:
    """First the sample as it is, then the same one protected."""
    global base_url
    with KisGateway() as gateway:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore())
        base_url = gateway.url
        base_headers.update(tokens.headers(""))
        gateway.expire_at(5, 21)
        run("as it is", inquire_price)
        keep(tokens.refresh(base_headers["authorization"]))
        run("protected", refresh_on_expired_token(inquire_price, tokens=tokens, bind=keep))
    return 0


if __name__ == "__main__":
    sys.exit(main())
