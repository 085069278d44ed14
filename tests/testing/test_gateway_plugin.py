"""What `kis_retry.testing` offers to pytest: the fixtures, what they keep from KIS, and stand-in credentials."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway_caller import ORDER, PRICE
from kis_retry import ConfigurationError, Credentials, KisClient, MemoryTokenStore, TokenManager
from kis_retry.testing import KisGateway
from senders import GOOD, WIRES, Wire

pytest_plugins = ["pytester"]

REAL, PAPER = "https://openapi.koreainvestment.com:9443", "https://openapivts.koreainvestment.com:29443"

# A user's module in the README's own style: all is made when it is imported.
BATCH = """\
import requests
from kis_retry import TokenManager, refresh_on_expired_token

tokens = TokenManager.from_env()
session = requests.Session()
PATH = "/uapi/domestic-stock/v1/quotations/inquire-price"

@refresh_on_expired_token(tokens=tokens)
def price(symbol):
    url, headers = tokens.credentials.base_url + PATH, tokens.headers("FHKST01010100")
    return session.get(url, params={"FID_INPUT_ISCD": symbol}, headers=headers, timeout=10).json()

def prices():
    return [price(f"{number:06d}")["rt_cd"] for number in range(10)]
"""
TWO_TESTS = """
def check(gateway):
    gateway.expire_at(5)
    assert prices() == ["0"] * 10
    counts = gateway.counts
    assert (counts.calls, counts.refused, counts.tokens_issued) == (11, 1, 2)

def test_one(kis_gateway_env):
    check(kis_gateway_env)

