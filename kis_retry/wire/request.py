"""A request to KIS as a library sends it: what it tells before it leaves, and what comes of sending it once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..answers import Verdict, judge_answer, judge_error
from ..context import is_from_signal_handler
from ..credentials import Credentials
from ..token import bare

__all__ = ["UNREPEATABLE", "KisRequest", "LibraryCall", "Sent", "is_short", "read_request"]

UNREPEATABLE: Any = object()
"""The body of a request that can be sent only once: a stream, a file, a form with files."""

_SAFE_METHODS = frozenset(("GET", "HEAD"))  # they act on nothing (RFC 9110, section 9.2.1), as far as KIS has them
_HASHKEY = "/uapi/hashkey"  # posted to, and yet no order: KIS computes a hash of the body and keeps nothing
_APPROVAL = "/oauth2/Approval"  # as harmless
_REVOCATION = "/oauth2/revokeP"
_OF_TOKENS = ("/oauth2/tokenP", _REVOCATION)
_TEXT = re.compile(
    r"(application/(?!x-ndjson|json-seq)([\w.-]+\+)?json|text/(?!event-stream)[\w.+-]*)?\s*(;|$)", re.IGNORECASE
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class KisRequest:
    """
    One request to KIS's API, or a library's own about its token, which names its account in the body.

    Attributes:
        method: in upper case.
        base_url: all before `/uapi/` or `/oauth2/`; with app key and secret it is the account.
        path: from there on, without the query.
        url: the whole address.
        app_key, app_secret, tr_id: None where they are missing.
        original_token: the bare token that the code gave it; None where there is none.
        token: the one that it leaves with.
        body: bytes or text, None, or `UNREPEATABLE`.
        is_about_token: it asks for a token, or ends one.
        revoked: the token that it ends, "" where it names none; None: it ends none.
        needs_token: it is refused without one.
        is_read: it acts on nothing; all else is an order.
        is_paced: KIS counts it among the calls of a second; the websocket key it does not.
        shows_orders: its answer tells what became of orders: a read of trading, but not of what could be bought.
    """

    def __init__(
        self, method: str, url: str, base_url: str, path: str, headers: Mapping[str, Any] | None, body: Any
    ) -> None:
        self.method = method
        self.url = url
        self.base_url = base_url
        self.path = path
        self.is_about_token = path in _OF_TOKENS
        says = _json_object(body) if self.is_about_token else headers or {}
        self.revoked = (_text_of(says, "token") or "") if path == _REVOCATION else None
        self.app_key, self.app_secret = _text_of(says, "appkey"), _text_of(says, "appsecret")
        self.tr_id, authorization = _text_of(says, "tr_id"), _text_of(says, "authorization")
        token = self.original_token = self.token = bare(authorization or "") or None
        self._is_in_form = authorization == f"Bearer {token}" or " " in (token or "")  # that is another scheme
        self.body = body if body is None or isinstance(body, (bytes, str)) else UNREPEATABLE
        self.is_paced = not path.startswith(_APPROVAL)
        self.needs_token = self.is_paced and not path.startswith(_HASHKEY)
        self.is_read = method in _SAFE_METHODS or not self.needs_token
        self.shows_orders = method == "GET" and "/trading/" in path and "/trading/inquire-psbl-" not in path

    def is_of(self, whose: Credentials) -> bool:
        """Say whether it is of that account, as far as it names one."""
        return (
            self.app_key in (None, whose.app_key)
            and self.app_secret in (None, whose.app_secret)
            and (self.base_url == whose.base_url or self.base_url == _normal(whose.base_url))
        )

    def put_token(self, headers: MutableMapping[Any, Any], name: str = "authorization") -> None:
        """Put its token into the headers of a copy, always as "Bearer …", where the code gave it another or none."""
        if self.token is not None and not (self.token == self.original_token and self._is_in_form):
            headers[name] = f"Bearer {self.token}"

    @property
    def name(self) -> str:
        """Method and path, as events show it."""
        return f"{self.method} {self.path}"


class Sent(NamedTuple):
    """
    What came of sending a request once.

    Attributes:
        verdict: how it was judged.
        response: the library's own, its body read or still to be read as the caller wants it.
        error: what the library raised instead.
        redirected: the answer is of another request, to which the first one led.
        status, body: of the answer, as far as it was read.
        location: where the answer leads, where the library asks there by a request of its own.
        replayed: it was not sent at all: the same order was, and its answer was lost.
    """

    verdict: Verdict
    response: Any = None
    error: Exception | None = None
    redirected: bool = False
    status: int = 0
    body: bytes = b""
    location: str = ""
    replayed: bool = False

    def end(self) -> Any:
        """Give the caller the outcome."""
        error = self.error
        try:
            if error is not None:
                raise error
            return self.response
        finally:
            del error, self  # a circle would keep the connection open


class LibraryCall:
    """
    One call of the function with which a library sends; each library adds how it sends once.

    Attributes:
        request: what it sends.
        codes: KIS's codes that count as an expired token.
        alone: nobody underneath may repeat the request.
        lost: the error of the library for a connection that broke, where that of a lost order cannot be made again.
        answers_tokens: a token request can be answered here; else it goes to KIS.
    """

    request: Any
    codes: tuple[str, ...] = ()
    alone = False
    lost: type[Exception] = ConnectionError
    answers_tokens = True

    def new_session(self) -> Any:
        """Return a session for token requests with the proxies and certificates of this one; None: the usual ones."""
        return None

    def answer(self, status: int, body: bytes, location: str = "") -> Sent:
        """Return an answer of KIS's that is made here."""
        raise NotImplementedError

    def judged(self, response: Any, status: int, body: bytes | None, *, redirected: bool = False) -> Sent:
        """Judge an answer."""
        return Sent(judge_answer(status, body, self.codes), response, None, redirected, status, body or b"")

    def failed(self, error: Exception, *, redirected: bool = False) -> Sent:
        """Judge an error, and let go of the frame of this package, which would keep it alive."""
        if is_from_signal_handler(error):
            raise error
        trace = error.__traceback__
        verdict = judge_error(error, self.codes)
        error = error.with_traceback(trace.tb_next if trace is not None else None)
        return Sent(verdict, error=error, redirected=redirected)


