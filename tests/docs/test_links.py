"""No relative link is dead, where the pages are read as files: in a clone, or on the platform that hosts it."""

from __future__ import annotations

import pytest

from pages import ROOT, TEXTS, dead_links_of, links_of

OTHERS = {name: (ROOT / name).read_text("utf-8") for name in (".github/CONTRIBUTING.md", ".github/SECURITY.md")}
ALL = {**TEXTS, **OTHERS}


@pytest.mark.parametrize("name", ALL)
def test_no_link_is_dead(name: str) -> None:
    assert dead_links_of(name, ALL[name]) == []


def test_there_are_links_to_look_at() -> None:
    assert sum(len(links_of(text)) for text in ALL.values()) > 50
