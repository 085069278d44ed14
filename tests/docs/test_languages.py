"""English and Korean say the same: the same pages, headings, code, variables, names and links."""

from __future__ import annotations

import re

import pytest

from pages import PAGES, READMES, TEXTS, blocks_of, environment_of, headings_of, links_of, prose_of

KOREAN_PAGES = [name for name in PAGES if name.startswith("docs/ko/")]
INCLUDES = "docs/en/architecture.md"  # the page of those who read the repository: docs/architecture.md
PAIRS = [READMES, *((name.replace("docs/ko/", "docs/en/"), name) for name in KOREAN_PAGES)]
READ = [(english if english != INCLUDES else "docs/architecture.md", korean) for english, korean in PAIRS]

every_pair = pytest.mark.parametrize(("english", "korean"), READ)


def test_both_languages_have_the_same_pages() -> None:
    assert len(KOREAN_PAGES) > 10
    assert [english for english, _ in PAIRS[1:]] == [name for name in PAGES if name.startswith("docs/en/")]


@every_pair
def test_both_have_the_same_headings_code_and_variables(english: str, korean: str) -> None:
    assert headings_of(TEXTS[english]) == headings_of(TEXTS[korean])
    code = [[block[1:] for block in blocks_of(name, TEXTS[name]) if block.language] for name in (english, korean)]
    assert code[0] == code[1]
    variables = [[row.variables for row in environment_of(TEXTS[name])] for name in (english, korean)]
    assert variables[0] == variables[1]
    names = [re.findall(r"^\.\. auto\w+:: (\S+)$", TEXTS[name], re.MULTILINE) for name in (english, korean)]
    assert names[0] == names[1]


@every_pair
def test_both_lead_to_the_same_places(english: str, korean: str) -> None:
    assert places_of(english) == places_of(korean)


def places_of(name: str) -> set[str]:
    """Where its links lead, of whichever language; anchors and the words of a picture are of a language."""
    return {
        re.sub(r"^docs/(en|ko)/", "docs/", link.partition("#")[0]).replace(".ko.svg", ".svg")
        for link in links_of(TEXTS[name])
        if link not in READMES
    } - {""}


@pytest.mark.parametrize("korean", [korean for _, korean in PAIRS])
def test_a_korean_page_is_korean_and_has_no_bold_before_a_particle(korean: str) -> None:
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "`", prose_of(TEXTS[korean]))
    assert len(re.findall(r"[가-힣]", prose)) > 15
    bold = re.finditer(r"\*\*(.+?)\*\*(.?)", prose, re.DOTALL)  # after a sign, a renderer would show the asterisks
    assert [found[0] for found in bold if re.match("[가-힣]", found[2])] == []
