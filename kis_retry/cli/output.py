"""
How the commands speak: lines, tables, JSON and progress.

On a terminal `rich` draws. In a pipe, a file or a CI log, or where NO_COLOR is set, everything is a plain line without
control codes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress", "drawing", "echo", "echo_error", "echo_json", "echo_table", "new_progress"]

_STEPS = 10  # lines that a plain progress has


def drawing() -> bool:
    """Whether stdout is a terminal that wants more than plain lines."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def echo(text: str) -> None:
    """One line on stdout, at once."""
    _write(sys.stdout, text)


def echo_error(text: str) -> None:
    """One line on stderr."""
    _write(sys.stderr, f"kis-retry: {text}")


def echo_json(document: object) -> None:
    """One object on one line, in ASCII, whatever the terminal's encoding."""
    _write(sys.stdout, json.dumps(document))


def echo_table(rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> None:
    """
    A table; the first column is the one that names the row.

    Args:
        rows: one text a column.
        columns: their headings; none for a list of names and values.
    """
    table = [list(map(clean, row)) for row in rows]
    if drawing():
        _draw_table(table, columns)
        return
    lines = [columns, *table] if columns else table
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    line = "  ".join(f"{{:<{width}}}" for width in widths)
    for texts in lines:
        echo(line.format(*texts).rstrip())


def clean(text: str) -> str:
    """`text` without what could move a cursor: a value or a message may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Progress:
    """How far a batch is, and what happens on the way, for one thread to tell. This one keeps it to itself."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __enter__(self) -> Progress:  # noqa: PYI034  # typing.Self is of 3.11
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, done: int) -> None:
        """So many of the total are done."""

    def tell(self, text: str) -> None:
        """Something has happened."""


def new_progress(total: int, *, silent: bool) -> Progress:
    """The progress that suits stdout; `silent`: none at all."""
    return Progress(total) if silent else _Bar(total) if drawing() else _Lines(total)


class _Lines(Progress):
    _said = 0

    def advance(self, done: int) -> None:
        step = done * _STEPS // self.total
        if step > self._said:
            self._said = step
            echo(f"{done:,} of {self.total:,}")

    def tell(self, text: str) -> None:
        echo(text)


class _Bar(Progress):
    def __init__(self, total: int) -> None:
        from rich import progress

        super().__init__(total)
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            console=_console(),
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def tell(self, text: str) -> None:
        self._bar.console.print(clean(text))


def _draw_table(rows: list[list[str]], columns: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD if columns else None, show_header=bool(columns), padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].style = "cyan"
    table.columns[0].no_wrap = True
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, markup=False, emoji=False, highlight=False)


def _write(stream: TextIO, text: str) -> None:
    encoding: Any = getattr(stream, "encoding", None) or "utf-8"
    print(clean(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
