"""
KIS's official samples, made to outlive their access token with one line: `install()`.

    pip install kis-retry
    python official_sample.py

In the samples every function asks through `_url_fetch` of the module `kis_auth`, which keeps the token in its base
headers. On anything but HTTP 200 it prints the error and the function hands back an empty table, so the caller never
sees why. This program does the same, in their manner, against a gateway of its own whose token expires on the way.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import requests

from kis_retry import install
from kis_retry.testing import KisGateway

SYMBOLS = [f"{number:06d}" for number in range(5930, 5942)]

_cfg: dict[str, str] = {}  # what the samples read from kis_devlp.yaml
_base_headers = {"Content-Type": "application/json"}


def auth() -> None:
    """Ask for a token, and keep it in the base headers."""
    body = {"grant_type": "client_credentials", "appkey": _cfg["my_app"], "appsecret": _cfg["my_sec"]}
    token = requests.post(f"{_cfg['prod']}/oauth2/tokenP", json=body, timeout=10).json()["access_token"]
    _base_headers.update(authorization=f"Bearer {token}", appkey=_cfg["my_app"], appsecret=_cfg["my_sec"])


def _url_fetch(api_url: str, tr_id: str, params: dict[str, str]) -> dict[str, Any]:
    headers = {**_base_headers, "tr_id": tr_id, "custtype": "P"}
    answer = requests.get(_cfg["prod"] + api_url, headers=headers, params=params, timeout=10)
    if answer.status_code != 200:
        print(f"  Error Code : {answer.status_code} | {answer.json()['msg1']}")
        return {}
    body: dict[str, Any] = answer.json()
    return body


def inquire_price(symbol: str) -> list[dict[str, Any]]:
    """One of the functions that ask through it: a table of one row, or an empty one."""
    query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
    body = _url_fetch("/uapi/domestic-stock/v1/quotations/inquire-price", "FHKST01010100", query)
    return [body["output"]] if body.get("rt_cd") == "0" else []


def run(title: str) -> None:
    """Ask for every symbol, and count the tables that hold something."""
    tables = [inquire_price(symbol) for symbol in SYMBOLS]
    print(f"{title}: {sum(map(bool, tables))} of {len(tables)} tables hold data")


def main() -> int:
    """First the samples as they are, then the same ones protected."""
    with KisGateway() as gateway:
        given = gateway.credentials
        _cfg.update(my_app=given.app_key, my_sec=given.app_secret, prod=gateway.url)
        auth()
        gateway.expire_at(5, 21)
        run("as it is")

        os.environ["KIS_TOKEN_STORE"] = "memory"  # else the token is shared in a file
        install()  # the one line
        run("protected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
