"""The example for the library that is installed runs as it is, on its own gateway, and writes nothing outside."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = {"korea_investment_stock": "protect_korea_investment_stock.py", "mojito": "protect_mojito.py"}


def _run(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def test_the_example_outlives_its_token() -> None:
    (name,) = [name for module, name in NAMES.items() if find_spec(module) is not None]
    done = _run(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("  token_refreshed\n") == 1
    assert done.stdout.endswith("5 of 5 answers are good\n")
    assert {path.name for path in Path.home().rglob("*") if path.is_file()} <= {"token.dat"}


def test_the_example_of_another_library_says_how_to_get_it() -> None:
    (name,) = [name for module, name in NAMES.items() if find_spec(module) is None]
    done = _run(name)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install" in done.stderr
    assert done.stderr.count("\n") == 1
