"""
Judge exceptions that carry no answer: whether the network failed, and what was sent before it did.

Types are known by the names of their package and class, so that none of the HTTP libraries is imported here. What an
exception was made of is its cause, its reason and its arguments. Its `__context__` is left aside: that may be another
request's failure, or a step of a TLS handshake (`ssl.SSLWantReadError`).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from itertools import islice
from typing import Literal

__all__ = ["failure_of"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_LEFT = _names("""
    aiohttp.ClientConnectorError aiohttp.ConnectionTimeoutError builtins.ConnectionRefusedError
    httpcore.ConnectError httpcore.ConnectTimeout httpcore.PoolTimeout httpx.ConnectError
    httpx.ConnectTimeout httpx.PoolTimeout requests.ConnectTimeout socket.gaierror socket.herror
    urllib3.ConnectTimeoutError urllib3.NewConnectionError
""")
_UNANSWERED = _NEVER_LEFT | _names("""
    aiohttp.ClientConnectionError aiohttp.ClientPayloadError asyncio.TimeoutError
    builtins.ConnectionError builtins.TimeoutError concurrent.TimeoutError http.BadStatusLine
    http.IncompleteRead httpcore.NetworkError httpcore.ProxyError httpcore.RemoteProtocolError
    httpcore.TimeoutException httpx.NetworkError httpx.ProxyError httpx.RemoteProtocolError
    httpx.TimeoutException requests.ChunkedEncodingError requests.ConnectionError requests.Timeout
    urllib3.ProtocolError urllib3.ProxyError urllib3.TimeoutError
""")
_FINAL = _names("""
    aiohttp.ClientConnectorCertificateError aiohttp.InvalidURL aiohttp.ServerFingerprintMismatch
    requests.InvalidURL ssl.SSLCertVerificationError urllib3.CertificateError
    urllib3.LocationValueError
""")
_TLS = {"aiohttp.ClientSSLError", "requests.SSLError", "ssl.SSLError", "urllib3.SSLError"}
_DROPPED_TLS = {"ssl.SSLEOFError", "ssl.SSLZeroReturnError", "ssl.SSLSyscallError"}
_WRAPPERS = {"requests.RetryError", "urllib.URLError", "urllib3.MaxRetryError"}  # as good as what they wrap
_ENVELOPES = _WRAPPERS | {"requests.ConnectionError", "urllib3.ProxyError"}  # say nothing of when it failed themselves
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_TOO_MANY = re.compile(r"too many (429|5(?!00)\d\d) error responses")  # urllib3's words for a status that it repeated
_SUCCESSORS = {"httpx2": "httpx", "httpcore2": "httpcore"}
_DEPTH = 12  # links of a chain of causes; far more than any library makes


def failure_of(exc: BaseException) -> Literal["never_left", "transient", "final"]:
    """
    Tell a failure of the network from every other exception. Raises what the exception's own properties raise.

    Returns:
        "never_left": there was no connection (refused, none in time, DNS), so nothing was sent. "transient": the
        request may have arrived (a drop, a time-out of the answer). "final": anything else, which asking again will not
        mend, such as a certificate that nobody trusts.
    """
    chain = list(_made_of(exc))
    own, every = _names_of(exc), frozenset().union(*map(_names_of, chain))
    if every & _FINAL:
        return "final"
    if every & _DROPPED_TLS:  # requests and urllib say "no connection" of a drop after the handshake too
        return "transient" if own & (_UNANSWERED | _TLS | _WRAPPERS) else "final"
    if every & _TLS:  # a handshake that failed fails again
        return "final"
    if not any(map(_is_unanswered, chain if own & _WRAPPERS else chain[:1])):
        return "final"
    if own & _NEVER_LEFT or (own & _ENVELOPES and every & _NEVER_LEFT):
        return "never_left"
    # urllib raises it while it connects; an answer's time-out comes as it is.
    connecting = "urllib.URLError" in own and ("builtins.TimeoutError" in every or any(map(_is_unreachable, chain)))
    return "never_left" if connecting else "transient"


def _is_unanswered(error: BaseException) -> bool:
    names = _names_of(error)
    if names & _UNANSWERED or _is_unreachable(error):
        return True
    if "aiohttp.ClientResponseError" in names:  # what came was no HTTP; others call that a protocol error
        return error.__cause__ is not None and "aiohttp.HttpProcessingError" in _names_of(error.__cause__)
    return "urllib3.ResponseError" in names and _TOO_MANY.fullmatch(str(error)) is not None


def _is_unreachable(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _UNREACHABLE


def _names_of(exc: BaseException) -> frozenset[str]:
    """Return its classes as "package.Class": where in its package a class lives differs between versions."""
    packages = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(exc).__mro__)
    return frozenset(f"{_SUCCESSORS.get(package, package)}.{name}" for package, name in packages)


def _made_of(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception, its cause, its reason, the exceptions among its arguments, and theirs."""
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
