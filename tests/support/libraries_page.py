"""docs/en/libraries.md as the tests read it: the block of each section, and the rows of both tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pages import ROOT

PAGE = ROOT / "docs" / "en" / "libraries.md"


class Row(NamedTuple):
    """A row of the first table; of the second one `alone` is empty."""

    alone: range
    protected: int
    token_requests: int
    refusals: int

    @property
    def allows_none_alone(self) -> bool:
        """Whether the library may come through without help."""
        return 0 in self.alone


def blocks_of(section: str) -> list[str]:
    """The Python blocks of a section, in order."""
    (text,) = re.findall(
        rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def sections() -> list[str]:
    return re.findall(r"^## (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)


def rows(page: Path = PAGE) -> dict[str, Row]:
    """Both tables, by their first cell."""
    found = {}
    for line in page.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) in (4, 5) and cells[-1].startswith("≤"):
            lost = [int(number) for number in cells[1].split("–")] if len(cells) == 5 else []
            alone = range(lost[0], lost[-1] + 1) if lost else range(0)
            found[cells[0]] = Row(alone, *(int(cell.lstrip("≤ ")) for cell in cells[-3:]))
    return found
