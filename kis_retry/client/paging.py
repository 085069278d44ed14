"""Answers in pages (연속조회): which one comes next, judged from the header and the body of the last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import PageError
from .endpoints import Answer, Call, Payload, get

__all__ = ["Pages"]

_CURSOR = re.compile(r"(?i)(ctx_area_)?(fk|nk)(100|200)|keyb|cts")


class Pages:
    """The pages of one query: a client sends `next_call` and hands the answer to `take`, until there is no next one."""

    def __init__(self, path: str, tr_id: str, params: Mapping[str, Any] | None) -> None:
        self._first = get(path, tr_id, params)
        self._number = 0
        self._last: Answer | None = None
        self._seen: list[object] = [_stripped(_cursor_of(self._first.query))]

    def next_call(self) -> Call | None:
        """
        Give the request for the next page, or None after the last.

        Raises:
            PageError: more follow, and the last page leads back to an earlier one.
        """
        if self._last is None:
            return self._first
        payload, tr_cont = self._last
        if (tr_cont or "").strip().upper() not in ("F", "M"):
            return None
        cursor = _cursor_of(payload)
        mark = _stripped(cursor) or payload  # without one KIS keeps the place, and has lost it where a page comes again
        if mark in self._seen:
            reason = "has the cursor of an earlier page" if cursor else "came twice, and has no cursor"
            raise self._error(self._number + 1, f"cannot be asked for: page {self._number} {reason}")
        self._seen = [*self._seen, mark] if cursor else [mark]
        query = {name: value for name, value in self._first.query.items() if name.upper() not in cursor}
        return self._first._replace(query={**query, **cursor}, headers={"tr_cont": "N"})

    def take(self, answer: Answer) -> Payload:
        """
        Give the page that KIS answered.

        Raises:
            PageError: it was refused.
        """
        self._number += 1
        self._last = answer
        if answer.payload.get("rt_cd") not in ("0", "7"):
            raise self._error(self._number, "was refused")
        return answer.payload

    def _error(self, number: int, what: str) -> PageError:
        answer = self._last.payload if self._last else {}
        return PageError(f"page {number} of {self._first.path} {what}", page=number, answer=answer)


def _cursor_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Give the cursor among `fields` under the names that the query takes; empty where all of it is blank."""
    found = {
        name.upper(): value for name, value in fields.items() if _CURSOR.fullmatch(name) and isinstance(value, str)
    }
    return found if any(_stripped(found).values()) else {}


def _stripped(cursor: dict[str, str]) -> dict[str, str]:
    return {name: value.strip() for name, value in cursor.items()}
