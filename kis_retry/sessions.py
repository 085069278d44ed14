"""What both of this package's ways to KIS need of `requests`: sessions after a fork, and a bundle that is missing."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import requests
from requests.adapters import HTTPAdapter

__all__ = ["behind", "leave_connections_to_parent", "missing_bundle"]

_TAKES = "(REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE take the path of a bundle of certificates)"
_OF_FILES = ("X509", "PEM")  # the parts of OpenSSL that read certificates; a handshake is another one


def leave_connections_to_parent(session: requests.Session) -> None:
    """
    Give every adapter of `session` empty pools, with the settings it has.

    Two processes that talk over one connection get each other's answers: the price of another symbol, and no error.
    """
    for adapter in getattr(session, "adapters", {}).values():  # a stand-in of the user's may have none
        if isinstance(adapter, HTTPAdapter):  # others, as mocks are, keep no connections that requests knows of
            adapter.__setstate__(adapter.__getstate__())  # type: ignore[attr-defined]  # the stubs leave it out


def behind(error: BaseException) -> Iterator[BaseException]:
    """`error`, and everything that it was made of or raised from."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]


def missing_bundle(error: OSError) -> str | None:
    """
    What `error` says if it is the bare `OSError` of `requests` for a TLS file that is not there; None if it is not.

    It names the file: that of `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE`, or a session's `verify` or `cert`. Of a file
    that is there and holds no certificate, OpenSSL tells no name.
    """
    if any(isinstance(found, ssl.SSLError) and found.library in _OF_FILES for found in behind(error)):
        return f"the file of certificates holds none {_TAKES}"
    text = str(error)
    if isinstance(error, requests.RequestException) or "TLS" not in text or "invalid path:" not in text:
        return None
    return f"{text} {_TAKES}"
