"""Functions that come to what a test says, and one whose requests nobody sees."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any


def scripted(*outcomes: object) -> Any:
    """A function that returns or raises each of them in turn, and the last for ever; `calls` counts."""
    left = list(outcomes)

    def fetch(*args: Any, **kwargs: Any) -> Any:
        fetch.calls += 1  # type: ignore[attr-defined]  # a function's attribute
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, BaseException):
            raise outcome.with_traceback(None)
        return outcome

    fetch.calls = 0  # type: ignore[attr-defined]  # as above
    return fetch


def by_urllib(url: str, data: bytes | None = None) -> Any:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=5) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise
