"""How the commands speak: lines, tables and JSON. The demo alone draws."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO


def echo(text: str) -> None:
    """Write one line to stdout, at once."""
    _write(sys.stdout, text)


def echo_error(text: str) -> None:
    """Write one line to stderr."""
    _write(sys.stderr, f"kis-retry: {text}")


def echo_json(document: object) -> None:
    """Write one object on one line, in ASCII, whatever the terminal's encoding."""
    _write(sys.stdout, json.dumps(document, default=str))


def echo_table(rows: Iterable[Sequence[str]]) -> None:
    """Write rows of texts in columns that are as wide as their longest text."""
    table = [[clean(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def clean(text: str) -> str:
    """Return `text` without what could move a cursor: a value or a message may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _write(stream: TextIO, text: str) -> None:
    encoding: Any = getattr(stream, "encoding", None) or "utf-8"
    print(clean(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
