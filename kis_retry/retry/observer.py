"""
What is seen of a call on the wire: each request before it leaves, and what became of it.

For every library alike; `patches` has where each of them sends. Outside of a decorated call none of this runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from ..answers import code_of
from ..context import Sighting
from ..answers import is_token_expired_response, is_transient_error, is_transient_response
from ..answers import LIMIT_CODE
from .call import ProtectedCall
from .wire import is_api, is_token_request, put_token, sighting_of

__all__ = ["answered", "failed", "is_to_be_read", "pace", "pace_async", "sent", "unread"]

# KIS's success, and its "no such data", which is an answer too (API pages; read without parsing the whole body).
_ANSWERED = re.compile(rb'"rt_cd"\s*:\s*"?[07]"?\s*[,}]')


# A type that is missing counts too; `text/event-stream` and JSON line by line go on and on.
_TEXT = re.compile(r"\s*(application/([\w.-]+\+)?json|text/(?!event-stream)[\w.+-]*)?\s*(;|$)")


def pace(call: ProtectedCall, method: object, url: object) -> None:
    """Wait for the slot of a request that is about to leave, where the call has a limiter."""
    if is_api(sighting_of(method, url, None), call):
        call.take_slot()


async def pace_async(call: ProtectedCall, method: object, url: object) -> None:
    """`pace`, without stopping the event loop."""
    if is_api(sighting_of(method, url, None), call):
        await call.take_slot_async()


def sent(call: ProtectedCall, sighting: Sighting, headers: MutableMapping[Any, Any]) -> Sighting:
    """Note a request that is about to leave, and have it leave with a token that is not known to be dead."""
    if not is_api(sighting, call):
        return sighting
    if sighting.token is not None:
        successor = call.successor_for(sighting)
        if successor is not None:
            put_token(headers, successor)
            sighting.token = successor.value
    call.observe_sent(sighting)
    return sighting


def answered(call: ProtectedCall, sighting: Sighting, response: Any, body: bytes) -> None:
    """Note the answer to a request, its body read."""
    if is_token_request(sighting):
        return
    if not is_api(sighting, call):
        if b'"rt_cd"' not in body:
            return  # somebody else's answer
        call.observe_sent(sighting)  # a proxy of KIS that nobody knew of
    sighting.response = response
    if _ANSWERED.search(body):
        call.observe_answered(sighting)
        call.report("answered")
        return
    code = code_of(response)
    expired = is_token_expired_response(response, call.expired_codes)
    call.observe_failed(sighting, not_acted_upon=expired or code == LIMIT_CODE, for_its_token=expired)
    away = code is None and is_transient_response(response)
    call.report("refused" if code == LIMIT_CODE else "failed" if away else "answered")


def is_to_be_read(call: ProtectedCall, sighting: Sighting, headers: Mapping[str, str]) -> bool:
    """
    Whether the body of an answer that has not been read is KIS's, and may be: it stays to be read again.

    Of KIS's API that is any text, whatever a proxy made of its type; of another host it is JSON of a known length,
    which KIS's answer through a proxy that nobody knows is too. All else may be a stream without an end.
    """
    kind = str(headers.get("content-type", "")).lower()
    if is_api(sighting, call):
        return _TEXT.match(kind) is not None
    return "/json" in kind and str(headers.get("content-length", "")).isdecimal() and not is_token_request(sighting)


def unread(call: ProtectedCall, sighting: Sighting) -> None:
    """Note an answer whose body is streamed: reading it would consume it, so nobody knows what it says."""
    if is_api(sighting, call):
        call.observe_answered(sighting)


def failed(call: ProtectedCall, sighting: Sighting, error: Exception) -> None:
    """Note a request to which no answer came."""
    if is_api(sighting, call):
        sighting.error = error
        call.observe_failed(sighting, not_acted_upon=False)
        if is_transient_error(error):
            call.report("failed")
