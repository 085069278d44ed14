"""Which page comes next (연속조회): judged from the header and the body of the one before. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["cursor_of", "has_next", "next_query"]

_CURSOR = re.compile(r"ctx_area_(fk|nk)(100|200)", re.IGNORECASE)


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
