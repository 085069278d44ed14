"""
Pure judgement of exceptions that carry no answer: whether it is the network's fault, and may pass.

Types are known by the names of their package and class, so that none of the HTTP libraries is imported here. What an
exception was made of is its cause, its reason and its arguments; not what was being handled when it was raised, which
may be another request's failure, or a step of a TLS handshake (`ssl.SSLWantReadError`).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from itertools import islice

__all__ = ["is_transient_failure"]

_TRANSIENT = frozenset(
    (
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "asyncio.TimeoutError",
        "builtins.ConnectionError",
        "builtins.TimeoutError",
        "concurrent.TimeoutError",
        "http.BadStatusLine",
        "http.IncompleteRead",
        "httpcore.NetworkError",
        "httpcore.ProxyError",
        "httpcore.RemoteProtocolError",
        "httpcore.TimeoutException",
        "httpx.NetworkError",
        "httpx.ProxyError",
        "httpx.RemoteProtocolError",
        "httpx.TimeoutException",
        "requests.ChunkedEncodingError",
        "requests.ConnectionError",
        "requests.Timeout",
        "socket.gaierror",
        "socket.herror",
        "urllib3.NewConnectionError",
        "urllib3.ProtocolError",
        "urllib3.ProxyError",
        "urllib3.TimeoutError",
    )
)
_FINAL = frozenset(
    (
        "aiohttp.ClientConnectorCertificateError",
        "aiohttp.InvalidURL",
        "aiohttp.ServerFingerprintMismatch",
        "requests.InvalidURL",
        "ssl.SSLCertVerificationError",
        "urllib3.CertificateError",
        "urllib3.LocationValueError",
    )
)
_TLS = frozenset(("aiohttp.ClientSSLError", "requests.SSLError", "ssl.SSLError", "urllib3.SSLError"))
_DROPPED_TLS = frozenset(("ssl.SSLEOFError", "ssl.SSLZeroReturnError", "ssl.SSLSyscallError"))
_WRAPPERS = frozenset(("requests.RetryError", "urllib.URLError", "urllib3.MaxRetryError"))  # as good as what they wrap
_UNREACHABLE = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN))
_TOO_MANY = re.compile(r"too many (429|5(?!00)\d\d) error responses")  # urllib3's words for a status that it repeated
_DEPTH = 12  # links of a chain of causes; far more than any library makes


def is_transient_failure(exc: object) -> bool:
    """
    Say whether nobody answered, and the next try may be answered: a time-out, a drop, a refused connection, DNS.

    May raise what the exception's own properties raise.
    """
    if not isinstance(exc, Exception):
        return False
    chain = [(error, _names_of(error)) for error in _made_of(exc)]
    if any(names & _FINAL for _, names in chain):
        return False
    if any(names & _DROPPED_TLS for _, names in chain):
        return bool(chain[0][1] & (_TRANSIENT | _TLS | _WRAPPERS))
    if any(names & _TLS for _, names in chain):
        return False  # a handshake that failed fails again
    if chain[0][1] & _WRAPPERS:
        return any(_nobody_answered(error, names) for error, names in chain)
    return _nobody_answered(*chain[0])


def _nobody_answered(error: BaseException, names: frozenset[str]) -> bool:
    if names & _TRANSIENT or (isinstance(error, OSError) and error.errno in _UNREACHABLE):
        return True
    if "aiohttp.ClientResponseError" in names:  # what came was no HTTP; others call that a protocol error
        return error.__cause__ is not None and "aiohttp.HttpProcessingError" in _names_of(error.__cause__)
    return "urllib3.ResponseError" in names and _TOO_MANY.fullmatch(str(error)) is not None


def _names_of(exc: BaseException) -> frozenset[str]:
    """Its classes as "package.Class": where in its package a class lives differs between versions."""
    return frozenset(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(exc).__mro__)


def _made_of(exc: BaseException) -> Iterator[BaseException]:
    """The exception, its cause, its reason, the exceptions among its arguments, and theirs."""
    waiting = [exc]
    seen: set[int] = set()
    while waiting and len(seen) < _DEPTH:
        error = waiting.pop(0)
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        parts = (error.__cause__, getattr(error, "reason", None), *islice(error.args, _DEPTH))
        waiting += [part for part in parts if isinstance(part, BaseException)]
