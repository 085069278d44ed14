"""The picture of the batch: drawn from a real run, the same every time, and the committed one is of that kind."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "make_picture.py"
COMMITTED = ROOT / "docs" / "batch.svg"
EXPIRED = "기간이 만료된 token 입니다."
SVG = "{http://www.w3.org/2000/svg}"

maker: dict[str, Any] = runpy.run_path(str(SCRIPT), run_name="make_picture")


def drawn(overseas: int, domestic: int) -> str:
    """The picture of a batch that goes as it must, not measured."""
    good = list(range(overseas - 4))
    unprotected = maker["Run"]([*good, *[good[-1]] * 5], EXPIRED, 1)
    protected = maker["Run"](list(range(overseas + domestic + 1)), None, 2)
    picture: str = maker["draw"](unprotected, protected, overseas)
    return picture


def test_the_script_runs_both_batches_and_draws_what_they_did(tmp_path: Path) -> None:
    target = tmp_path / "batch.svg"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(target), "--symbols", "168"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "unprotected: 118 asked for, 113 answered, 1 tokens issued",
        "protected: 168 asked for, 168 answered, 2 tokens issued",
    ]
    assert target.read_text("utf-8") == drawn(118, 50)


def test_the_committed_picture_is_that_of_the_whole_batch() -> None:
    assert COMMITTED.read_text("utf-8") == drawn(11_780, 5_000), "run: python examples/make_picture.py"
    assert COMMITTED.stat().st_size < 30_000


def test_the_picture_is_well_formed_and_says_in_words_what_it_shows() -> None:
    picture = ET.fromstring(COMMITTED.read_bytes())
    assert picture.tag == f"{SVG}svg"
    assert "11,776" in str(picture.findtext(f"{SVG}title"))
    described = str(picture.findtext(f"{SVG}desc"))
    assert "all 16,780 are answered, with 2 tokens" in described
    assert f"stops at symbol 11,780, after 5 times “{EXPIRED}”" in described


def test_everything_in_the_picture_has_a_colour_for_light_and_dark() -> None:
    picture = ET.fromstring(COMMITTED.read_bytes())
    light, dark = str(picture.findtext(f"{SVG}style")).split("@media (prefers-color-scheme: dark)")
    used = {str(part.get("class")) for part in picture.iter() if part.get("class")} - {"title"}  # as any text
    assert used
    for name in used:
        assert f".{name}" in light
        assert f".{name} {{" in dark


def test_the_picture_stays_within_its_card() -> None:
    picture = ET.fromstring(COMMITTED.read_bytes())
    for text in picture.iter(f"{SVG}text"):
        assert 0 <= float(str(text.get("x"))) <= 880
        assert 0 <= float(str(text.get("y"))) <= 440
    for line in picture.iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in str(line.get("points")).split()]
        assert all(0 <= x <= 880 and 0 <= y <= 440 for x, y in points)


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ([0, 1, 2, 3], [(0, 0), (3, 3)]),
        ([0, 1, 2, 2, 2], [(0, 0), (2, 2), (4, 2)]),
        ([0, 1, 1, 2, 3], [(0, 0), (1, 1), (2, 1), (4, 3)]),
        ([0], [(0, 0)]),
    ],
)
def test_a_line_has_its_corners_and_nothing_else(answered: list[int], expected: list[tuple[int, int]]) -> None:
    assert list(maker["corners"](answered)) == expected
