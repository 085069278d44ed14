"""
The account that a request itself names, by base URL, app key and secret: its source, and its own token requests.

A request of one account never gets the token of another. A library's own token request is answered by the account's
source, in KIS's words: so that sixteen threads of a library that refreshes by itself are not a herd at the token
endpoint, and no second token is issued in the minute.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timezone

from ..answers import Meaning, Verdict
from ..credentials import Credentials
from ..engine import Flow, Send, Wait
from ..errors import ConfigurationError, TokenIssueError
from ..settings import Environment
from ..stores.base import TokenStore
from ..stores.entry import store_from_env
from ..stores.file import FileTokenStore
from ..token import SEOUL, AccessToken
from ..tokens.issuer import read_answer
from ..tokens.manager import TokenManager, every_manager
from ..tokens.source import LiveSource
from .request import KisRequest, LibraryCall, Sent

__all__ = ["credentials_of", "source_of_account", "token_flow"]

_SAYINGS = {
    "EGW00103": "유효하지 않은 AppKey입니다.",
    "EGW00105": "유효하지 않은 AppSecret입니다.",
    "EGW00133": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)",
}
"""KIS's own words, which libraries look for."""

_learned: dict[tuple[str, str, str], TokenManager] = {}  # which nobody else holds


def source_of_account(call: LibraryCall) -> LiveSource | None:
    """Return the newest manager of the account that a request names, else one that is made from the request itself."""
    request: KisRequest = call.request
    if request.app_key is None or request.app_secret is None:
        return None
    known = (manager for manager in reversed(every_manager()) if request.is_of(manager.credentials))
    source = next(known, None)
    credentials = credentials_of(request, None) if source is None else None
    if credentials is None:
        return source
    made = TokenManager(credentials, store=_store_for(credentials), session=call.new_session())
    return _learned.setdefault((request.base_url, request.app_key, request.app_secret), made)


def credentials_of(request: KisRequest, source: LiveSource | None) -> Credentials | None:
    """Return the credentials of a request's account, whose pace it shares; None where nobody can tell."""
    found = getattr(source, "credentials", None)
    if isinstance(found, Credentials):
        return found
    try:
        return Credentials(request.app_key or "", request.app_secret or "", base_url=request.base_url)
    except ConfigurationError:  # it names none, or no key of KIS looks like that
        return None


def _store_for(credentials: Credentials) -> TokenStore:
    """Return the environment's store; one that a `.env` names serves only the account whose key stands in that file."""
    environment = Environment()
    named = environment.find("KIS_TOKEN_STORE")
    if named is not None and named.origin == ".env":
        key = environment.find("KIS_APP_KEY", "KOREA_INVESTMENT_API_KEY")
        if key is None or key.text != credentials.app_key:
            return FileTokenStore()
    return store_from_env()


def token_flow(call: LibraryCall, source: LiveSource | None) -> Flow[Sent]:
    """
    Answer a token request; one that is of no known account, or revokes a token, goes to KIS.

    The token is never one that was refused or is about to expire.
    """
    if source is not None and call.answers_tokens and call.request.revoked is None:
        future = source.renewed_future()
        yield Wait(future)
        return _said(call, future)
    sent: Sent = yield Send()
    if source is not None and sent.status == 200:  # as KIS answers
        if call.request.revoked:
            source.note_refused(call.request.revoked)
        with suppress(TypeError, ValueError, TokenIssueError):  # a token revoked, a refusal, or another's answer
            source.adopt(read_answer(200, json.loads(sent.body), datetime.now(timezone.utc)))
    return sent


def _said(call: LibraryCall, future: Future[AccessToken]) -> Sent:
    words: dict[str, object]
    failure = future.exception()
    code = getattr(failure, "code", None)
    if failure is None:
        token = future.result()
        stamp = f"{token.expires_at.astimezone(SEOUL):%Y-%m-%d %H:%M:%S}"
        left = max(0, int(token.expires - time.time()))
        words = {"access_token": token.value, "access_token_token_expired": stamp, "token_type": "Bearer"}
        status, words = 200, {**words, "expires_in": left}
    elif code is not None:
        status, words = 403, {"error_code": code, "error_description": _SAYINGS.get(code, str(failure))}
    else:  # nobody could be reached
        error = call.lost(str(failure) if isinstance(failure, TokenIssueError) else "no token could be had")
        return Sent(Verdict(Meaning.NEVER_LEFT, error=type(error).__name__), error=error)
    return call.answer(status, json.dumps(words, ensure_ascii=False).encode())
