"""The table of docs/en/libraries.md, as the tests read it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pages import ROOT

PAGE = ROOT / "docs" / "en" / "libraries.md"


class Row(NamedTuple):
    """What is lost alone and protected, and what that costs."""

    alone: range
    protected: int
    token_requests: int
    refusals: int


def rows(page: Path = PAGE) -> dict[str, Row]:
    """Return the table, by package."""
    found = {}
    for line in page.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and cells[-1].startswith("≤"):
            least, _, most = cells[1].partition("–")
            alone = range(int(least), int(most or least) + 1)
            found[cells[0]] = Row(alone, *(int(cell.lstrip("≤ ")) for cell in cells[2:]))
    return found
