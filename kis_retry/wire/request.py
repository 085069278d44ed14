"""What a request tells before it leaves: where it goes, for which account, and with which token. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from ..token import bare

__all__ = [
    "UNREPEATABLE",
    "ApiRequest",
    "TokenRequest",
    "header_of",
    "is_short",
    "read_request",
    "same_host",
]

UNREPEATABLE: Any = object()
"""The body of a request that can be sent only once: a stream, a file, a form with files."""

_SAFE_METHODS = frozenset(("GET", "HEAD"))  # they act on nothing (RFC 9110, section 9.2.1), as far as KIS has them
_HASHKEY = "/uapi/hashkey"  # posted to, and yet no order: KIS computes a hash of the body and keeps nothing
_APPROVAL = "/oauth2/Approval"  # as harmless
_TEXT = re.compile(
    r"(application/(?!x-ndjson|json-seq)([\w.-]+\+)?json|text/(?!event-stream)[\w.+-]*)?\s*(;|$)", re.IGNORECASE
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class ApiRequest:
    """
    One request to KIS's API.

    Attributes:
        method: in upper case.
        base_url: all before `/uapi/`; with app key and secret it is the account.
        path: from `/uapi/` on, without the query.
        url: the whole address.
        app_key, app_secret, tr_id: of its headers; None where they are missing.
        original_token: the bare token that the code gave it; None where there is none.
        token: the one that it leaves with.
        body: bytes or text, None, or `UNREPEATABLE`.
        needs_token: it is refused without one.
    """

    __slots__ = (
        "_is_in_form",
        "app_key",
        "app_secret",
        "base_url",
        "body",
        "is_read",
        "method",
        "needs_token",
        "original_token",
        "path",
        "token",
        "tr_id",
        "url",
    )

    def __init__(
        self, method: str, url: str, base_url: str, path: str, headers: Mapping[Any, Any] | None, body: Any
    ) -> None:
        self.method = method
        self.url = url
        self.base_url = base_url
        self.path = path
        self.app_key = header_of(headers, "appkey")
        self.app_secret = header_of(headers, "appsecret")
        self.tr_id = header_of(headers, "tr_id")
        authorization = header_of(headers, "authorization") or ""
        token = self.original_token = self.token = bare(authorization) or None
        self._is_in_form = authorization == f"Bearer {token}" or " " in (token or "")  # that is another scheme
        self.body = body if body is None or isinstance(body, (bytes, str)) else UNREPEATABLE
        self.needs_token = not path.startswith((_HASHKEY, _APPROVAL))
        self.is_read = method in _SAFE_METHODS or not self.needs_token

    def put_token(self, headers: MutableMapping[Any, Any]) -> None:
        """Put its token into the headers of a copy, always as "Bearer …", where the code gave it another or none."""
        if self.token is None or (self.token == self.original_token and self._is_in_form):
            return
        for key in [key for key in headers if _is(key, "authorization")]:
            del headers[key]
        headers["authorization"] = f"Bearer {self.token}"

    @property
    def name(self) -> str:
        """Method and path, as events show it."""
        return f"{self.method} {self.path}"

    @property
    def is_repeatable(self) -> bool:
        """Whether its body can be sent again."""
        return self.body is not UNREPEATABLE

    @property
    def is_paced(self) -> bool:
        """Whether KIS counts it among the calls of a second; the websocket key it does not."""
        return not self.path.startswith(_APPROVAL)

    @property
    def shows_orders(self) -> bool:
        """Whether its answer tells what became of orders: a read of trading, but not of what could be bought."""
        return self.method == "GET" and "/trading/" in self.path and "/trading/inquire-psbl-" not in self.path


class TokenRequest:
    """
    A library's own request about its token: `/oauth2/tokenP` or `/oauth2/revokeP`.

    Attributes:
        base_url: all before `/oauth2/`.
        app_key, app_secret, token: of its JSON body; None where they are missing.
        revokes: it is the one that ends a token.
    """

    __slots__ = ("app_key", "app_secret", "base_url", "revokes", "token")

    def __init__(self, base_url: str, body: Any, *, revokes: bool) -> None:
        said = _json_object(body)
        self.base_url = base_url
        self.app_key, self.app_secret, self.token = (_text(said.get(name)) for name in ("appkey", "appsecret", "token"))
        self.revokes = revokes


def read_request(method: object, url: object, headers: Mapping[Any, Any] | None, body: Any) -> Any:
    """
    Return what a request to KIS is: an `ApiRequest` or a `TokenRequest`; None where it is none of them.

    KIS's API lives under `/uapi/`, wherever a proxy or a stand-in has it, with or without a doubled slash or a prefix.

    Args:
        method: as the library has it.
        url: the whole address, as text or as the library has it.
        headers: all of them, with whatever case of their names.
        body: bytes or text, None, or anything else where it can be sent only once.
    """
    address = str(url)
    api = address.find("/uapi/")
    if api < 0 and "/oauth2/" not in address:
        return None
    parts = urlsplit(address)
    verb = str(method).upper()
    before, mark, rest = parts.path.partition("/uapi/")
    if mark:
        base_url = _base_url(parts.scheme, parts.netloc, before)
        return ApiRequest(verb, address, base_url, f"/uapi/{rest}", headers, body)
    before, mark, rest = parts.path.partition("/oauth2/")
    base_url = _base_url(parts.scheme, parts.netloc, before)
    if not mark or verb != "POST":
        return None
    if rest == "Approval":
        return ApiRequest(verb, address, base_url, _APPROVAL, headers, body)
    if rest in ("tokenP", "revokeP"):
        return TokenRequest(base_url, body, revokes=rest == "revokeP")
    return None


def same_host(base_url: str, other: str) -> bool:
    """Say whether two base URLs name the same place, as written or with a default port left out."""
    return base_url == other or _normal(base_url) == _normal(other)


def header_of(headers: Mapping[Any, Any] | None, name: str) -> str | None:
    """Return a header as text, whatever the case of its name and the kind of mapping; None where it is missing."""
    if not headers:
        return None
    found = headers.get(name)
    if found is None:
        found = next((headers[key] for key in headers if _is(key, name)), None)
    text = found.decode("latin-1") if isinstance(found, bytes) else found
    return (text.strip() or None) if isinstance(text, str) else None


def is_short(headers: Mapping[Any, Any], status: int) -> bool:
    """
    Say whether a streamed answer may be read here, to be judged: a failure, or text of any kind that comes to an end.

    A type that is missing counts too; `text/event-stream` and JSON line by line go on and on.
    """
    return status >= 400 or _TEXT.match(header_of(headers, "content-type") or "") is not None


def _base_url(scheme: str, netloc: str, prefix: str) -> str:
    host = netloc.rpartition("@")[2].lower()
    return f"{scheme.lower()}://{host.removesuffix(_DEFAULT_PORTS.get(scheme.lower(), ':'))}{prefix.rstrip('/')}"


def _normal(base_url: str) -> str:
    parts = urlsplit(base_url)
    return _base_url(parts.scheme, parts.netloc, parts.path)


def _json_object(body: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return (value.strip() or None) if isinstance(value, str) else None


def _is(key: Any, name: str) -> bool:
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    return isinstance(text, str) and text.lower() == name
