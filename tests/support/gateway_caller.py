"""Somebody who calls a gateway over HTTP as people call KIS, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import requests

from kis_retry.testing import KisGateway

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
DETAIL = "/uapi/overseas-price/v1/quotations/price-detail"
INFO = "/uapi/domestic-stock/v1/quotations/search-info"
STOCK = "/uapi/domestic-stock/v1/quotations/search-stock-info"
OFFERS = "/uapi/domestic-stock/v1/ksdinfo/pub-offer"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
NINE_IN_SEOUL = 1_795_478_400.0  # 2026-11-24 09:00:00 +09:00


class Caller:
    """A session with the right keys. `now` is the gateway's time."""

    def __init__(self, **settings: Any) -> None:
        self.now = NINE_IN_SEOUL
        self.gateway = KisGateway(clock=lambda: self.now, **settings)
        self.session = requests.Session()

    def __enter__(self) -> Caller:  # noqa: PYI034  # typing.Self is of 3.11
        self.gateway.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.gateway.close()

    def keys(self, **changed: Any) -> dict[str, Any]:
        credentials = self.gateway.credentials
        return {"appkey": credentials.app_key, "appsecret": credentials.app_secret, **changed}

    def post(self, path: str, body: Any, token: str | None = None, **headers: str) -> requests.Response:
        given = {"authorization": f"Bearer {token}"} if token else {}
        return self.session.post(self.gateway.url + path, json=body, headers={**given, **headers}, timeout=20)

    def ask_token_raw(self, **changed: Any) -> requests.Response:
        return self.post("/oauth2/tokenP", {"grant_type": "client_credentials", **self.keys(**changed)})

    def ask_token(self, **changed: Any) -> tuple[int, dict[str, Any]]:
        answer = self.ask_token_raw(**changed)
        return answer.status_code, answer.json()

    def token(self) -> str:
        status, body = self.ask_token()
        assert status == 200, body
        return str(body["access_token"])

    def get(self, path: str = PRICE, token: str | None = None, **rest: Any) -> requests.Response:
        """A call with the newest token, unless another is given; `headers` are added."""
        token = token or self.gateway.current_token or self.gateway.issue_elsewhere()["access_token"]
        headers = {"authorization": f"Bearer {token}", "tr_id": "FHKST01010100", **rest.pop("headers", {})}
        query = rest.pop("params", {"FID_INPUT_ISCD": "005930"})
        return self.session.get(self.gateway.url + path, params=query, headers=headers, timeout=20, **rest)

    def ask(self, path: str, **query: str) -> dict[str, Any]:
        """The body of a call with this query."""
        body: dict[str, Any] = self.get(path, params=query).json()
        return body

    def judged(self, token: str | None = None) -> str:
        """What came of one call: KIS's code, or what came in its place."""
        return outcome(lambda: self.get(token=token))

    def outcomes(self, calls: int) -> list[str]:
        return [self.judged() for _ in range(calls)]

    def order(self, body: Any, path: str = ORDER) -> str:
        token = self.gateway.current_token or self.gateway.issue_elsewhere()["access_token"]
        return outcome(lambda: self.post(path, body, token))


def outcome(send: Any) -> str:
    """KIS's code, "issued", "HTTP 503", "dropped" or "hung"."""
    try:
        answer = send()
    except requests.Timeout:
        return "hung"
    except requests.ConnectionError:
        return "dropped"
    try:
        body = answer.json()
    except ValueError:
        return f"HTTP {answer.status_code}"
    return str(body.get("msg_cd") or body.get("error_code") or "issued")
