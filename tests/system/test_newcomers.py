"""What somebody meets who begins: a program of their own, its log, and its tests."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from crowds import together
from kis_retry import Credentials, KisClient, MemoryTokenStore, TokenManager, refresh_on_expired_token
from kis_retry.testing import KisGateway


def test_an_expiry_that_twenty_functions_meet_unseen_is_one_line_of_each_kind_at_info(
    gateway: KisGateway, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore())
    dead = tokens.authorization

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str]) -> dict[str, Any]:  # of a library whose requests nobody sees
        is_dead = headers["authorization"] == dead
        return {"rt_cd": "1", "msg_cd": "EGW00123"} if is_dead else {"rt_cd": "0"}

    gateway.expire()
    caplog.set_level(logging.INFO, "kis_retry")
    assert together(20, lambda _: fetch({"authorization": dead})) == [{"rt_cd": "0"}] * 20
    assert sorted(record.getMessage().split()[0] for record in caplog.records) == [
        "kis_retry.call_recovered",
        "kis_retry.token_expired",
        "kis_retry.token_refreshed",
    ]


def test_a_client_made_before_for_a_proxy_is_led_to_the_gateway_of_a_test(request: pytest.FixtureRequest) -> None:
    with KisClient(Credentials("PSappkey0123", "c2VjcmV0", base_url="https://proxy.example:9443")) as client:
        gateway = request.getfixturevalue("kis_gateway_env")
        gateway.expire_at(2)
        assert [client.fetch_domestic_price("005930")["rt_cd"] for _ in range(2)] == ["0", "0"]
        assert gateway.counts.token_requests == 2
