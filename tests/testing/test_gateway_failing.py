"""What a gateway that is told to fail answers where nothing else is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from kis_retry.testing import KisGateway


def test_it_is_a_503_without_a_verdict(gateway: KisGateway) -> None:
    gateway.fail()
    answer = requests.get(f"{gateway.url}/uapi/x", timeout=10)
    assert answer.status_code == 503
    assert "Retry-After" not in answer.headers
    assert gateway.faults_met == {"HTTP 503": 1}
