"""The examples run as they are, on their own gateway, and leave nothing in the user's cache folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kis_retry.testing import KisGateway

pytestmark = pytest.mark.one_python

EXAMPLES = Path(__file__).parents[2] / "examples"

EXPECTED = {
    "overnight_batch.py": ["token_expired", "token_refreshed", "call_recovered", "400 of 400 symbols answered"],
    "own_function.py": ["005930 ", "000660 ", "035420 ", "KIS refused 1 call and issued 2 tokens"],
}
"""What each prints, among other things, where there are no credentials; all of them exit with 0."""


def run(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs_without_credentials(name: str) -> None:
    done = run(name)
    assert (done.returncode, done.stderr) == (0, "")
    for text in EXPECTED[name]:
        assert text in done.stdout
    assert [path for path in Path.home().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["own_function.py"])
def test_an_example_takes_credentials_from_the_environment(
    name: str, gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_APP_KEY", gateway.credentials.app_key)
    monkeypatch.setenv("KIS_APP_SECRET", gateway.credentials.app_secret)
    monkeypatch.setenv("KIS_BASE_URL", gateway.url)
    done = run(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a KIS of its own" not in done.stdout
    assert gateway.counts.answered == 3


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text("utf-8")
    assert f"python {name}" in text.split('"""')[1]
