"""
"Does my batch survive an expiry at call 50?", asked in a project of somebody who has installed kis-retry.

The project has a package of its own and a test of five lines, and is judged by a pytest run of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.one_python

THE_FIVE_LINES = """\
from myfund.prices import all_prices
def test_my_batch_survives_an_expiry_at_call_50(kis_gateway):
    kis_gateway.expire_at(50)
    prices = all_prices(kis_gateway.credentials, range(100))
    assert len(prices) == 100
"""

HAND_WRITTEN = """\
import requests

from kis_retry import MemoryTokenStore, TokenManager, refresh_on_expired_token


def all_prices(credentials, symbols):
    tokens = TokenManager(credentials, store=MemoryTokenStore())
    headers = tokens.headers("FHKST01010100")
    session = requests.Session()

    # the decorator goes here
    def price(symbol, headers):
        query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": f"{symbol:06d}"}
        path = "/uapi/domestic-stock/v1/quotations/inquire-price"
        return session.get(credentials.base_url + path, headers=headers, params=query, timeout=10).json()

    with session:
        answers = [price(symbol, headers) for symbol in symbols]
    return [answer["output"]["stck_prpr"] for answer in answers if answer["rt_cd"] == "0"]
"""
DECORATED = HAND_WRITTEN.replace("# the decorator goes here", "@refresh_on_expired_token(tokens=tokens)")

CLIENT = """\
from concurrent.futures import ThreadPoolExecutor

from kis_retry import KisClient


def all_prices(credentials, symbols):
    client = KisClient(credentials)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda symbol: client.fetch_domestic_price(f"{symbol:06d}"), symbols))
    return [answer["output"]["stck_prpr"] for answer in answers if answer["rt_cd"] == "0"]
"""


@pytest.fixture
def add_fund(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a fund's package and its five lines into somebody's project."""
    monkeypatch.chdir(pytester.path)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    pytester.makeini("[pytest]\npythonpath = .\n")

    def add(fund: str, batch: str) -> None:
        package = pytester.mkpydir(fund)
        (package / "prices.py").write_text(batch, "utf-8")
        Path(f"test_{fund}.py").write_text(THE_FIVE_LINES.replace("myfund", fund), "utf-8")

    return add


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load this plug-in and none that happens to be installed beside it, which would take seconds."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p kis_retry.testing.plugin")


def test_the_five_lines_are_red_on_an_unprotected_batch_and_green_on_a_protected_one(
    pytester: pytest.Pytester, add_fund: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch)
    add_fund("unprotected", HAND_WRITTEN)
    add_fund("decorated", DECORATED)
    add_fund("client_in_threads", CLIENT)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.re_match_lines([r"^E .*assert 49 == 100$", r"^FAILED test_unprotected.py.*"])


def test_the_fixture_is_found_by_pytest_itself_and_says_what_it_is(
    pytester: pytest.Pytester, add_fund: Callable[[str, str], None]
) -> None:
    add_fund("decorated", DECORATED)
    said = pytester.runpytest_subprocess("--fixtures").stdout.str()
    assert re.search(
        r"fixtures defined from kis_retry\.testing\.plugin -+\nkis_gateway -- .*\n +Run a KIS to test", said
    )
