"""
One request to the token endpoint (`tokenP`, `revokeP`, `Approval`), and what its answer means.

Nothing of the request or of the answer gets into an error, since both hold secrets.
"""

from __future__ import annotations

import netrc  # noqa: F401  # requests imports it at its first request, when a child may be forked that would wait for it
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from ..answers import Meaning, judge_error
from ..context import behind
from ..credentials import Credentials
from ..errors import KisRetryError, TokenIssueError, TokenIssueLimited
from ..forking import after_fork
from ..token import SEOUL, YEARS, AccessToken, bare

__all__ = ["TokenIssuer", "leave_connections_to_parent", "missing_bundle", "read_answer"]

"""Korea has had no summer time since 1988, so a fixed offset needs no time zone database."""

_CONNECT_TIMEOUT = 3.05  # seconds; just above one TCP retransmission, as the requests manual advises
_APPROVED_FOR = 86_400  # seconds that a websocket key lives; its answer does not say
_LIMITED, _TOO_FAST = "EGW00133", "EGW00201"
_MEANINGS = {
    "EGW00103": "KIS does not accept the app key; check KIS_APP_KEY, and that it belongs to this host (real or paper)",
    "EGW00105": "KIS does not accept the app secret; check KIS_APP_SECRET",
    _LIMITED: "KIS issues one token a minute for an app key, and this minute's is taken",
}
_TRUST = "REQUESTS_CA_BUNDLE, or the `verify` of a session= of your own, names what to trust, its `cert` your own"

# The first that is found anywhere behind the error is the cause: what requests makes of it says less.
_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (requests.exceptions.ProxyError, "the proxy did not let the request through"),
    (socket.gaierror, "its name could not be resolved (DNS)"),
    (ssl.SSLError, f"no TLS connection could be set up ({_TRUST})"),
    (ConnectionRefusedError, "the connection was refused"),
    (requests.Timeout, "no answer in time"),
    (ConnectionError, "the connection was dropped"),  # reset, aborted, and http.client's RemoteDisconnected
)


class TokenIssuer:
    """Asks KIS once for each call of a method, for `timeout` seconds at most. Safe to share between threads."""

    def __init__(self, credentials: Credentials, session: requests.Session | None, clock: Any) -> None:
        self._credentials, self._clock = credentials, clock
        self._session = requests.Session() if session is None else session
        after_fork(self._session, leave_connections_to_parent)

    def issue(self, timeout: float) -> AccessToken:
        """Ask for a token; raise a `TokenIssueError` where there is none."""
        return read_answer(*self._post("tokenP", timeout, "appsecret", grant_type="client_credentials"), self._now())

    def approve(self, timeout: float) -> AccessToken:
        """Ask for a websocket key, in the same way."""
        status, body = self._post("Approval", timeout, "secretkey", grant_type="client_credentials")
        if isinstance(body, dict):
            body = {**body, "access_token": body.get("approval_key"), "expires_in": _APPROVED_FOR}
        return read_answer(status, body, self._now())

    def revoke(self, token: AccessToken, timeout: float) -> None:
        """Have KIS forget a token: every other holder of it is refused from now on (EGW00121)."""
        status, body = self._post("revokeP", timeout, "appsecret", token=token.value)
        if status != 200:
            raise KisRetryError(f"the token was not revoked: HTTP {status}, {_code_in(body) or 'no error code'}")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), timezone.utc)

    def _post(self, endpoint: str, timeout: float, secret_name: str, **body: str) -> tuple[int, Any]:
        """Return the status and the JSON of the answer, None where it is none."""
        keys = {"appkey": self._credentials.app_key, secret_name: self._credentials.app_secret}
        try:
            response = self._session.post(
                f"{self._credentials.base_url}/oauth2/{endpoint}",
                json={**keys, **body},
                headers={"Cache-Control": "no-store"},  # a session of `requests_cache` would hand a dead one out
                timeout=(min(_CONNECT_TIMEOUT, timeout), timeout),
                allow_redirects=False,  # the body holds the secret: it goes to the configured host alone
            )
            return response.status_code, _object_in(response)
        except Exception as error:  # of requests, or of what a session of the user's is made of
            refused = getattr(error, "response", None)  # a hook of the session's called raise_for_status()
            if refused is not None:
                return refused.status_code, _object_in(refused)
            final, cause = judge_error(error).meaning is Meaning.FINAL, _cause_of(error)
        # Raised out here: in there the error would carry the request, and with it the secret, as its context.
        host = urlsplit(self._credentials.base_url).netloc.rpartition("@")[2]
        raise TokenIssueError(f"the token endpoint at {host} could not be reached: {cause}", retryable=not final)


