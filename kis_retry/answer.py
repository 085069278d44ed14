"""
Reading KIS's JSON object out of whatever a call hands back.

No I/O and nothing awaited; a `requests.Response` that is streamed is read to its end, and can be read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from inspect import iscoroutinefunction
from typing import Any

__all__ = ["UnreadError", "answer_of", "code_of", "status_of", "text_of"]


class UnreadError(Exception):
    """The body of this response has not been read, and is not to be read here."""


def answer_of(value: object) -> Mapping[str, Any] | None:
    """
    Give the JSON object in `value`; None where it holds another document, or is no answer at all.

    A `requests.Response` or `httpx.Response`, anything else with a `.json()`, or a mapping. Of an
    `aiohttp.ClientResponse` the body, once it has been read.

    Raises:
        ValueError: the body is no JSON.
        UnreadError: the body would have to be awaited.
        Exception: what the value's own methods raise.
    """
    if isinstance(value, Mapping):
        return value
    read = getattr(value, "json", None)
    if not callable(read) or isinstance(value, type):
        return None
    answer = _body_read(value) if iscoroutinefunction(read) else read()
    if hasattr(answer, "__await__"):
        close = getattr(answer, "close", None)  # an unawaited coroutine would warn
        if callable(close):
            close()
        raise UnreadError
    return answer if isinstance(answer, Mapping) else None


def code_of(value: object) -> str | None:
    """`msg_cd` of an answer, for an event; None where there is none. Never raises."""
    try:
        answer = answer_of(value)
        code = answer.get("msg_cd") if answer is not None else None
        return code if isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9]{1,16}", code) else None
    except Exception:  # a hostile mapping or `.json()`
        return None


def status_of(value: object) -> int | None:
    """The HTTP status of a response, or an error, of `requests` and `httpx` (`status_code`) or `aiohttp` (`status`)."""
    for name in ("status_code", "status"):
        status = getattr(value, name, None)
        if isinstance(status, int) and not isinstance(status, bool):
            return status
    return None


def text_of(value: object) -> str:
    """`rt_cd` and `msg_cd` as text, whether KIS's or a library's number; anything else is no verdict."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return str(value).strip()


def _body_read(response: object) -> object:
    body = getattr(response, "_body", None)  # aiohttp keeps it there once it has been read, and has no other way in
    if not isinstance(body, bytes):
        raise UnreadError
    return json.loads(body)
