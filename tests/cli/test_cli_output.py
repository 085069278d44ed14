"""How the commands of `kis-retry` speak: lines, tables and progress, in a pipe and on a terminal."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from kis_retry.cli import output


def test_a_line_carries_no_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo("a\x1b[31mred\r\nb")
    assert capsys.readouterr().out == "a\\x1b[31mred\\r\\nb\n"


def test_json_is_one_ascii_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo_json({"message": "만료\n"})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isascii()
    assert json.loads(line) == {"message": "만료\n"}


@pytest.mark.parametrize(
    ("rows", "columns", "lines"),
    [
        ([("a", "1"), ("long", "2")], ["name", "value"], ["name  value", "a     1", "long  2"]),
        ([("a", "1"), ("long", "")], ["x", "y"], ["x     y", "a     1", "long"]),
        ([("a", "1", "z"), ("long", "2,000", "z")], [], ["a     1      z", "long  2,000  z"]),
        ([("a\tb", "1"), ("", "2")], [], ["a\\tb  1", "      2"]),
    ],
)
def test_plain_columns_are_aligned(
    rows: list[tuple[str, ...]], columns: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output.echo_table(rows, columns)
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("columns", [["name"], ["name", "value", "more"]])
def test_a_table_whose_rows_do_not_fit_its_headings_is_a_mistake(columns: list[str]) -> None:
    with pytest.raises(ValueError, match="zip"):
        output.echo_table([("a", "1")], columns)


@pytest.fixture
def coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal with colours and thirty-two columns."""
    monkeypatch.setattr(output, "drawing", lambda: True)
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "32"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("coloured")
@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (
            ["what", "it is"],
            [
                "",
                " what             it is",
                " ──────────────────────────────",
                " API away [b]18   :smile: 18",
                " second           one two",
                "                  three",
                " third            ABCDEFGHIJK",
                "                  LMNOPQRS",
                "",
            ],
        ),
        (
            [],
            [
                "API away [b]18  :smile: 18",
                "second          one two three",
                "third           ABCDEFGHIJKLMN",
                "                OPQRS",
            ],
        ),
    ],
)
def test_a_drawn_table_names_each_row_in_colour_breaks_no_name_and_takes_every_text_as_it_is(
    columns: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("API away [b]18", ":smile: 18"), ("second", "one two three"), ("third", "ABCDEFGHIJKLMNOPQRS")]
    output.echo_table(rows, columns)
    drawn = capsys.readouterr().out
    assert [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines()] == lines
    coloured = [text.strip() for text in re.findall(r"\x1b\[36m([^\x1b]*)", drawn)]
    assert [text for text in coloured if text] == ["API away [b]18", "second", "third"]


def test_a_batch_in_a_pipe_says_ten_times_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with output.new_progress(2_000, silent=False) as progress:
        for done in (0, 199, 200, 201, 900, 500, 2_000, 2_000):
            progress.advance(done)
    assert capsys.readouterr().out.splitlines() == ["200 of 2,000", "900 of 2,000", "2,000 of 2,000"]


def test_a_silent_batch_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "drawing", lambda: True)
    with output.new_progress(2_000, silent=True) as progress:
        progress.tell("something")
        progress.advance(2_000)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("coloured")
def test_a_batch_on_a_terminal_shows_how_far_it_is_and_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    with output.new_progress(2_000, silent=False) as progress:
        progress.tell("\x1b[31m18 [b]calls[/b] :smile:")
        for done in (900, 1_900):
            progress.advance(done)
    said = capsys.readouterr().out
    assert "\\x1b[31m18 [b]calls[/b] :smile:" in said, "as it is, in no colour"
    assert "1900/2000" in said


class Terminal:
    def __init__(self, *, tty: bool) -> None:
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


@pytest.mark.parametrize(
    ("tty", "no_color", "term", "expected"),
    [
        (True, "", "xterm", True),
        (True, "", "ansi", True),
        (False, "", "xterm", False),
        (True, "1", "xterm", False),
        (True, "", "dumb", False),
    ],
)
def test_only_a_terminal_that_wants_it_is_drawn_on(
    tty: bool, no_color: str, term: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(tty=tty))
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    assert output.drawing() is expected


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"\\uac00\\uaca9\n"), ("cp949", "가격\n".encode("cp949"))])
def test_what_a_console_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, newline="\n"))
    output.echo("가격")
    assert written.getvalue() == shown
