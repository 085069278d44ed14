"""Answers in pages (연속조회): which one comes next, judged from the header and the body of the last."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from itertools import count
from typing import Any

from ..errors import PageError
from .endpoints import Answer, Call

__all__ = ["following"]

_CURSOR = re.compile(r"(?i)(ctx_area_)?(fk|nk)(100|200)|keyb|cts")


def following(first: Call) -> Generator[Call | None, Answer, None]:
    """
    Yield the request for each page and take its answer; None after the last, whose successor can be no error then.

    Raises:
        PageError: a page was refused; or, after None, the last one leads back to an earlier one.
    """
    call, seen = first, [_stripped(_cursor_of(first.query))]
    for number in count(1):
        payload, tr_cont = yield call
        if payload.get("rt_cd") not in ("0", "7"):
            raise PageError(f"page {number} of {first.path} was refused", page=number, answer=payload)
        if (tr_cont or "").strip().upper() not in ("F", "M"):
            yield None
            return
        cursor = _cursor_of(payload)
        mark = _stripped(cursor) or payload  # without one KIS keeps the place, and has lost it where a page comes again
        if mark in seen:
            yield None
            reason = "has the cursor of an earlier page" if cursor else "came twice, and has no cursor"
            what = f"page {number + 1} of {first.path} cannot be asked for: page {number} {reason}"
            raise PageError(what, page=number + 1, answer=payload)
        seen = [*seen, mark] if cursor else [mark]
        query = {name: value for name, value in first.query.items() if name.upper() not in cursor}
        call = first._replace(query={**query, **cursor}, headers={"tr_cont": "N"})


def _cursor_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Give the cursor among `fields` under the names that the query takes; empty where all of it is blank."""
    texts = {name.upper(): value for name, value in fields.items() if isinstance(value, str)}
    found = {name: value for name, value in texts.items() if _CURSOR.fullmatch(name)}
    return found if any(_stripped(found).values()) else {}


def _stripped(cursor: dict[str, str]) -> dict[str, str]:
    return {name: value.strip() for name, value in cursor.items()}
