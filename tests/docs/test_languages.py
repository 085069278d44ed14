"""English and Korean say the same: the same pages, headings, code, variables and links."""

from __future__ import annotations

import re

import pytest

from pages import PAGES, READMES, TEXTS, blocks_of, directives_of, environment_of, headings_of, links_of

ENGLISH_PAGES = [name for name in PAGES if name.startswith("docs/en/")]
PAIRS = [READMES, *((name, name.replace("docs/en/", "docs/ko/")) for name in ENGLISH_PAGES)]

every_pair = pytest.mark.parametrize(("english", "korean"), PAIRS)


def test_both_languages_have_the_same_pages() -> None:
    assert len(ENGLISH_PAGES) > 10
    assert [korean for _, korean in PAIRS[1:]] == [name for name in PAGES if name.startswith("docs/ko/")]


@every_pair
def test_both_have_the_same_headings(english: str, korean: str) -> None:
    assert headings_of(TEXTS[english]) == headings_of(TEXTS[korean]) or english.endswith("architecture.md")


@every_pair
def test_both_have_the_same_code(english: str, korean: str) -> None:
    ours, theirs = (
        [block[1:] for block in blocks_of(name, TEXTS[name]) if block.language] for name in (english, korean)
    )
    assert ours == theirs


@every_pair
def test_both_have_the_same_variables_and_lead_to_the_same_places(english: str, korean: str) -> None:
    ours, theirs = ([row.variables for row in environment_of(TEXTS[name])] for name in (english, korean))
    assert ours == theirs
    assert places_of(english) == places_of(korean) or english.endswith("architecture.md")


def places_of(name: str) -> set[str]:
    """Where its links lead, of whichever language; anchors and the words of a picture are of a language."""
    return {
        re.sub(r"^docs/(en|ko)/", "docs/", link.partition("#")[0]).replace(".ko.svg", ".svg")
        for link in links_of(TEXTS[name])
        if link not in READMES
    } - {""}


@every_pair
def test_both_document_the_same_names(english: str, korean: str) -> None:
    names = [re.findall(r"^\.\. auto\w+:: (\S+)$", TEXTS[name], re.MULTILINE) for name in (english, korean)]
    assert names[0] == names[1]
    assert directives_of(TEXTS[english]) == directives_of(TEXTS[korean]) or english.endswith("architecture.md")


def test_korean_pages_are_korean() -> None:
    for _, korean in PAIRS:
        prose = re.sub(
            r"`[^`]*`|\]\([^)]*\)", "", re.sub(r"^```.*?^```$", "", TEXTS[korean], flags=re.MULTILINE | re.DOTALL)
        )
        assert len(re.findall(r"[가-힣]", prose)) > 15, korean
