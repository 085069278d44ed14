"""
A library that refreshes by itself inside a decorated call joins the one refresh, on the wire.

It repeats a read with the token that was refused: the repeat leaves with a fresh one. It asks KIS for a token: the
token source answers in KIS's place, so that sixteen threads of it are not a herd at the token endpoint. Only for a
source whose account is known, and only for that account.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from ..context import Sighting
from ..signals import is_from_signal_handler
from ..token import AccessToken
from ..tokens.issuer import SEOUL
from ..tokens.source import Replacement
from .accounts import identity_of, is_of
from .wire import is_token_request

if TYPE_CHECKING:
    from .call import ProtectedCall
    from .token_expired import TokenExpired

__all__ = ["Answer", "answer_to", "answer_to_async", "renew", "renew_async"]


class Answer(NamedTuple):
    """What KIS would have answered to a token request."""

    status: int
    body: bytes


class _Wanted(NamedTuple):
    """A token that a library wants: in place of `rejected`, or the current one where that is None."""

    cause: TokenExpired
    rejected: str | None

    def had(self, replacement: Replacement, began: float) -> AccessToken:
        if self.rejected is not None:
            self.cause.renewed(replacement, self.rejected, began)
        return replacement.token

    def failed(self, error: Exception, began: float) -> None:
        """Let it go on without: KIS's own answer is the better one, and what a refresh failed for is told."""
        if is_from_signal_handler(error):
            raise error
        if self.cause.was_refused():  # else KIS will refuse first, and what comes of that is told
            self.cause.emit_refresh_failed(error, began)
            self.cause.replaced_with = self.rejected

    def get(self) -> AccessToken | Exception:
        began, source = time.monotonic(), self.cause.source
        try:
            found = Replacement(source.token(), "memory") if self.rejected is None else source.replace(self.rejected)
        except Exception as error:  # of any source
            self.failed(error, began)
            return error
        return self.had(found, began)

    async def get_async(self) -> AccessToken | Exception:
        from . import worker  # late: only coroutine functions need asyncio

        began, source = time.monotonic(), self.cause.source
        try:
            if self.rejected is None:
                found = Replacement(await worker.token(source), "memory")
            else:
                found = await worker.replace(source, self.rejected)
        except Exception as error:  # as above
            self.failed(error, began)
            return error
        return self.had(found, began)


def renew(call: ProtectedCall, sighting: Sighting) -> None:
    """See to it that there is another token for a request that is about to leave with one that is known to be dead."""
    wanted = _wanted_for_request(call, sighting)
    if wanted is not None:
        wanted.get()


async def renew_async(call: ProtectedCall, sighting: Sighting) -> None:
    """`renew`, without stopping the event loop."""
    wanted = _wanted_for_request(call, sighting)
    if wanted is not None:
        await wanted.get_async()


def answer_to(call: ProtectedCall, sighting: Sighting, body: Any) -> Answer | None:
    """The answer to a library's own token request; None where KIS has to be asked."""
    wanted = _wanted_by_token_request(call, sighting, body)
    return _answer(wanted.get()) if wanted is not None else None


async def answer_to_async(call: ProtectedCall, sighting: Sighting, body: Any) -> Answer | None:
    """`answer_to`, without stopping the event loop."""
    wanted = _wanted_by_token_request(call, sighting, body)
    return _answer(await wanted.get_async()) if wanted is not None else None


def _wanted_for_request(call: ProtectedCall, sighting: Sighting) -> _Wanted | None:
    for cause in call.token_causes():
        if cause.holds_back(sighting):
            return None
        dead = cause.dead_with(sighting)
        if dead is not None:
            return _Wanted(cause, dead) if cause.may_renew() else None
    return None


def _wanted_by_token_request(call: ProtectedCall, sighting: Sighting, body: Any) -> _Wanted | None:
    if sighting.method != "POST" or not is_token_request(sighting) or not sighting.path.endswith("/tokenP"):
        return None
    asked = _keys(body)
    owners = [cause for cause in call.token_causes() if _is_asked_by(cause, sighting, asked)]
    refused = [cause for cause in owners if cause.was_refused()]
    for cause in refused or owners[:1]:
        if cause.may_renew():
            return _Wanted(cause, cause.rejected() if refused else None)
    return None


def _is_asked_by(cause: TokenExpired, sighting: Sighting, asked: Mapping[str, Any]) -> bool:
    """Whether a token request is for the account of a source, and by somebody who has its secret."""
    identity = identity_of(cause.source)
    secret = getattr(getattr(cause.source, "credentials", None), "app_secret", None)
    if identity is None or secret is None or asked.get("appsecret") != secret or asked.get("appkey") != identity[1]:
        return False
    asking = Sighting(sighting.method, sighting.host, sighting.path, identity[1], None)
    return is_of(asking, *identity)


def _keys(body: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _answer(found: AccessToken | Exception) -> Answer | None:
    if isinstance(found, AccessToken):
        now = datetime.fromtimestamp(time.time(), timezone.utc)
        return _as_json(
            200,
            {
                "access_token": found.value,
                "access_token_token_expired": found.expires_at.astimezone(SEOUL).strftime("%Y-%m-%d %H:%M:%S"),
                "token_type": "Bearer",
                "expires_in": max(0, int((found.expires_at - now).total_seconds())),
            },
        )
    code = getattr(found, "code", None)
    if code is None:
        return None  # nobody has answered: the library finds out by itself
    return _as_json(403, {"error_code": code, "error_description": str(found)})


def _as_json(status: int, body: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(body, ensure_ascii=False).encode())
