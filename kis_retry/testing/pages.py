"""Answers in pages (연속조회): cursors, and the header that says whether more follow. Pure."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from .listings import Query, no_data, success

__all__ = ["Cursor", "Listing", "Page"]

Cursor = Literal["100", "200"]
_MARK = "PAGE"
_MARKED = re.compile(_MARK + "([1-9][0-9]{0,5})")


class Page(NamedTuple):
    """One answer: its body, and its response header `tr_cont`."""

    body: dict[str, Any]
    tr_cont: str


class Listing:
    """
    Rows that are answered in pages.

    Args:
        pages: how many.
        rows: how many rows each has.
        cursor: which pair of cursors it uses, `ctx_area_fk100` and `…_nk100`, or those with 200.
        output: the key of the rows.
        repeat_from: from this page on the answer hands out the cursor that it was asked with; None for never.
        last: the last page's `tr_cont`.
    """

    def __init__(
        self,
        *,
        pages: int,
        rows: int,
        cursor: Cursor,
        output: str,
        repeat_from: int | None,
        last: Literal["D", "E", ""],
    ) -> None:
        self._pages = pages
        self._rows = rows
        self._cursor = cursor
        self._output = output
        self._repeat_from = repeat_from
        self._last = last

    def page(self, query: Query, tr_cont: str) -> Page:
        """The page that a request asks for: the first without `tr_cont: N`, else the one of its cursor."""
        named = {name.upper(): value for name, value in query.items()}
        number = self._number(named.get(f"CTX_AREA_NK{self._cursor}", "")) if tr_cont.strip() == "N" else 1
        if number is None:
            return Page(no_data(), "")
        repeats = self._repeat_from is not None and number >= self._repeat_from
        more = repeats or number < self._pages
        following = f"{_MARK}{number if repeats else number + 1}" if more else ""
        first = (number - 1) * self._rows + 1
        rows = [{"row": str(row), "pdno": f"{row:06d}"} for row in range(first, first + self._rows)]
        body = success(rows, self._output)
        width = int(self._cursor)  # KIS fills its cursors with blanks
        body[f"ctx_area_fk{self._cursor}"] = "LIST".ljust(width)
        body[f"ctx_area_nk{self._cursor}"] = following.ljust(width)
        return Page(body, ("F" if number == 1 else "M") if more else self._last)

    def _number(self, cursor: str) -> int | None:
        found = _MARKED.fullmatch(cursor.strip())
        return int(found[1]) if found and int(found[1]) <= self._pages else None
