"""Pure: why a host could not be reached, in words that hold no URL, no query and no body."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

import requests

from ..sessions import behind

__all__ = ["cause_of", "host_of", "is_final"]

# The first that is found anywhere behind the error is the cause: what requests makes of it says less.
_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (requests.exceptions.ProxyError, "the proxy did not let the request through"),
    (socket.gaierror, "its name could not be resolved (DNS)"),
    (ssl.SSLCertVerificationError, "its TLS certificate was not accepted"),
    (ssl.SSLError, "no TLS connection could be set up"),
    (requests.exceptions.SSLError, "no TLS connection could be set up"),
    (ConnectionRefusedError, "the connection was refused"),
    (requests.ConnectTimeout, "no connection in time"),
    (requests.Timeout, "no answer in time"),
    (TimeoutError, "no answer in time"),
    (ConnectionError, "the connection was dropped"),  # reset, aborted, and http.client's RemoteDisconnected
)


def host_of(url: str) -> str:
    """Host and port of `url`, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def cause_of(error: BaseException) -> str:
    """DNS, refused, time-out, TLS, dropped; else the type of `error`."""
    made_of = list(behind(error))
    for kind, words in _CAUSES:
        if any(isinstance(found, kind) for found in made_of):
            return words
    return type(error).__name__


def is_final(error: BaseException) -> bool:
    """Whether asking again cannot help: an address that is none, a certificate that is not accepted, a bug."""
    if not isinstance(error, requests.RequestException) or isinstance(error, ValueError):
        return True
    return any(isinstance(found, ssl.SSLCertVerificationError) for found in behind(error))
