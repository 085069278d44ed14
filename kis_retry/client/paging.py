"""Answers in pages (연속조회): which one comes next is judged from the header and the body of the one before."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import PageError

__all__ = ["Page", "answers_of", "cursor_of", "has_next", "next_query"]

Page = tuple[dict[str, Any], str | None]
"""An answer, and its header `tr_cont`."""

_CURSOR = re.compile(r"ctx_area_(fk|nk)(100|200)", re.IGNORECASE)


def answers_of(
    path: str, query: Mapping[str, str], ask: Callable[[Mapping[str, str], Mapping[str, str]], Page]
) -> Iterator[dict[str, Any]]:
    """
    One answer after the other, until the last.

    Args:
        path: whose; for what is said of a page that could not be had.
        query: of the first page.
        ask: gives the page of a query and headers.

    Raises:
        PageError: a page was refused, or it is unclear where the next one begins.
    """
    headers: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    for number in itertools.count(1):
        payload, tr_cont = ask(query, headers)
        if payload.get("rt_cd") not in ("0", "7"):
            raise PageError(f"page {number} of {path} was refused", page=number, answer=payload)
        cursor = cursor_of(payload)
        mark = tuple(value.strip() for _, value in sorted(cursor.items()))
        if has_next(tr_cont) and (not cursor or mark in seen):
            reason = "comes with the cursor of an earlier page" if cursor else "has no cursor, though more follow"
            raise PageError(f"page {number} of {path} {reason}", page=number, answer=payload)
        yield payload
        if not has_next(tr_cont):
            return
        seen.add(mark)
        query, headers = next_query(query, cursor), {"tr_cont": "N"}


def has_next(tr_cont: str | None) -> bool:
    """Whether the response header `tr_cont` says that more follow: "F" or "M", not "D", "E" or blank."""
    return (tr_cont or "").strip().upper() in ("F", "M")


def cursor_of(payload: Mapping[str, Any]) -> dict[str, str]:
    """The cursor in a body, under the names that the query takes; empty where there is none, or all of it is blank."""
    found = {name.upper(): value for name, value in payload.items() if _is_cursor(name) and isinstance(value, str)}
    return found if any(value.strip() for value in found.values()) else {}


def next_query(params: Mapping[str, str], cursor: Mapping[str, str]) -> dict[str, str]:
    """The query of the next page: the first one's, with the cursor in the place of the one it had."""
    return {**{name: value for name, value in params.items() if not _is_cursor(name)}, **cursor}


def _is_cursor(name: object) -> bool:
    return isinstance(name, str) and _CURSOR.fullmatch(name) is not None
