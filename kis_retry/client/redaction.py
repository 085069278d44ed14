"""What an exception that leaves a client may hold: what happened, without a query, a connection and what was sent."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import requests

from ..errors import ConfigurationError
from ..sessions import missing_bundle

__all__ = ["harmless"]

_QUERY = re.compile(r"\?[^\s'\"<>)]+")  # an account number stands there in many calls of KIS
_HINT = " (REQUESTS_CA_BUNDLE and session= take what to trust)"


def harmless(error: BaseException) -> BaseException:
    """
    Take from `error` what it knows of the request, so that it can be shown, pickled and sent to a collector of errors.

    The frames that made headers go. One of `requests` or `httpx` keeps its type and the errors that it was made of, by
    which it is judged, its response, and a request that tells its method and address alone.
    """
    problem = missing_bundle(error) if isinstance(error, OSError) else None
    if problem is not None:
        return ConfigurationError(problem)
    parts = [error]
    for part in parts:
        made_of = (part.__cause__, getattr(part, "reason", None), *part.args)
        parts += [found for found in made_of if isinstance(found, BaseException) and found not in parts]
        part.__traceback__ = part.__context__ = None
    if isinstance(error, requests.RequestException) or type(error).__module__.startswith("httpx"):
        for part in parts:
            _hide(part)
        _strip(error)
    return error


def _hide(part: Any) -> None:
    part.args = tuple(_told(value) for value in part.args)
    for name, value in list(vars(part).items()):
        if name.strip("_") in ("conn", "pool"):
            setattr(part, name, None)
        elif name == "url":
            part.url = _told(value)


def _strip(error: Any) -> None:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        error.args = (f"{error}{_HINT}",)
    with suppress(RuntimeError, AttributeError):  # httpx says so where there is none
        error.request = error.request and _bare(error.request)
    response = getattr(error, "response", None)
    if response is not None:
        response.request = _bare(response.request)
        with suppress(AttributeError):  # httpx's is its request's
            response.url = _told(response.url)


def _told(value: object) -> object:
    return _QUERY.sub("?***", value) if isinstance(value, str) else value


def _bare(request: Any) -> Any:
    address = str(request.url).partition("?")[0]
    if isinstance(request, requests.PreparedRequest):
        return requests.Request(request.method, address).prepare()
    return type(request)(request.method, address)
