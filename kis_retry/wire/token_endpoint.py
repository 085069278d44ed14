"""
A library's own token request: answered by the account's source, in KIS's words.

So that sixteen threads of a library that refreshes by itself are not a herd at the token endpoint, and no second token
is issued in the minute.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from ..answers import Meaning, Verdict
from ..engine import Flow, Send, Wait
from ..errors import TokenIssueError
from ..token import AccessToken
from ..tokens.issuer import SEOUL
from ..tokens.source import LiveSource
from .protection import Protection
from .request import LibraryCall, Sent, TokenRequest

__all__ = ["token_flow"]

_STAMP = "%Y-%m-%d %H:%M:%S"
_SAYINGS = {
    "EGW00103": "유효하지 않은 AppKey입니다.",
    "EGW00105": "유효하지 않은 AppSecret입니다.",
    "EGW00133": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)",
}
"""KIS's own words, which libraries look for."""


def token_flow(call: LibraryCall, protections: tuple[Protection, ...]) -> Flow[Sent]:
    """
    Answer a token request; what is none of a known account, or revokes a token, goes to KIS.

    The token is never one that was refused or is about to expire.
    """
    request: TokenRequest = call.request
    source = _source_of(request, protections, call)
    if source is not None and call.answers_tokens and not request.revokes:
        future = source.renewed_future()
        yield Wait(future)
        return _said(call, future)
    sent: Sent = yield Send()
    if source is not None and sent.status == 200:  # as KIS answers
        if not request.revokes:
            _adopt(source, sent.body)
        elif request.token is not None:
            source.note_refused(request.token)
    return sent


def _source_of(request: TokenRequest, protections: tuple[Protection, ...], call: LibraryCall) -> LiveSource | None:
    """Return the source of the account that asks; None where no protection refreshes, or it names no account."""
    if request.app_key is None or request.app_secret is None:
        return None
    refreshing = (each for each in protections if each.rules.refreshes and each.rules.watches)
    return next((found for each in refreshing if (found := each.source_of(request, call.new_session))), None)


def _adopt(source: LiveSource, body: bytes) -> None:
    """Take over a token that KIS issued to the library itself."""
    try:
        said = json.loads(body)
        expires_at = datetime.strptime(said["access_token_token_expired"], _STAMP).replace(tzinfo=SEOUL)
        source.adopt(AccessToken(said["access_token"], expires_at))
    except (KeyError, TypeError, ValueError):  # a refusal, or another's answer
        return


def _said(call: LibraryCall, future: Future[AccessToken]) -> Sent:
    """Return what KIS would have said."""
    failure = future.exception()
    if failure is None:
        return call.answer(200, _as_json(_words(future.result())))
    code = getattr(failure, "code", None)
    if code is None:  # nobody could be reached
        error = call.lost(str(failure) if isinstance(failure, TokenIssueError) else "no token could be had")
        return Sent(Verdict(Meaning.NEVER_LEFT, error=type(error).__name__), error=error)
    return call.answer(403, _as_json({"error_code": code, "error_description": _SAYINGS.get(code, str(failure))}))


def _words(token: AccessToken) -> dict[str, Any]:
    return {
        "access_token": token.value,
        "access_token_token_expired": token.expires_at.astimezone(SEOUL).strftime(_STAMP),
        "token_type": "Bearer",
        "expires_in": max(0, int(token.expires - time.time())),
    }


def _as_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
