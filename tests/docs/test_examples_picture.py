"""The picture of the batch: drawn from a real run, the same every time, and the committed one is of that kind."""

from __future__ import annotations

import random
import runpy
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from kis_retry.cli import night

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "make_picture.py"
COMMITTED = ROOT / "docs" / "batch.svg"
KOREAN = ROOT / "docs" / "batch.ko.svg"
EXPIRED = "기간이 만료된 token 입니다."
SVG = "{http://www.w3.org/2000/svg}"

maker: dict[str, Any] = runpy.run_path(str(SCRIPT), run_name="make_picture")


class Dice:
    """Those of the gateway, one throw a call: what each call meets, as it must come with the picture's seed."""

    def __init__(self) -> None:
        self._dice = random.Random(maker["SEED"])
        self.met: Counter[str] = Counter()

    def throw(self) -> str | None:
        thrown = self._dice.random()
        fault = None
        if thrown < maker["REFUSED"]:
            fault = "EGW00201"
        elif thrown < maker["REFUSED"] + maker["DROPPED"]:
            fault = "dropped"
        if fault:
            self.met[fault] += 1
        return fault


def unprotected_run(overseas: int, total: int) -> Any:
    """Each fault loses a symbol, and so does the dead token, until five in a row are alike."""
    dice, answered = Dice(), [0]
    row: list[str | None] = []
    for number in range(1, total + 1):
        failure = dice.throw() or ("token" if number > overseas - 5 else None)
        answered.append(answered[-1] + (failure is None))
        row = [*row[-4:], failure]
        if row == ["token"] * 5:
            break
    return maker["Run"](answered, EXPIRED, 1, dict(dice.met))


def protected_run(overseas: int, total: int) -> Any:
    """Each fault costs another call; the token's end costs one more, and a throw for the new token."""
    dice = Dice()
    for number in range(1, total + 1):
        while dice.throw():
            pass
        if number == overseas - 4:  # refused for its token
            dice.throw()
            while dice.throw():
                pass
    return maker["Run"](list(range(total + 1)), None, 2, dict(dice.met))


def drawn(overseas: int, domestic: int, language: str = "en") -> str:
    """The picture of a batch that goes as it must, not measured."""
    total = overseas + domestic
    picture: str = maker["draw"](unprotected_run(overseas, total), protected_run(overseas, total), overseas, language)
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
    died = unprotected_run(118, 168)
    assert died.asked < 118 + maker["away_at"](50), "it is over before the API is away"
    assert done.stdout.splitlines() == [
        f"unprotected: {died.asked} asked for, {died.answered[-1]} answered, 1 tokens issued",
        "protected: 168 asked for, 168 answered, 2 tokens issued",
    ]
    assert target.read_text("utf-8") == drawn(118, 50)
    assert (tmp_path / "batch.ko.svg").read_text("utf-8") == drawn(118, 50, "ko")


@pytest.mark.parametrize(("committed", "language"), [(COMMITTED, "en"), (KOREAN, "ko")])
def test_the_committed_picture_is_that_of_the_whole_batch(committed: Path, language: str) -> None:
    assert committed.read_text("utf-8") == drawn(11_780, 5_000, language), "run: python examples/make_picture.py"
    assert committed.stat().st_size < 30_000


def test_the_picture_shows_the_night_of_the_demo() -> None:
    planned = night.Night(maker["OVERSEAS"], maker["DOMESTIC"])
    assert maker["dies_at"](planned.overseas) == planned.expires_at
    assert maker["away_at"](planned.domestic) == planned.away_at
    assert (maker["REFUSED"], maker["DROPPED"], maker["SEED"]) == (night.REFUSED, night.DROPPED, night.SEED)


def test_the_picture_is_well_formed_and_says_in_words_what_it_shows() -> None:
    picture = ET.fromstring(COMMITTED.read_bytes())
    assert picture.tag == f"{SVG}svg"
    assert "11,776" in str(picture.findtext(f"{SVG}title"))
    described = str(picture.findtext(f"{SVG}desc"))
    assert "all 16,780 are answered, with 2 tokens" in described
    assert f"stops at symbol 11,780, after 5 times “{EXPIRED}”" in described


def test_both_languages_say_the_same() -> None:
    english, korean = maker["WORDS"]["en"], maker["WORDS"]["ko"]
    assert english.keys() == korean.keys()
    for name, pattern in english.items():
        assert placeholders(pattern) == placeholders(korean[name]), name


def placeholders(pattern: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(pattern) if name}


def test_everything_in_the_picture_has_a_colour_for_light_and_dark() -> None:
    picture = ET.fromstring(COMMITTED.read_bytes())
    light, dark = str(picture.findtext(f"{SVG}style")).split("@media (prefers-color-scheme: dark)")
    used = {str(part.get("class")) for part in picture.iter() if part.get("class")} - {"title"}  # as any text
    assert used
    for name in used:
        assert f".{name}" in light
        assert f".{name} {{" in dark


@pytest.mark.parametrize("committed", [COMMITTED, KOREAN])
def test_the_picture_stays_within_its_card(committed: Path) -> None:
    picture = ET.fromstring(committed.read_bytes())
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
