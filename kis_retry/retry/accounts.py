"""
Of which account a request is: the one of a token source, or another one, whose token is to be left alone.

A source with `credentials` says so itself. Of any other source it is learned from the requests that leave with a token
of its own.
"""

from __future__ import annotations

from functools import lru_cache

from ..context import Sighting
from ..credentials import PAPER_URL, REAL_URL
from ..token import fingerprint
from ..tokens.companions import Companions
from ..tokens.source import NonBlockingSource
from .wire import host_of

__all__ = ["identity_of", "is_of", "is_own", "learn", "learned_of", "note_refused", "was_refused_there"]

_Account = tuple[str, str | None]  # host and app key

_OFFICIAL = frozenset(host_of(url) for url in (REAL_URL, PAPER_URL))
_REMEMBERED = 256  # tokens; each is refused once in its life

_home_of = lru_cache(maxsize=64)(host_of)  # asked six times for each request
_learned: Companions[dict[_Account, None]] = Companions(dict)


def identity_of(source: object) -> tuple[str, str] | None:
    """Host and app key of a token source that has `credentials`; None where nobody knows them."""
    credentials = getattr(source, "credentials", None)
    base_url, app_key = getattr(credentials, "base_url", None), getattr(credentials, "app_key", None)
    if not isinstance(base_url, str) or not isinstance(app_key, str):
        return None
    return _home_of(base_url), app_key


def is_of(sighting: Sighting, host: str, app_key: str) -> bool:
    """
    Whether a request is of that account: it goes to its host, with its app key or with none.

    Where the host is a proxy or a stand-in, KIS's own hosts are its too, if the request carries the app key: what is
    put between a library and KIS is often beneath the library.
    """
    if sighting.host == host:
        return sighting.app_key in (None, app_key)
    return sighting.app_key == app_key and sighting.host in _OFFICIAL and host not in _OFFICIAL


def is_own(source: NonBlockingSource, token: str | None) -> bool:
    """Whether `source` has handed `token` out, or would."""
    current = source.peek()
    return token is not None and (source.issued(token) or (current is not None and current.value == token))


def learn(source: NonBlockingSource, sighting: Sighting) -> None:
    """Take note that a request with a token of the source's own is of this account."""
    _learned.of(source.identity)[sighting.host, sighting.app_key] = None


def learned_of(source: NonBlockingSource, sighting: Sighting) -> bool | None:
    """Whether a request is of an account of the source's, as far as has been learned; None where nothing has."""
    learned = list(_learned.of(source.identity))
    if not learned:
        return None
    return any(is_of(sighting, host, app_key or sighting.app_key or "") for host, app_key in learned)


class _Refusals:
    """Where, and for which app key, KIS refused a token: of a source that has no `credentials`, all that is known."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str | None]] = {}

    def note(self, sighting: Sighting) -> None:
        if sighting.token is not None:
            self._seen[fingerprint(sighting.token)] = sighting.host, sighting.app_key
            while len(self._seen) > _REMEMBERED:
                self._seen.pop(next(iter(self._seen)), None)

    def include(self, sighting: Sighting) -> bool:
        if sighting.token is None:
            return False
        return self._seen.get(fingerprint(sighting.token)) == (sighting.host, sighting.app_key)


_refusals = _Refusals()
note_refused = _refusals.note
was_refused_there = _refusals.include
