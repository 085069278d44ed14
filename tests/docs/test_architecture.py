"""The pages that name modules, folders and layers name those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kis_retry
from pages import ROOT, TEXTS

PACKAGE = Path(kis_retry.__path__[0])
ARCHITECTURE = ("docs/architecture.md", "docs/ko/architecture.md")
PAGES = (*ARCHITECTURE, "docs/en/how-it-works.md", "docs/ko/how-it-works.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_module_exists(name: str) -> None:
    named = set(re.findall(r"[\w/]+\.py\b", TEXTS[name]))
    assert named
    assert [module for module in named if not (PACKAGE / module.removeprefix("kis_retry/")).exists()] == []


@pytest.mark.parametrize("name", ARCHITECTURE)
def test_the_layers_are_those_that_the_import_linter_keeps(name: str) -> None:
    (kept,) = re.findall(
        r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (block,) = re.findall(r"^```text\n(.*?)^```", TEXTS[name], re.MULTILINE | re.DOTALL)
    assert [line.strip() for line in block.splitlines()] == re.findall(r'"(.*?)"', kept)


@pytest.mark.parametrize("name", ARCHITECTURE)
def test_each_folder_has_a_line(name: str) -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", TEXTS[name], re.MULTILINE)) == folders
