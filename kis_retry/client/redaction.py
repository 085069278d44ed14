"""What an exception of `requests` may say: no query, since an account number stands there in many calls of KIS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from ..sessions import behind

__all__ = ["without_query"]

_QUERY = re.compile(r"\?[^\s'\"<>)]+")


@contextmanager
def without_query() -> Iterator[None]:
    """
    Take the query out of the text of a `requests.RequestException` that passes, and of all that it is made of.

    It stays the same exception, with its request and its causes, by which others judge whether to repeat the call.
    """
    try:
        yield
    except requests.RequestException as error:
        for part in behind(error):
            part.args = tuple(_hidden(value) for value in part.args)
            if isinstance(getattr(part, "url", None), str):  # of urllib3's
                part.url = _hidden(part.url)  # type: ignore[attr-defined]  # just seen
        raise


def _hidden(value: object) -> object:
    return _QUERY.sub("?***", value) if isinstance(value, str) else value
