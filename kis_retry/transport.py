"""
Hearing the answers that a library receives and swallows, in `requests` and in `httpx`.

`Session.send` (and `Client.send`) notes each API answer with the protected call under way in this context. Outside of
one that wants to know, it does nothing. Answers of `/oauth2/` are not API answers; nor are bodies that are streamed,
since hearing them would consume them.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import requests

from .expiry import is_token_expired_response, might_be_expired
from .scope import CURRENT
from .tokens.token import bare

__all__ = ["hear", "is_refusal", "look_for_httpx", "token_of", "unwatch", "watch"]

_installing = threading.Lock()  # guards _watchers and the patches
_watchers = 0
_patched: dict[tuple[Any, str], tuple[Any, Any]] = {}


def watch() -> None:
    """Begin to hear; each `watch` is ended by an `unwatch`."""
    global _watchers
    with _installing:
        _watchers += 1
        _patch(requests.Session, "send", _heard)
    look_for_httpx()


def unwatch() -> None:
    """With the last one, `requests` and `httpx` are as they were."""
    global _watchers
    with _installing:
        _watchers -= 1
        if _watchers == 0:
            for (owner, name), (original, ours) in list(_patched.items()):
                if vars(owner).get(name) is ours:  # else somebody wrapped it since: ours stays inside, and is inert
                    setattr(owner, name, original)
                    del _patched[(owner, name)]


def look_for_httpx() -> None:
    """Hear `httpx` too, once the program has imported it; importing it here would cost those who do not use it."""
    httpx = sys.modules.get("httpx")
    if httpx is None or not hasattr(httpx, "AsyncClient") or (httpx.Client, "send") in _patched:
        return
    with _installing:
        if _watchers:
            _patch(httpx.Client, "send", _heard)
            _patch(httpx.AsyncClient, "send", _heard_async)


def hear(answer: Any) -> None:
    """Note an API answer with the call under way, if that wants to know."""
    scope = CURRENT.get()
    if scope is not None and scope.watching and _is_api_answer(answer):
        scope.hear(answer)


def is_refusal(answer: Any, codes: Collection[str]) -> bool:
    """Whether an answer that was heard says that the token is dead."""
    return answer is not None and might_be_expired(answer.content, codes) and is_token_expired_response(answer, codes)


def token_of(answer: Any) -> str | None:
    """The bare token with which the refused request was sent."""
    value = answer.request.headers.get("authorization")
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return (bare(value) or None) if isinstance(value, str) else None


def _is_api_answer(answer: Any) -> bool:
    """KIS's API lives under /uapi/; elsewhere (a proxy, a stand-in) its answers are known by their `rt_cd`."""
    path = urlsplit(str(getattr(answer, "url", ""))).path
    body = getattr(answer, "content", None)
    if "/oauth2/" in path or not isinstance(body, bytes):
        return False
    return "/uapi/" in path or b'"rt_cd"' in body


def _patch(owner: Any, name: str, wrap: Any) -> None:
    if (owner, name) not in _patched:
        original = vars(owner)[name]
        ours = wrap(original)
        _patched[(owner, name)] = original, ours
        setattr(owner, name, ours)


def _heard(send: Any) -> Any:
    @functools.wraps(send)
    def hearing(self: Any, request: Any, **options: Any) -> Any:
        answer = send(self, request, **options)
        if not options.get("stream"):
            hear(answer)
        return answer

    return hearing


def _heard_async(send: Any) -> Any:
    @functools.wraps(send)
    async def hearing(self: Any, request: Any, **options: Any) -> Any:
        answer = await send(self, request, **options)
        if not options.get("stream"):
            hear(answer)
        return answer

    return hearing
