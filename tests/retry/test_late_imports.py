"""A library that the program imports after it has decorated is observed from the next call on."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from kis_retry import MemoryTokenStore, TokenManager, refresh_on_expired_token
from kis_retry.testing import KisGateway

with KisGateway() as gateway:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore())
    kept = tokens.headers("FHKST01010100")

    @refresh_on_expired_token(tokens=tokens)
    def status(library):
        url = gateway.url + "/uapi/domestic-stock/v1/quotations/inquire-price"
        query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}
        return __import__(library).get(url, headers=kept, params=query).status_code

    assert "httpx" not in sys.modules
    assert status("requests") == 200
    assert status("httpx") == 200
    gateway.expire()
    assert status("httpx") == 200
"""


@pytest.mark.one_python
def test_a_library_that_is_imported_in_a_call_is_observed_in_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
