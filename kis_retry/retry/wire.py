"""
What a request tells before it leaves: where it goes, for which account, and with which token. Pure.

Here a token that is known to be dead is swapped for the current one, whatever place the code took it from.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from ..context import Sighting
from ..credentials import PAPER_URL, REAL_URL
from ..token import AccessToken, bare, fingerprint
from .call import ProtectedCall

__all__ = [
    "identity_of",
    "is_api",
    "is_of",
    "is_token_request",
    "note_refused",
    "put_token",
    "sighting_of",
    "was_refused_there",
]


def sighting_of(method: object, url: object, headers: Any, body: Any = None) -> Sighting:
    """What can be seen of a request that is about to leave; `body` where it is at hand as text or bytes."""
    parts = urlsplit(str(url))
    token = _text(_value_of(headers, "authorization"))
    return Sighting(
        str(method).upper(),
        _host(parts.netloc),
        parts.path,
        _text(_value_of(headers, "appkey")),
        (bare(token) or None) if token is not None else None,
        query=parts.query,
        body=hash(body) if isinstance(body, (str, bytes)) and body else None,
    )


def is_token_request(sighting: Sighting) -> bool:
    """Whether it speaks of tokens and not of prices: its answers are no API answers."""
    return "/oauth2/" in sighting.path


def is_api(sighting: Sighting, call: ProtectedCall) -> bool:
    """KIS's API lives under /uapi/, wherever a proxy or a stand-in has it; what else its host is asked counts too."""
    if is_token_request(sighting):
        return False
    return "/uapi/" in sighting.path or call.is_at_home(sighting.host)


def identity_of(source: object) -> tuple[str, str] | None:
    """Host and app key of a token source that has `credentials`; None where nobody knows them."""
    credentials = getattr(source, "credentials", None)
    base_url, app_key = getattr(credentials, "base_url", None), getattr(credentials, "app_key", None)
    if not isinstance(base_url, str) or not isinstance(app_key, str):
        return None
    return _host(urlsplit(base_url).netloc), app_key


def is_of(sighting: Sighting, host: str, app_key: str) -> bool:
    """
    Whether a request is of that account: it goes to its host, with its app key or with none.

    Where the host is a proxy or a stand-in, KIS's own hosts are its too, if the request carries the app key: what is
    put between a library and KIS is often beneath the library.
    """
    if sighting.host == host:
        return sighting.app_key in (None, app_key)
    return sighting.app_key == app_key and sighting.host in _OFFICIAL and host not in _OFFICIAL


def put_token(headers: MutableMapping[Any, Any], token: AccessToken) -> None:
    """Have the request leave with `token`, in the form in which the other one stood there."""
    for key in [key for key in headers if _is(key, "authorization")]:
        found = headers[key]
        text = found.decode("latin-1") if isinstance(found, bytes) else str(found)
        value = text.replace(bare(text), token.value) if bare(text) else token.bearer
        headers[key] = value.encode("latin-1") if isinstance(found, bytes) else value


def _value_of(headers: Any, name: str) -> Any:
    found = headers.get(name) if headers is not None else None
    if found is None and headers is not None:
        found = next((headers[key] for key in headers if _is(key, name)), None)
    return found


def _is(key: Any, name: str) -> bool:
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    return isinstance(text, str) and text.lower() == name


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


def _host(netloc: str) -> str:
    return netloc.rpartition("@")[2].lower()


_OFFICIAL = frozenset(_host(urlsplit(url).netloc) for url in (REAL_URL, PAPER_URL))


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


_REMEMBERED = 256  # tokens; each is refused once in its life
_refusals = _Refusals()
note_refused = _refusals.note
was_refused_there = _refusals.include
