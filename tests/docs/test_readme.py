"""The READMEs: short, with the two commands that CI runs in front. The page on installing has every extra."""

from __future__ import annotations

import re

import pytest

from blocks import extras, extras_in
from pages import LANGUAGES, READMES, TEXTS, blocks_of, environment_of

every_readme = pytest.mark.parametrize(("name", "language"), list(zip(READMES, LANGUAGES, strict=True)))


@every_readme
def test_it_is_short_and_begins_with_the_demo_and_the_tests(name: str, language: str) -> None:
    assert len(TEXTS[name].split()) <= 1200
    demo, tests = [command for block in blocks_of(name, TEXTS[name]) for command in block.commands][:2]
    assert re.search(r"install .*'?\.\[cli\]'? && .*kis-retry demo$", demo)
    assert re.search(r"install .*tox.* && .*tox$", tests)


@every_readme
def test_what_it_says_of_the_environment_is_said_in_the_whole_table(name: str, language: str) -> None:
    whole, some = environment_of(TEXTS[f"docs/{language}/environment.md"]), environment_of(TEXTS[name])
    assert 3 <= len(some) < len(whole)
    assert [row for row in some if row not in whole] == []


@every_readme
def test_the_extras_are_those_there_are(name: str, language: str) -> None:
    install = TEXTS[f"docs/{language}/install.md"]
    assert set(re.findall(r"^\| `(\w+)` \|", install, re.MULTILINE)) == extras()
    assert extras_in(TEXTS[name]) | extras_in(install) <= extras()
    assert all(f"`{extra}`" in TEXTS[name] for extra in extras())
