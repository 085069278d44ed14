"""What an exception that leaves a client may hold: what happened, without a query, a connection and what was sent."""

from __future__ import annotations

import re
from typing import Any

import requests

from ..context import behind
from ..errors import ConfigurationError
from ..tokens.issuer import missing_bundle
from .endpoints import Answer

__all__ = ["harmless", "settled"]

_QUERY = re.compile(r"\?[^\s'\"<>)]+")  # an account number stands there in many calls of KIS


def harmless(error: BaseException) -> BaseException:
    """
    Take from `error` what it knows of the request, so that it can be shown, pickled and sent to a collector of errors.

    The frames that made headers go. One of `requests` or `httpx` keeps its type and the errors that it was made of, by
    which it is judged, its response, and a request that tells its method and address alone.
    """
    if isinstance(error, OSError) and (problem := missing_bundle(error)):
        return ConfigurationError(problem)
    is_of_library = isinstance(error, requests.RequestException) or type(error).__module__.startswith("httpx")
    for part in behind(error, context=False):
        part.__traceback__ = part.__context__ = None
        if is_of_library:
            part.args = tuple(_told("", value) for value in part.args)
            _clean(part)
    if is_of_library and "CERTIFICATE_VERIFY_FAILED" in str(error):
        error.args = (f"{error} (REQUESTS_CA_BUNDLE and session= take what to trust)",)
    return error


def settled(outcome: Answer | BaseException) -> Answer:
    """Give the answer, or raise what went wrong, with no frame below this one."""
    try:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
    finally:
        del outcome  # an exception must not be kept by its own traceback


def _clean(target: Any) -> None:
    vars(target).update({name: _told(name.strip("_"), value) for name, value in vars(target).items()})


def _told(name: str, value: Any) -> Any:
    """Give what may be known of an argument or an attribute."""
    if isinstance(value, str):
        return _QUERY.sub("?***", value)
    if name in ("conn", "pool") or value is None:
        return None
    if name == "request":
        address = str(value.url).partition("?")[0]
        is_prepared = isinstance(value, requests.PreparedRequest)
        return requests.Request(value.method, address).prepare() if is_prepared else type(value)(value.method, address)
    if name == "response":
        _clean(value)
    return value
