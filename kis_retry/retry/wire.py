"""
What a request tells before it leaves: where it goes, for which account, and with which token. Pure.

Here a token that is known to be dead is swapped for the current one, whatever place the code took it from.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..context import Sighting
from ..token import AccessToken, bare
from .call import ProtectedCall

__all__ = ["host_of", "is_api", "is_token_request", "put_token", "sighting_of"]

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def sighting_of(method: object, url: object, headers: Any, body: Any = None) -> Sighting:
    """What can be seen of a request that is about to leave; `body` where it is at hand as text or bytes."""
    parts = urlsplit(str(url))
    token = _text(_value_of(headers, "authorization"))
    return Sighting(
        str(method).upper(),
        _host_of(parts),
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


def host_of(url: str) -> str:
    """Host and port, in lower case; without the port that the scheme has by default, which some libraries leave out."""
    return _host_of(urlsplit(url))


def put_token(headers: MutableMapping[Any, Any], token: AccessToken) -> None:
    """Have the request leave with `token`, in the form in which the other one stood there."""
    for key in [key for key in headers if _is(key, "authorization")]:
        found = headers[key]
        text = found.decode("latin-1") if isinstance(found, bytes) else str(found)
        value = text.replace(bare(text), token.value) if bare(text) else token.bearer
        headers[key] = value.encode("latin-1") if isinstance(found, bytes) else value


def _host_of(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2].lower().removesuffix(_DEFAULT_PORTS.get(parts.scheme.lower(), ":"))


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