def read_request(method: object, url: object, headers: Mapping[str, Any] | None, body: Any) -> KisRequest | None:
    """
    Return what a request to KIS tells; None where it is none.

    KIS's API lives under `/uapi/`, wherever a proxy or a stand-in has it, with or without a doubled slash or a prefix.

    Args:
        method: as the library has it.
        url: the whole address, as text or as the library has it.
        headers: all of them; they find a name in lower case.
        body: bytes or text, None, or anything else where it can be sent only once.
    """
    address = str(url)
    if "/uapi/" not in address and "/oauth2/" not in address:
        return None
    parts, verb = urlsplit(address), str(method).upper()
    before, mark, rest = parts.path.partition("/uapi/")
    if not mark:
        before, mark, rest = parts.path.partition("/oauth2/")
    path = mark + rest
    if mark != "/uapi/" and not (verb == "POST" and path in (_APPROVAL, *_OF_TOKENS)):
        return None
    return KisRequest(verb, address, _base_url(parts.scheme, parts.netloc, before), path, headers, body)


def is_short(headers: Mapping[str, Any], status: int) -> bool:
    """
    Say whether a streamed answer may be read here, to be judged: a failure, or text of any kind that comes to an end.

    A type that is missing counts too; `text/event-stream` and JSON line by line go on and on.
    """
    return status >= 400 or _TEXT.match((headers.get("content-type") or "").strip()) is not None


def _base_url(scheme: str, netloc: str, prefix: str) -> str:
    host = netloc.rpartition("@")[2].lower()
    return f"{scheme.lower()}://{host.removesuffix(_DEFAULT_PORTS.get(scheme.lower(), ':'))}{prefix.rstrip('/')}"


def _normal(base_url: str) -> str:
    """Return a base URL as those of requests are: in lower case, without a default port."""
    parts = urlsplit(base_url)
    return _base_url(parts.scheme, parts.netloc, parts.path)


def _json_object(body: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text_of(values: Mapping[str, Any], name: str) -> str | None:
    """Return what stands by that name, as text; None where it is missing, empty or no text."""
    value = values.get(name)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return (text.strip() or None) if isinstance(text, str) else None
