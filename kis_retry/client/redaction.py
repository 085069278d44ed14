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
    is_of_library = isinstance(error, requests.RequestException) or type(error).__module__.startswith("httpx")
    for part in parts:
        made_of = (part.__cause__, getattr(part, "reason", None), *part.args)
        parts += [found for found in made_of if isinstance(found, BaseException) and found not in parts]
        part.__traceback__ = part.__context__ = None
        if is_of_library:
            part.args = tuple(_told("", value) for value in part.args)
            for name, value in list(vars(part).items()):
                with suppress(AttributeError):  # a property without a setter
                    setattr(part, name, _told(name.strip("_"), value))
    if is_of_library and "CERTIFICATE_VERIFY_FAILED" in str(error):
        error.args = (f"{error}{_HINT}",)
    return error


def _told(name: str, value: Any) -> Any:
    """Give what may be known of an argument or an attribute."""
    if isinstance(value, str):
        return _QUERY.sub("?***", value)
    if name in ("conn", "pool"):
        return None
    if name == "request" and value is not None:
        address = str(value.url).partition("?")[0]
        is_prepared = isinstance(value, requests.PreparedRequest)
        return requests.Request(value.method, address).prepare() if is_prepared else type(value)(value.method, address)
    if name == "response" and value is not None:
        value.request = _told("request", value.request)
        with suppress(AttributeError):  # httpx's is its request's
            value.url = _told("url", value.url)
    return value
