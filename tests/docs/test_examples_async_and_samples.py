"""The examples of libraries and samples run as they are, on their own gateway, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

EXAMPLES = Path(__file__).parents[2] / "examples"

EXPECTED = {
    "async_httpx.py": ["200 of 200 answers are good\n", "and 1 token was issued for all of them\n"],
    "official_sample.py": ["as it is: 4 of 12 tables hold data\n", "protected: 12 of 12 tables hold data\n"],
}
"""What each prints, among other things."""

NEEDED = {
    "async_httpx.py": "httpx",
    "protect_korea_investment_stock.py": "korea_investment_stock",
    "protect_mojito.py": "mojito",
}
"""What each cannot do without."""


def _run(name: str, *, without: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = [*([str(without)] if without is not None else []), *sys.path]
    program = (
        f"import sys, runpy; sys.path[:] = {path!r}; runpy.run_path({str(EXAMPLES / name)!r}, run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs(name: str) -> None:
    done = _run(name)
    assert (done.returncode, done.stderr) == (0, "")
    for text in EXPECTED[name]:
        assert text in done.stdout
    assert [path for path in Path.home().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", NEEDED)
def test_an_example_says_in_one_line_what_to_install(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{NEEDED[name]}.py").write_text("raise ImportError('not installed')\n", "utf-8")
    done = _run(name, without=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("This example needs ")
    assert "pip install" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [*EXPECTED, *(name for name in NEEDED if name not in EXPECTED)])
def test_an_example_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text("utf-8")
    assert f"python {name}" in text.split('"""')[1]
