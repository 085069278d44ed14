"""The pages that name modules name those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kis_retry
from pages import TEXTS

PACKAGE = Path(kis_retry.__path__[0])
PAGES = ("docs/architecture.md", "docs/ko/architecture.md", "docs/en/how-it-works.md", "docs/ko/how-it-works.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_module_exists(name: str) -> None:
    named = set(re.findall(r"[\w/]+\.py\b", TEXTS[name]))
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert named
    for module in named:
        path = module.removeprefix("kis_retry/")
        assert path in modules or ("/" not in path and f"/{path}" in "".join(f"/{known} " for known in modules)), module


def test_both_languages_name_the_same_modules() -> None:
    english, korean = (re.findall(r"[\w/]+\.py\b", TEXTS[name]) for name in PAGES[:2])
    assert english == korean
