"""Token sources of a user's own, and a library's object: `Broker`, importable by a spawned worker."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import Any

import requests

from answers import EXPIRED, GOOD, PRICE
from kis_retry import AccessToken, Credentials

FAR = datetime(2040, 1, 1, tzinfo=timezone.utc)


class NumberedTokens:
    """
    A source that counts: its tokens are called t1, t2 …, and only the newest is any good.

    Attributes:
        number: of the newest token.
        refreshed: the values of the tokens that it was asked to replace.
        error: raised by every refresh, where it is set.
    """

    def __init__(self, prefix: str = "t", error: Exception | None = None) -> None:
        self.number = 1
        self.refreshed: list[str] = []
        self.error = error
        self._prefix = prefix
        self._lock = threading.Lock()

    def token(self) -> AccessToken:
        return AccessToken(f"{self._prefix}{self.number}", FAR)

    def refresh(self, rejected: AccessToken) -> AccessToken:
        with self._lock:
            self.refreshed.append(rejected.value)
            if self.error is not None:
                raise self.error
            if rejected.value == self.token().value:
                self.number += 1
            return self.token()

    def answer(self, authorization: str) -> dict[str, str]:
        """What KIS says to that header."""
        return dict(GOOD if authorization == self.token().bearer else EXPIRED)


class Broker:
    """Sends app key and secret with every request, as all packages do, and keeps no token."""

    def __init__(self, credentials: Credentials) -> None:
        self._url = credentials.base_url + PRICE
        self._headers = {"appkey": credentials.app_key, "appsecret": credentials.app_secret}

    def fetch_price(self, symbol: str) -> dict[str, Any]:
        query = {"FID_INPUT_ISCD": symbol}
        answer: dict[str, Any] = requests.get(self._url, query, headers=self._headers, timeout=60).json()
        return answer
