"""No relative link is dead, where the pages are read as files: in a clone, or on the platform that hosts it."""

from __future__ import annotations

import pytest

from pages import ROOT, TEXTS, dead_links_of

OTHERS = {name: (ROOT / name).read_text("utf-8") for name in (".github/CONTRIBUTING.md", ".github/SECURITY.md")}
ALL = {**TEXTS, **OTHERS}


@pytest.mark.parametrize("name", ALL)
def test_no_link_is_dead(name: str) -> None:
    assert dead_links_of(name, ALL[name]) == []


def test_a_dead_link_is_seen() -> None:
    assert dead_links_of("docs/en/orders.md", "[a](functions.md) [b](../../README.md#install)") == []
    dead = ["nowhere.md", "async.md#nothing", "#nor-this"]
    assert dead_links_of("docs/en/orders.md", " ".join(f"[a]({link})" for link in dead)) == dead