def read_answer(status: int, body: object, now: datetime) -> AccessToken:
    """
    Read the token in an answer of `tokenP`, or raise the error that it amounts to.

    Its expiry is a stamp in Seoul's time without a zone; without that `now` plus `expires_in` (KIS access-token page).
    """
    value = body.get("access_token") if isinstance(body, Mapping) else None
    if status != 200 or not isinstance(value, str) or not bare(value):
        raise _error_in(status, body)
    expires_at = _expiry(body, now)
    if expires_at is None:
        raise TokenIssueError("the token came with neither access_token_token_expired nor expires_in: it has no expiry")
    try:
        return AccessToken(bare(value), expires_at)
    except ValueError as error:
        raise TokenIssueError(f"the token endpoint answered something else than a token: {error}") from None


def _expiry(body: Any, now: datetime) -> datetime | None:
    with suppress(KeyError, TypeError, ValueError):
        stamp = datetime.strptime(body["access_token_token_expired"], "%Y-%m-%d %H:%M:%S")
        if stamp.year in YEARS:
            return stamp.replace(tzinfo=SEOUL)
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        seconds = float(body["expires_in"])
        return now + timedelta(seconds=seconds) if seconds > 0 else None
    return None


def _error_in(status: int, body: object) -> TokenIssueError:
    code = _code_in(body)
    if code is not None:
        kind = TokenIssueLimited if code == _LIMITED else TokenIssueError
        meaning = _MEANINGS.get(code, "KIS refuses to issue a token; its error code table says why")
        return kind(f"{meaning} ({code}, HTTP {status})", code=code, retryable=code in (_LIMITED, _TOO_FAST))
    is_object = isinstance(body, Mapping)  # else it came from somebody else, a proxy say
    missing = "a token" if is_object else "a JSON object"
    passes = not is_object or status >= 500 or status in (200, 429)
    return TokenIssueError(f"the token endpoint answered HTTP {status} without {missing}", retryable=passes)


def _code_in(body: object) -> str | None:
    """Return KIS's error code; `tokenP` calls it `error_code`, everything else `msg_cd`."""
    code = (body.get("error_code") or body.get("msg_cd")) if isinstance(body, Mapping) else None
    return code if isinstance(code, str) and code.isalnum() and len(code) <= 16 else None


def _object_in(response: requests.Response) -> Any:
    with suppress(ValueError, RecursionError):  # the latter: brackets without end
        return response.json()
    return None


def _cause_of(error: Exception) -> str:
    """Say why the host could not be reached, in words that hold no URL, no query and no body."""
    missing, made_of = missing_bundle(error) if isinstance(error, OSError) else None, behind(error)
    causes = (words for kind, words in _CAUSES if any(isinstance(found, kind) for found in made_of))
    return missing or next(causes, type(error).__name__)


def leave_connections_to_parent(session: requests.Session) -> None:
    """Give its adapters empty pools: two processes on one connection get each other's answers, and no error."""
    for adapter in getattr(session, "adapters", {}).values():  # a stand-in of the user's may have none
        if isinstance(adapter, HTTPAdapter):  # others, as mocks are, keep no connections that requests knows of
            adapter.__setstate__(adapter.__getstate__())  # type: ignore[attr-defined]  # the stubs leave it out


def missing_bundle(error: OSError) -> str | None:
    """Return what the bare `OSError` of `requests` for a TLS file that is not there says; None for any other."""
    text = str(error)
    if isinstance(error, requests.RequestException) or "TLS" not in text or "invalid path:" not in text:
        return None
    return f"{text} (REQUESTS_CA_BUNDLE takes a bundle of certificates to trust, a session's `cert` your own)"
