"""The picture of the batch is drawn from a real run, and the committed one is of the whole batch."""

from __future__ import annotations

import re
import runpy
import string
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from blocks import run
from pages import ROOT

pytestmark = pytest.mark.one_python

SCRIPT = ROOT / "examples" / "make_picture.py"
SVG = "{http://www.w3.org/2000/svg}"

every_picture = pytest.mark.parametrize("name", ["docs/batch.svg", "docs/batch.ko.svg"])


def test_the_script_runs_both_batches_and_draws_what_they_did(tmp_path: Path) -> None:
    target = tmp_path / "batch.svg"
    done = run([sys.executable, str(SCRIPT), str(target), "--symbols", "168"], tmp_path, {})
    assert (done.returncode, done.stderr) == (0, "")
    unprotected, protected = done.stdout.splitlines()
    assert re.fullmatch(r"unprotected: 118 asked for, \d\d\d? answered, 1 tokens issued", unprotected)
    assert protected == "protected: 168 asked for, 168 answered, 2 tokens issued"
    assert "all 168 are answered, with 2 tokens" in described(target)
    assert target.with_suffix(".ko.svg").exists()


def described(path: Path) -> str:
    return str(ET.fromstring(path.read_bytes()).findtext(f"{SVG}desc"))


def test_the_committed_picture_says_in_words_what_it_shows() -> None:
    said = described(ROOT / "docs" / "batch.svg")
    assert "all 16,780 are answered, with 2 tokens" in said
    assert "stops at symbol 11,780, after 5 times “기간이 만료된 token 입니다.”" in said


@every_picture
def test_everything_in_it_is_within_the_card_and_has_a_colour_for_light_and_dark(name: str) -> None:
    picture = ET.fromstring((ROOT / name).read_bytes())
    light, dark = str(picture.findtext(f"{SVG}style")).split("@media (prefers-color-scheme: dark)")
    for kind in {str(part.get("class")) for part in picture.iter() if part.get("class")} - {"title"}:  # as any text
        assert f".{kind}" in light
        assert f".{kind} {{" in dark
    for text in picture.iter(f"{SVG}text"):
        assert 0 <= float(str(text.get("x"))) <= 880
        assert 0 <= float(str(text.get("y"))) <= 440


def test_both_languages_say_the_same() -> None:
    words: dict[str, Any] = runpy.run_path(str(SCRIPT), run_name="make_picture")["WORDS"]
    fields = [{name: fields_of(pattern) for name, pattern in said.items()} for said in words.values()]
    assert fields[0] == fields[1]


def fields_of(pattern: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(pattern) if name}
