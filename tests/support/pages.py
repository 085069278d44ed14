"""What a Markdown page holds: code blocks, headings, links, and the table of environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LANGUAGES = ("en", "ko")
READMES = ("README.md", "README.ko.md")
PAGES = tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in (*READMES, *PAGES)}
"""Every page for users, by its path in the repository."""


class Block(NamedTuple):
    """A fenced code block; `reason` says why it is not run, where it is not."""

    place: str
    language: str
    text: str
    reason: str | None

    @property
    def commands(self) -> list[str]:
        """What stands behind its `$ `."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]


class Row(NamedTuple):
    """A row of a table of environment variables."""

    variables: list[str]
    default: str
    takes: str


def blocks_of(name: str, text: str) -> list[Block]:
    """The fenced blocks of a text, in order; `{…}` directives of the documentation tool are none."""
    found = []
    for match in re.finditer(r"^```(\w*|\{.*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1].startswith("{"):
            continue
        above = text[: match.start()]
        note = re.search(r"<!-- not run:(.*?)-->\s*$", above) or re.match(r"# not run here:(.*)", match[2])
        place = f"{name}:{above.count(chr(10)) + 1}"
        found.append(Block(place, match[1], match[2], note[1].strip() if note else None))
    return found


def directives_of(text: str) -> list[str]:
    """The names of the directives of the documentation tool that stand between backticks."""
    return re.findall(r"^```\{([\w-]+)\}", text, re.MULTILINE)


def environment_of(text: str) -> list[Row]:
    """The rows of the table whose first cell is names of variables."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and re.fullmatch(r"(`KIS_\w+`(, )?)+", cells[0]):
            default = re.fullmatch(r"`([^`]*)`", cells[1])
            found.append(Row(re.findall(r"KIS_\w+", cells[0]), default[1] if default else cells[1], cells[2]))
    return found


def prose_of(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings_of(text: str) -> list[str]:
    """The depth of each heading, as so many `#`."""
    return re.findall(r"^(#+) ", prose_of(text), re.MULTILINE)


def links_of(text: str) -> list[str]:
    """Where links and pictures of a text lead, other sites left out."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href|srcset)=\"([^\"]+)\"", prose_of(text))
    return [link for pair in found for link in pair if link and not re.match(r"[a-z]+:", link)]


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub and the documentation tool make of the headings."""
    titles = re.findall(r"^#+ (.*)$", prose_of(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links_of(name: str, text: str) -> list[str]:
    """Relative links of a page of the repository that lead to no file, or to no heading of it."""
    dead = []
    for link in links_of(text):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text("utf-8"))):
            dead.append(link)
    return dead
