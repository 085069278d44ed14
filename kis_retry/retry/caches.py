"""
A cache of `requests_cache` keeps no failure of KIS: a refusal out of it would be repeated for as long as it is kept.

A cached answer never reaches the wire, where calls are observed, and KIS refuses with HTTP 200 too.
"""

from __future__ import annotations

import functools
from typing import Any

from ..answers import is_token_expired_response, is_transient_response
from .call import call_under_way

__all__ = ["without_failures"]


def without_failures(send: Any) -> Any:
    """`send` of a caching session: inside a decorated call, a failure is taken out of the cache, and asked for anew."""

    @functools.wraps(send)
    def sending(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        call = call_under_way()
        response = send(self, request, *args, **options)
        if call is None or not _is_failure(response, call.expired_codes):
            return response
        _forget(self, response)
        if not getattr(response, "from_cache", False):
            return response
        response = send(self, request, *args, **options)
        if _is_failure(response, call.expired_codes):
            _forget(self, response)
        return response

    return sending


def _is_failure(response: Any, expired_codes: tuple[str, ...]) -> bool:
    return is_token_expired_response(response, expired_codes) or is_transient_response(response)


def _forget(session: Any, response: Any) -> None:
    key = getattr(response, "cache_key", None)
    if key is not None:  # else it was not kept
        session.cache.delete(key)
