"""A library's object whose requests carry its account: `Broker`, importable by a spawned worker."""

from __future__ import annotations

from typing import Any

import requests

from answers import PRICE
from kis_retry import Credentials

__all__ = ["Broker"]


class Broker:
    """Sends app key and secret with every request, as all packages do, and keeps no token."""

    def __init__(self, credentials: Credentials) -> None:
        self._url = credentials.base_url + PRICE
        self._headers = {"appkey": credentials.app_key, "appsecret": credentials.app_secret}

    def fetch_price(self, symbol: str) -> dict[str, Any]:
        query = {"FID_INPUT_ISCD": symbol}
        answer: dict[str, Any] = requests.get(self._url, query, headers=self._headers, timeout=60).json()
        return answer
