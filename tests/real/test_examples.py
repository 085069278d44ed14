"""The example for a package runs as it is, on its own gateway, and writes nothing outside."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = {"korea_investment_stock": "protect_korea_investment_stock.py", "mojito": "protect_mojito.py"}


@pytest.mark.parametrize("package", NAMES)
def test_the_example_outlives_its_token_or_says_how_to_get_the_package(package: str) -> None:
    command = [sys.executable, str(EXAMPLES / NAMES[package])]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    if find_spec(package) is None:
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "pip install" in done.stderr
        return
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("  token_refreshed\n") == 1
    assert done.stdout.endswith("5 of 5 answers are good\n")
    assert {path.name for path in Path.home().rglob("*") if path.is_file()} <= {"token.dat"}
