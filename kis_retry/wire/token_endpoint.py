"""
A library's own token request: answered by the account's source, in KIS's words.

So that sixteen threads of a library that refreshes by itself are not a herd at the token endpoint, and no second token
is issued in the minute.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import NamedTuple

from ..engine import Flow, Wait
from ..errors import TokenIssueError
from ..token import AccessToken
from ..tokens.issuer import SEOUL
from ..tokens.source import LiveSource
from .account import SessionMaker, source_of_account
from .protection import Protection
from .request import TokenRequest, same_host

__all__ = ["Said", "adopt", "answered", "note_revoked", "source_of_token_request"]


_SAYINGS = {
    "EGW00103": "유효하지 않은 AppKey입니다.",
    "EGW00105": "유효하지 않은 AppSecret입니다.",
    "EGW00133": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)",
}
"""KIS's own words, which libraries look for."""


class Said(NamedTuple):
    """What KIS says to a token request; without a status nobody could be reached."""

    status: int | None
    body: bytes


def source_of_token_request(
    request: TokenRequest, protections: tuple[Protection, ...], new_session: SessionMaker
) -> LiveSource | None:
    """Return the source of the account that asks; None where no protection refreshes, or it has another secret."""
    for protection in protections:
        if protection.rules.refreshes and protection.rules.watches:
            given = next((source for source in protection.sources() if _is_asked_by(request, source)), None)
            found = given or source_of_account(request, new_session)
            if found is not None:
                return found
    return None


def answered(source: LiveSource) -> Flow[Said]:
    """Get a token, and return what KIS would have said; it is never one that was refused or is about to expire."""
    future = source.renewed_future()
    yield Wait(future)
    return _said(future)


def note_revoked(request: TokenRequest, source: LiveSource | None) -> None:
    """Take note that KIS revoked a token."""
    if source is not None and request.token is not None:
        source.note_refused(request.token)


def adopt(source: LiveSource, body: bytes) -> None:
    """Take over a token that KIS issued to the library itself."""
    try:
        said = json.loads(body)
        stamp = datetime.strptime(said["access_token_token_expired"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=SEOUL)
        source.adopt(AccessToken(said["access_token"], stamp))
    except (KeyError, TypeError, ValueError):  # a refusal, or another's answer
        return


def _is_asked_by(request: TokenRequest, source: LiveSource) -> bool:
    credentials = getattr(source, "credentials", None)
    return (
        credentials is not None
        and request.app_key == credentials.app_key
        and request.app_secret == credentials.app_secret
        and same_host(credentials.base_url, request.base_url)
    )


def _said(future: Future[AccessToken]) -> Said:
    failure = future.exception()
    if failure is None:
        return Said(200, _as_json(_words(future.result())))
    code = getattr(failure, "code", None)
    if code is None:
        return Said(None, str(failure).encode() if isinstance(failure, TokenIssueError) else b"no token could be had")
    return Said(403, _as_json({"error_code": code, "error_description": _SAYINGS.get(code, str(failure))}))


def _words(token: AccessToken) -> dict[str, object]:
    left = token.expires_at - datetime.fromtimestamp(time.time(), timezone.utc)
    return {
        "access_token": token.value,
        "access_token_token_expired": token.expires_at.astimezone(SEOUL).strftime("%Y-%m-%d %H:%M:%S"),
        "token_type": "Bearer",
        "expires_in": max(0, int(left.total_seconds())),
    }


def _as_json(body: dict[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
