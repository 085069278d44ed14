"""
"Does my batch survive an expiry at call 500?", asked in a project of somebody who has installed kis-retry.

The project has a package of its own and a test of five lines, and is judged by a pytest run of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

THE_FIVE_LINES = """\
from myfund.prices import all_prices
def test_my_batch_survives_an_expiry_at_call_500(kis_gateway):
    kis_gateway.expire_at(500)
    prices = all_prices(kis_gateway.credentials, range(1000))
    assert len(prices) == 1000
"""

HAND_WRITTEN = """\
import requests

from kis_retry import MemoryTokenStore, TokenManager, refresh_on_expired_token


def all_prices(credentials, symbols):
    tokens = TokenManager(credentials, store=MemoryTokenStore())
    headers = tokens.headers("FHKST01010100")
    session = requests.Session()

    {decorator}
    def price(symbol, headers):
        query = {{"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": f"{{symbol:06d}}"}}
        path = "/uapi/domestic-stock/v1/quotations/inquire-price"
        return session.get(credentials.base_url + path, headers=headers, params=query, timeout=10).json()

    with session:
        answers = [price(symbol, headers) for symbol in symbols]
    return [answer["output"]["stck_prpr"] for answer in answers if answer["rt_cd"] == "0"]
"""
HUNDRED = THE_FIVE_LINES.replace("500", "50").replace("1000", "100")
"""The same of a tenth of the calls: where another batch is judged, there is nothing new in a thousand."""

UNPROTECTED = HAND_WRITTEN.format(decorator="# nothing here")
DECORATED = HAND_WRITTEN.format(decorator="@refresh_on_expired_token(tokens=tokens)")

SWALLOWING = """\
import requests

from kis_retry import MemoryTokenStore, TokenManager, protect


class Broker:
    def __init__(self, credentials, tokens):
        self.url = credentials.base_url
        self.session = requests.Session()
        self.headers = tokens.headers("FHKST01010100")
        self.access_token = self.headers.pop("authorization")

    def fetch_price(self, symbol):
        query = {{"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": f"{{symbol:06d}}"}}
        path = "/uapi/domestic-stock/v1/quotations/inquire-price"
        headers = self.headers | {{"authorization": self.access_token}}
        answer = self.session.get(self.url + path, headers=headers, params=query, timeout=10)
        return answer.json()["output"]["stck_prpr"] if answer.ok else None


def all_prices(credentials, symbols):
    tokens = TokenManager(credentials, store=MemoryTokenStore())
    broker = Broker(credentials, tokens)
    {protection}
    with broker.session:
        prices = [broker.fetch_price(symbol) for symbol in symbols]
    return [price for price in prices if price is not None]
"""

CLIENT = """\
from concurrent.futures import ThreadPoolExecutor

from kis_retry import KisClient


def all_prices(credentials, symbols):
    client = KisClient(credentials)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda symbol: client.fetch_domestic_price(f"{symbol:06d}"), symbols))
    return [answer["output"]["stck_prpr"] for answer in answers if answer["rt_cd"] == "0"]
"""


class Project:
    """Somebody's project, with a package for each of their funds and a folder of tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("pytest.ini", "[pytest]\npythonpath = .\n")

    def add(self, fund: str, batch: str, lines: str) -> None:
        """A batch, and the five lines that ask about it."""
        self.write(f"{fund}/__init__.py", "")
        self.write(f"{fund}/prices.py", batch)
        self.write(f"tests/test_{fund}.py", lines.replace("myfund", fund))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")

    def run_tests(self, *options: str, autoload: bool = False) -> tuple[int, Counter[str], str]:
        """
        The exit status of pytest, its summary as numbers, and all it said.

        The plug-in is named, and no other is loaded: with `autoload`, pytest finds all that are installed, this among
        them, and takes seconds for it.
        """
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        plugin = [] if autoload else ["-p", "kis_retry.testing.plugin"]
        environ |= {} if autoload else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", "--color=no", *options],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )
        summary = re.findall(r"(\d+) (passed|failed|errors?)\b", done.stdout.splitlines()[-1])
        return done.returncode, Counter({word: int(number) for number, word in summary}), done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "their-project"
    folder.mkdir()
    return Project(folder)


def test_the_users_test_has_five_lines_and_none_is_crammed() -> None:
    lines = THE_FIVE_LINES.splitlines()
    assert len(lines) == 5
    assert all(line.strip() and ";" not in line and len(line) <= 88 for line in lines)


def test_the_five_lines_are_red_on_an_unprotected_batch(project: Project) -> None:
    project.add("own_function", UNPROTECTED, HUNDRED)
    project.add("library_that_swallows", SWALLOWING.format(protection=""), HUNDRED)
    status, summary, said = project.run_tests()
    assert (status, summary) == (1, {"failed": 2}), said
    assert len(re.findall("^E .*assert 49 == 100$", said, re.MULTILINE)) == 2, said


def test_the_five_lines_are_green_on_a_protected_batch(project: Project) -> None:
    project.add("decorated_function", DECORATED, THE_FIVE_LINES)
    project.add("client_in_threads", CLIENT, HUNDRED)
    project.add("library_that_swallows", SWALLOWING.format(protection="protect(broker, tokens=tokens)"), HUNDRED)
    status, summary, said = project.run_tests()
    assert (status, summary) == (0, {"passed": 3}), said


def test_red_and_green_differ_by_the_decorator_alone() -> None:
    red, green = UNPROTECTED.splitlines(), DECORATED.splitlines()
    assert [line.strip() for line in green if line not in red] == ["@refresh_on_expired_token(tokens=tokens)"]


def test_the_fixture_is_found_by_pytest_itself_and_says_what_it_is(project: Project) -> None:
    status, _, said = project.run_tests("--fixtures", autoload=True)
    assert status == 0, said
    assert re.search(r"fixtures defined from kis_retry\.testing\.plugin -+\nkis_gateway -- .*\n +A KIS to test", said)
