"""What an exception that leaves a client may hold: its type, its text without a query, and nothing that was sent."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import requests

from ..errors import ConfigurationError
from ..sessions import missing_bundle

__all__ = ["harmless"]

_QUERY = re.compile(r"\?[^\s'\"<>)]+")  # an account number stands there in many calls of KIS


def harmless(error: BaseException) -> BaseException:
    """
    Take from `error` what it knows of the request, so that it can be shown, pickled and sent to a collector of errors.

    The frames that made headers go, and what it was raised from. One of `requests` or `httpx` keeps its type, its
    response, and a request that tells its method and address alone.
    """
    problem = missing_bundle(error) if isinstance(error, OSError) else None
    if problem is not None:
        return ConfigurationError(problem)
    if isinstance(error, requests.RequestException) or type(error).__module__.startswith("httpx"):
        _strip(error)
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = part.__context__ = None
        part = part.__cause__
    return error


def _strip(error: Any) -> None:
    error.__cause__ = None
    error.args = tuple(value if isinstance(value, int) else _told(str(value)) for value in error.args)
    with suppress(RuntimeError, AttributeError):  # httpx says so where there is none
        error.request = error.request and _bare(error.request)
    response = getattr(error, "response", None)
    if response is not None:
        response.request = _bare(response.request)
        with suppress(AttributeError):  # httpx's is its request's
            response.url = _told(response.url)


def _told(text: str) -> str:
    hint = " (REQUESTS_CA_BUNDLE and session= take what to trust)" if "CERTIFICATE_VERIFY_FAILED" in text else ""
    return _QUERY.sub("?***", text) + hint


def _bare(request: Any) -> Any:
    address = str(request.url).partition("?")[0]
    if isinstance(request, requests.PreparedRequest):
        return requests.Request(request.method, address).prepare()
    return type(request)(request.method, address)
