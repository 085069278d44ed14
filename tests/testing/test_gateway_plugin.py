"""What `kis_retry.testing` offers to pytest, and what it costs a run that does not use it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import kis_retry.testing
from kis_retry import KisClient, TokenManager
from kis_retry.testing import KisGateway
from kis_retry.testing.plugin import kis_gateway, kis_gateway_env  # noqa: F401  # fixtures, installed or not

pytest_plugins = ["pytester"]


@pytest.fixture
def alone(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs of pytest that load this plug-in and none that happens to be installed beside it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p kis_retry.testing.plugin -p no:cacheprovider")
    return pytester


def test_the_fixture_is_a_running_gateway(kis_gateway: KisGateway) -> None:  # noqa: F811  # the fixture above
    assert isinstance(kis_gateway, KisGateway)
    assert kis_gateway.url.startswith("http://127.0.0.1:")
    assert not kis_gateway.wait(0)
    assert set(kis_gateway.counts.values()) == {0}


def test_from_env_finds_the_gateway(
    kis_gateway_env: KisGateway,  # noqa: F811  # the fixture above
    kis_gateway: KisGateway,  # noqa: F811  # as above
    tmp_path: Path,
) -> None:
    assert kis_gateway_env is kis_gateway
    assert os.environ["KIS_ACCOUNT_NO"] == kis_gateway.credentials.account == "12345678-01"
    kis_gateway.expire_at(2)
    with KisClient.from_env() as client:
        assert [client.fetch_domestic_price("005930")["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert (kis_gateway.counts.answered, kis_gateway.counts.tokens_issued) == (3, 2)
    assert TokenManager.from_env().authorization == f"Bearer {kis_gateway.current_token}", "one memory for all"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_after_the_test_the_environment_is_as_it_was(alone: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KIS_APP_KEY", "KIS_APP_SECRET", "KIS_BASE_URL", "KIS_ACCOUNT_NO"):
        monkeypatch.setenv(name, f"the user's {name}")
    alone.makepyfile(
        """
        import os

        seen = []

        def test_one(kis_gateway_env):
            seen.append(os.environ["KIS_APP_KEY"])
            assert os.environ["KIS_APP_KEY"] == kis_gateway_env.credentials.app_key

        def test_two(kis_gateway_env):
            assert os.environ["KIS_APP_KEY"] not in seen

        def test_three():
            assert os.environ["KIS_APP_KEY"] == "the user's KIS_APP_KEY"
            assert "KIS_TOKEN_STORE" not in os.environ
        """
    )
    alone.runpytest().assert_outcomes(passed=3)


def test_a_key_in_an_env_file_does_not_reach_the_gateway(
    kis_gateway_env: KisGateway,  # noqa: F811  # the fixture above
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".env").write_text("KIS_APP_KEY=theirs\nKIS_APP_SECRET=theirs\nKIS_TOKEN_STORE=file\nKIS_PAPER=true\n")
    monkeypatch.chdir(tmp_path)
    assert TokenManager.from_env().token().value == kis_gateway_env.current_token


def test_the_fixture_gives_each_test_a_gateway_and_closes_it(alone: pytest.Pytester) -> None:
    alone.makepyfile(
        """
        seen = []

        def test_one(kis_gateway):
            seen.append(kis_gateway)

        def test_two(kis_gateway):
            assert kis_gateway is not seen[0]
            assert seen[0].wait(0)
            assert not kis_gateway.wait(0)
        """
    )
    alone.runpytest().assert_outcomes(passed=2)


def test_the_fixture_says_what_it_is(alone: pytest.Pytester) -> None:
    result = alone.runpytest("--fixtures")
    result.stdout.fnmatch_lines(["kis_gateway*", "*A KIS to test a batch with*"])


def test_other_plugins_have_no_say_in_these_runs(alone: pytest.Pytester) -> None:
    assert "plugins:" not in alone.runpytest().stdout.str()


def test_the_plugin_loads_no_gateway_before_one_is_asked_for() -> None:
    script = """
import sys
import kis_retry.testing.plugin
print(sorted(name for name in sys.modules if name.startswith("kis_retry.testing.") or name == "responses"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['kis_retry.testing.plugin']"


def test_without_pytest_the_plugin_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(ImportError, match=r"needs pytest: pip install 'kis-retry\[testing\]'"):
        runpy.run_path(str(Path(kis_retry.testing.__path__[0]) / "plugin.py"))


def test_the_package_offers_two_names_and_says_so() -> None:
    assert {"KisGateway", "TokenStoreCompliance"} <= set(dir(kis_retry.testing))
    assert kis_retry.testing.TokenStoreCompliance.__name__ == "TokenStoreCompliance"
    with pytest.raises(AttributeError, match="no attribute 'Gateway'"):
        kis_retry.testing.Gateway  # noqa: B018  # the mistake under test
