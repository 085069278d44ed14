"""What `kis_retry.testing` offers to pytest, and what it costs a run that does not use it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import kis_retry.testing
from kis_retry.testing import KisGateway
from kis_retry.testing.plugin import kis_gateway  # noqa: F401  # a fixture, installed or not

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
