"""The READMEs: short, with the two commands that CI runs in front, and good on a package index."""

from __future__ import annotations

import re

import pytest

from blocks import extras, extras_in
from pages import READMES, TEXTS, blocks_of, environment_of

ENGLISH, KOREAN = READMES
MOST_LINES = 200

every_readme = pytest.mark.parametrize("name", READMES)


@every_readme
def test_it_is_short_and_nothing_is_left_to_fill_in(name: str) -> None:
    assert 100 < TEXTS[name].count("\n") <= MOST_LINES
    assert re.findall(r"@@|TODO|FIXME|XXX", TEXTS[name]) == []


@every_readme
def test_the_first_two_commands_are_the_demo_and_the_tests(name: str) -> None:
    consoles = [block for block in blocks_of(name, TEXTS[name]) if block.language == "console"]
    demo, tests = [command for block in consoles for command in block.commands][:2]
    assert re.search(r"install .*'?\.\[cli\]'? && .*kis-retry demo$", demo)
    assert re.search(r"install .*tox && .*tox$", tests)


@every_readme
def test_the_extras_it_names_are_those_there_are(name: str) -> None:
    assert set(extras_in(TEXTS[name])) == extras()


@every_readme
def test_what_it_says_of_the_environment_is_said_in_the_whole_table(name: str) -> None:
    language = "ko" if name == KOREAN else "en"
    whole = environment_of(TEXTS[f"docs/{language}/environment.md"])
    some = environment_of(TEXTS[name])
    assert 3 <= len(some) < len(whole)
    assert [row for row in some if row not in whole] == []


def test_each_leads_to_the_other() -> None:
    assert f"]({KOREAN})" in TEXTS[ENGLISH]
    assert f"]({ENGLISH})" in TEXTS[KOREAN]
