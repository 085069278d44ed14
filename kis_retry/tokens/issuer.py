"""
One request to `POST /oauth2/tokenP` (or `revokeP`), and what its answer means.

It travels on a session of its own and never through the decorator: a refresh must not refresh itself. Nothing of the
request or of the answer gets into an error, since both hold secrets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from ..context import bypassed
from ..credentials import Credentials
from ..errors import KisRetryError, TokenIssueError, TokenIssueLimited
from ..sessions import leave_connections_to_parent, missing_bundle
from ..token import YEARS, AccessToken, bare
from .single_flight import SingleFlight, StillUnderWayError
from .unreachable import cause_of, host_of, is_final

__all__ = ["SEOUL", "TokenIssuer", "read_answer"]

SEOUL = timezone(timedelta(hours=9), "Asia/Seoul")
"""Korea has had no summer time since 1988, so a fixed offset needs no time zone database."""

_CONNECT_TIMEOUT = 3.05  # seconds; just above one TCP retransmission, as the requests manual advises
_LIMITED = "EGW00133"
_TRANSIENT_CODES = ("EGW00201",)  # calls a second: the token endpoint is counted too
_MEANINGS = {
    "EGW00103": "KIS does not accept the app key; check KIS_APP_KEY, and that it belongs to this host (real or paper)",
    "EGW00105": "KIS does not accept the app secret; check KIS_APP_SECRET",
    _LIMITED: "KIS issues one token a minute for an app key, and this minute's is taken",
}


class TokenIssuer:
    """
    Asks KIS for a token, once per call of `issue`. Safe to share between threads.

    Attributes:
        clock_ahead: seconds by which KIS's clock is ahead of this machine's, by the `Date` of its last answer; None
            where no answer had one.
    """

    def __init__(self, credentials: Credentials, session: requests.Session | None = None) -> None:
        self._credentials = credentials
        self._given = session
        self._session = session
        self.clock_ahead: float | None = None

    def issue(self, timeout: float) -> AccessToken:
        """
        Ask once.

        Args:
            timeout: seconds for the whole request, to the last byte of its answer; connecting takes 3.05 at most.

        Raises:
            TokenIssueLimited: EGW00133, once a minute.
            TokenIssueError: anything else that is not a token.
        """
        status, body = self._post("tokenP", timeout, {"grant_type": "client_credentials", **self._keys("appsecret")})
        return read_answer(status, body, datetime.fromtimestamp(time.time(), timezone.utc))

    def revoke(self, token: AccessToken, timeout: float) -> None:
        """
        Have KIS forget a token: every other holder of it is refused from now on (EGW00121).

        Raises:
            KisRetryError: KIS did not confirm.
        """
        status, body = self._post("revokeP", timeout, {**self._keys("appsecret"), "token": token.value})
        if status != 200:
            code = _error_code(body) if isinstance(body, Mapping) else None
            raise KisRetryError(f"the token was not revoked: HTTP {status}, {code or 'no error code'}")

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        if self._given is not None:
            leave_connections_to_parent(self._given)
        self._session = self._given

    def _keys(self, secret_name: str) -> dict[str, str]:
        return {"appkey": self._credentials.app_key, secret_name: self._credentials.app_secret}

    def _post(self, endpoint: str, timeout: float, body: dict[str, str]) -> tuple[int, object]:
        """Send on a thread of its own: an endpoint that sends a byte a second keeps to no time-out of a socket."""
        request: SingleFlight[tuple[int, object]] = SingleFlight("kis_retry-request")
        try:
            return request.run(endpoint, lambda: self._send(endpoint, timeout, body), look=_nothing, seconds=timeout)[0]
        except StillUnderWayError:
            self._session = self._given  # what is under way keeps the one it has
        raise self._unreachable("no complete answer in time", final=False)

    def _send(self, endpoint: str, timeout: float, body: dict[str, str]) -> tuple[int, object]:
        session = self._session
        if session is None:
            session = self._session = requests.Session()
        try:
            with bypassed():  # a session whose class is protected must not refresh the refresh
                response = session.post(
                    f"{self._credentials.base_url}/oauth2/{endpoint}",
                    json=body,
                    headers={"Cache-Control": "no-store"},  # a session of `requests_cache` would hand a dead one out
                    timeout=(min(_CONNECT_TIMEOUT, timeout), timeout),
                    allow_redirects=False,  # the body holds the secret: it goes to the configured host alone
                )
            self._compare_clocks(response)
            return response.status_code, _json(response)
        except Exception as error:  # of requests, or of what a session of the user's is made of
            missing = missing_bundle(error) if isinstance(error, OSError) else None
            failure = self._unreachable(missing or cause_of(error), final=missing is not None or is_final(error))
        # Raised out here: in there the error would carry the request, and with it the secret, as its context.
        raise failure

    def _unreachable(self, cause: str, *, final: bool) -> TokenIssueError:
        host = host_of(self._credentials.base_url)
        return TokenIssueError(f"the token endpoint at {host} could not be reached: {cause}", retryable=not final)

    def _compare_clocks(self, response: requests.Response) -> None:
        try:
            self.clock_ahead = parsedate_to_datetime(response.headers["Date"]).timestamp() - time.time()
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):  # none, or none that can be read
            self.clock_ahead = None


def read_answer(status: int, body: object, now: datetime) -> AccessToken:
    """
    Pure: the token in an answer of `tokenP`, or the error that it amounts to.

    Expiry is `access_token_token_expired`, Seoul wall-clock time without a zone; without it `now` plus `expires_in`
    seconds (KIS access-token page).
    """
    if not isinstance(body, Mapping):
        raise TokenIssueError(f"the token endpoint answered HTTP {status} without a JSON object", retryable=True)
    code = _error_code(body)
    if code == _LIMITED:
        raise TokenIssueLimited(_MEANINGS[_LIMITED], code=code, retryable=True)
    value = body.get("access_token")
    if status == 200 and isinstance(value, str) and bare(value):
        return _token(bare(value), _expiry(body, now))
    if code is not None:
        meaning = _MEANINGS.get(code, "KIS refuses to issue a token; its error code table says why")
        raise TokenIssueError(f"{meaning} ({code}, HTTP {status})", code=code, retryable=code in _TRANSIENT_CODES)
    transient = status >= 500 or status in (200, 429)
    raise TokenIssueError(f"the token endpoint answered HTTP {status} without a token", retryable=transient)


def _token(value: str, expires_at: datetime | None) -> AccessToken:
    if expires_at is None:
        raise TokenIssueError(
            "the token came with neither access_token_token_expired nor expires_in, so nobody knows how long it lives"
        )
    try:
        return AccessToken(value, expires_at)
    except ValueError as error:
        raise TokenIssueError(f"the token endpoint answered something else than a token: {error}") from None


def _expiry(body: Mapping[str, Any], now: datetime) -> datetime | None:
    try:
        stamp = datetime.strptime(str(body.get("access_token_token_expired")).strip(), "%Y-%m-%d %H:%M:%S")
        if stamp.year in YEARS:
            return stamp.replace(tzinfo=SEOUL)
    except ValueError:
        pass
    try:
        seconds = float(body["expires_in"])
        return now + timedelta(seconds=seconds) if seconds > 0 else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _error_code(body: Mapping[str, Any]) -> str | None:
    """KIS's error code; `tokenP` calls it `error_code`, everything else `msg_cd`."""
    code = body.get("error_code") or body.get("msg_cd")
    return code if isinstance(code, str) and code.isalnum() and len(code) <= 16 else None


def _json(response: requests.Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):  # the latter: brackets without end
        return None


def _nothing() -> None:
    return None
