"""
Pure judgement of exceptions that carry no answer: whether it is the network's fault, and may pass.

Types are known by the names of their package and class, so that none of the HTTP libraries is imported here.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator

__all__ = ["is_transient_failure", "status_of_error"]

_TRANSIENT = frozenset(
    (
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "asyncio.TimeoutError",
        "builtins.ConnectionError",
        "builtins.TimeoutError",
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
        "urllib3.MaxRetryError",
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
        "requests.InvalidURL",
        "ssl.SSLCertVerificationError",
        "urllib3.LocationValueError",
    )
)
_DROPPED_TLS = frozenset(("ssl.SSLEOFError", "ssl.SSLZeroReturnError", "ssl.SSLSyscallError"))
_UNREACHABLE = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN))
_DEPTH = 12  # links of a chain of causes; far more than any library makes


def is_transient_failure(exc: object) -> bool:
    """Whether nobody answered, and the next try may be answered: a time-out, a drop, a refused connection, DNS."""
    if not isinstance(exc, Exception):
        return False
    chain = [error for error in _chain(exc) if isinstance(error, Exception)]
    kinds = [_names_of(error) for error in chain]
    if any(names & _FINAL for names in kinds):
        return False
    tls = [names for error, names in zip(chain, kinds, strict=True) if isinstance(error, ssl.SSLError)]
    if tls and not any(names & _DROPPED_TLS for names in tls):
        return False  # a handshake that failed fails again
    if _names_of(exc) & _TRANSIENT:
        return True
    if "urllib.URLError" in _names_of(exc):
        return is_transient_failure(getattr(exc, "reason", None))
    return isinstance(exc, OSError) and exc.errno in _UNREACHABLE


def status_of_error(exc: object) -> int | None:
    """The HTTP status of an exception that keeps nothing else of its answer (`aiohttp`, `urllib.error`)."""
    for name in ("status", "code"):
        status = getattr(exc, name, None)
        if isinstance(status, int) and not isinstance(status, bool):
            return status
    return None


def _names_of(exc: BaseException) -> frozenset[str]:
    """Its classes as "package.Class": where in its package a class lives differs between versions."""
    return frozenset(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(exc).__mro__)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and what it was made of: its cause, its reason, an exception among its arguments."""
    waiting: list[object] = [exc]
    seen: set[int] = set()
    while waiting and len(seen) < _DEPTH:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