def test_two(kis_gateway_env):
    check(kis_gateway_env)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.Pytester:
    """Somebody's project, run by a pytest of its own that loads this plug-in and none that is installed beside it."""
    monkeypatch.chdir(pytester.path)
    for name in [name for name in os.environ if name.startswith("KIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p kis_retry.testing.plugin -p no:cacheprovider")
    pytester.makepyfile(batch=BATCH)
    pytester.makeini("[pytest]\npythonpath = .\nkis_retry_credentials = stand-in\n")
    return pytester


def passed(project: pytest.Pytester, tests: int) -> None:
    project.runpytest_subprocess().assert_outcomes(passed=tests)


# -- the fixtures


def test_the_fixture_is_a_running_gateway_that_from_env_finds(
    kis_gateway_env: KisGateway, kis_gateway: KisGateway, tmp_path: Path
) -> None:
    assert kis_gateway_env is kis_gateway
    assert kis_gateway.url.startswith("http://127.0.0.1:")
    assert set(kis_gateway.counts) == {0}
    assert os.environ["KIS_ACCOUNT_NO"] == kis_gateway.credentials.account == "12345678-01"
    kis_gateway.expire_at(2)
    with KisClient.from_env() as client:
        assert [client.fetch_domestic_price("005930")["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert (kis_gateway.counts.answered, kis_gateway.counts.tokens_issued) == (3, 2)
    assert TokenManager.from_env().authorization == f"Bearer {kis_gateway.current_token}", "one memory for all"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_key_in_an_env_file_does_not_reach_the_gateway(
    kis_gateway_env: KisGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("KIS_APP_KEY=theirs\nKIS_APP_SECRET=theirs\nKIS_TOKEN_STORE=file\nKIS_PAPER=true\n")
    monkeypatch.chdir(tmp_path)
    assert TokenManager.from_env().token().value == kis_gateway_env.current_token


# -- what is meant for KIS's hosts


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_whatever_library_sends_it_goes_to_the_gateway_past_a_proxy(
    kis_gateway_env: KisGateway, monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there
    for url in (REAL, PAPER):
        tokens = TokenManager(Credentials("a-real-key", "a-real-secret", base_url=url), store=MemoryTokenStore())
        headers = tokens.headers("FHKST01010100")
        assert wire.send("GET", url + PRICE, headers, None, 5) == GOOD
        refused = wire.send("GET", (PAPER if url == REAL else REAL) + PRICE, headers, None, 5)
        assert refused.msg_cd == "EGW00121", "the two hosts stay two"
    assert kis_gateway_env.counts.tokens_issued == 2


def test_a_connection_that_was_made_before_is_left(
    kis_gateway_env: KisGateway, listen: Callable[[Callable[[socket.socket], object]], str]
) -> None:
    def read(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))

    heard: list[bytes] = []
    host, _, port = listen(read).partition(":")
    connection = http.client.HTTPSConnection("openapi.koreainvestment.com", 9443, timeout=10)
    connection.sock = socket.create_connection((host, int(port)))
    connection.request("GET", "/uapi/else")
    assert connection.getresponse().status == 500
    connection.close()
    assert kis_gateway_env.counts.calls == 1
    assert heard in ([], [b""])


@pytest.mark.usefixtures("kis_gateway_env")
@pytest.mark.parametrize("host", ["ops.koreainvestment.com", b"openapi.koreainvestment.com"])
def test_what_looks_up_a_host_of_kis_by_itself_gets_an_error_that_says_so(host: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"koreainvestment\.com'? cannot be reached while a test has a gateway"
    ):
        socket.getaddrinfo(host, 21000)
    assert socket.getaddrinfo("127.0.0.1", 80)


def test_a_wrong_key_for_the_gateway_itself_stays_wrong(kis_gateway_env: KisGateway) -> None:
    body = {"grant_type": "client_credentials", "appkey": "wrong", "appsecret": "wrong"}
    assert requests.post(f"{kis_gateway_env.url}/oauth2/tokenP", json=body, timeout=10).status_code == 403
    for secret, status in (("right", 200), ("wrong", 403)):
        answer = requests.post(f"{REAL}/oauth2/tokenP", json={**body, "appsecret": secret}, timeout=10)
        assert answer.status_code == status, "the first secret that a key came with is its own"


# -- what was made before the test

ORDERS = f"""
import pytest, requests
from kis_retry import KisClient

made_early = KisClient.from_env()

@pytest.mark.parametrize("client", [made_early, None, made_early])
def test_an_order_whose_answer_is_lost_is_not_sent_again(kis_gateway_env, client):
    kis_gateway_env.drop(times=1, reached=True)
    with pytest.raises(requests.ConnectionError):
        (client or KisClient.from_env()).post("{ORDER}", "TTTC0012U", {{"PDNO": "005930"}})
    assert len(kis_gateway_env.orders) == 1
"""
KEPT = """
import pytest
from kis_retry import Credentials, KisClient

kept = []

@pytest.mark.parametrize("test", [1, 2])
def test_the_keys_of_an_earlier_test_are_good(kis_gateway_env, test):
    kept.append(Credentials.from_env())
    assert KisClient(kept[0]).fetch_domestic_price("005930")["rt_cd"] == "0"
"""
ALONE = """
import os, pytest, requests
from kis_retry import Credentials, ConfigurationError

MADE_EARLY = Credentials.from_env()
URL = "https://openapi.koreainvestment.com:9443/uapi/x"

def test_alone():
    assert "real" not in MADE_EARLY.app_key
    with pytest.raises(ConfigurationError, match="without the fixture kis_gateway_env"):
        requests.get(URL, timeout=10)

def test_with_a_gateway(kis_gateway_env):
    assert requests.get(URL, timeout=10).json()["msg_cd"] == "EGW00122"
    assert os.environ["KIS_APP_KEY"] != MADE_EARLY.app_key

def test_after_it():
    assert (os.environ["KIS_APP_KEY"], os.environ["KIS_TOKEN_STORE"]) == (MADE_EARLY.app_key, "memory")
    test_alone()
"""


def test_a_proxy_to_which_an_earlier_client_was_led_is_not_reached(request: pytest.FixtureRequest) -> None:
    keys = Credentials("a-real-key", "a-real-secret", base_url="https://kis.proxy.example")
    with KisClient(tokens=TokenManager(keys, store=MemoryTokenStore())) as client:
        gateway = request.getfixturevalue("kis_gateway_env")
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
    assert gateway.counts.answered == 1


def test_module_level_tokens_work_where_a_key_is_set_outside(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("KIS_APP_KEY", "KIS_APP_SECRET"):
        monkeypatch.setenv(name, f"the user's {name}")
    project.makeini("[pytest]\npythonpath = .\n")
    project.makepyfile(
        f"from batch import prices, tokens\nassert 'koreainv' in tokens.credentials.base_url\n{TWO_TESTS}"
        """
def test_three():
    import os
    assert os.environ["KIS_APP_KEY"] == "the user's KIS_APP_KEY"
    assert "KIS_TOKEN_STORE" not in os.environ
"""
    )
    passed(project, 3)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()], "no token of a gateway is left"


def test_with_stand_in_credentials_no_test_needs_or_reaches_kis(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_APP_KEY", "a-real-key")
    monkeypatch.setenv("KIS_BASE_URL", "http://127.0.0.1:9")
    late = "def prices():\n    import batch\n    return batch.prices()\n" + TWO_TESTS
    project.makepyfile(test_alone=ALONE, test_early=f"from batch import prices\n{TWO_TESTS}", test_late=late)
    project.makepyfile(test_orders=ORDERS, test_kept=KEPT)
    passed(project, 3 + 2 + 2 + 3 + 2)


def test_another_wish_for_credentials_is_an_error(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nkis_retry_credentials = real\n")
    result = project.runpytest_inprocess()
    assert result.ret != 0
    assert "kis_retry_credentials = 'real' is not usable: it takes" in f"{result.stderr}{result.stdout}"


# -- what the plug-in is


def test_pytest_itself_finds_the_fixtures() -> None:
    (plugin,) = [each for each in entry_points(group="pytest11") if each.name == "kis_retry"]
    assert plugin.value == "kis_retry.testing.plugin"


def test_the_plugin_loads_no_gateway_before_one_is_asked_for() -> None:
    script = """
import sys
import kis_retry.testing.plugin
print(sorted(name for name in sys.modules if name.startswith("kis_retry.testing.") or name == "wrapt"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['kis_retry.testing.plugin']"
