"""Paper and real trading mixed up: told once with what it means, and KIS's answer handed back."""

from __future__ import annotations

import pytest
import requests

from answers import PRICE
from kis_retry import refresh_on_expired_token
from kis_retry.testing import KisGateway

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


@pytest.mark.parametrize(
    ("paper", "tr_id", "code"), [(True, "TTTC0012U", "EGW02006"), (False, "VTTC0012U", "EGW02004")]
)
def test_a_transaction_of_the_other_environment_is_told_with_what_it_means(
    paper: bool, tr_id: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with KisGateway(paper=paper) as gateway:
        who, token = gateway.credentials, gateway.issue_elsewhere()["access_token"]
        headers = {"authorization": f"Bearer {token}", "appkey": who.app_key, "appsecret": who.app_secret}

        @refresh_on_expired_token
        def order() -> str:
            url = gateway.url + ORDER
            return str(requests.post(url, json={}, headers={**headers, "tr_id": tr_id}, timeout=5).json()["msg_cd"])

        assert [order(), order()] == [code, code]
        told = [record.getMessage() for record in caplog.records if "wrong_environment" in record.getMessage()]
        assert len(told) == 1
        assert ("real trading" if paper else "paper key") in told[0]
        assert requests.get(gateway.url + PRICE, headers={**headers, "tr_id": "FHKST01010100"}, timeout=5).ok
