"""
Hearing the answers that a library receives and swallows, in `requests` and in `httpx`.

`Session.send` (and `Client.send`) notes each API answer with the protected call under way in this context. Outside of
one that wants to know, it does nothing. Answers of `/oauth2/` are not API answers. Bodies that are streamed are left
alone, since hearing them would consume them: what KIS said last is unknown then, and so it is while something else
than a question is on its way, for the answer to an order may get lost.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import requests

from ..context import CURRENT, Scope
from ..judgement import is_token_expired_response
from ..token import bare

__all__ = ["hear", "is_refusal", "look_for_httpx", "token_of", "unwatch", "watch"]

_QUESTIONS = frozenset({"GET", "HEAD"})

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
    scope = _listener()
    if scope is not None and _is_api_answer(answer):
        scope.hear(answer)


def is_refusal(answer: Any, codes: Collection[str]) -> bool:
    """Whether an answer that was heard says that the token is dead."""
    return answer is not None and is_token_expired_response(answer, codes)


def token_of(answer: Any) -> str | None:
    """The bare token with which the refused request was sent; None where nobody can tell."""
    headers = getattr(getattr(answer, "request", None), "headers", None) or {}
    value = headers.get("authorization")
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return (bare(value) or None) if isinstance(value, str) else None


def _listener() -> Scope | None:
    scope = CURRENT.get()
    return scope if scope is not None and scope.watching else None


def _is_api_answer(answer: Any) -> bool:
    """KIS's API lives under /uapi/; elsewhere (a proxy, a stand-in) its answers are known by their `rt_cd`."""
    path = _path_of(answer)
    body = getattr(answer, "content", None)
    if "/oauth2/" in path or not isinstance(body, bytes):
        return False
    return "/uapi/" in path or b'"rt_cd"' in body


def _path_of(message: Any) -> str:
    return urlsplit(str(getattr(message, "url", ""))).path


def _before(request: Any) -> None:
    """What was heard is old news once an order goes out: were its answer lost, a repeat could trade twice."""
    scope = _listener()
    if scope is not None and request.method not in _QUESTIONS and "/uapi/" in _path_of(request):
        scope.hear(None)


def _after(answer: Any, *, streamed: bool) -> None:
    if not streamed:
        hear(answer)
        return
    scope = _listener()
    if scope is not None and "/uapi/" in _path_of(answer):
        scope.hear(None)


def _is_streamed(session: Any, options: dict[str, Any]) -> bool:
    """A `requests.Session` has a default of its own; on an `httpx.Client` that name is a method."""
    return bool(options.get("stream", getattr(session, "stream", None) is True))


def _patch(owner: Any, name: str, wrap: Any) -> None:
    """Once; but where somebody has put another one in the place of ours, again: hearing twice is hearing once."""
    original = vars(owner)[name]
    if (owner, name) not in _patched or original is not _patched[(owner, name)][1]:
        ours = wrap(original)
        _patched[(owner, name)] = original, ours
        setattr(owner, name, ours)


def _heard(send: Any) -> Any:
    @functools.wraps(send)
    def hearing(self: Any, request: Any, **options: Any) -> Any:
        _before(request)
        answer = send(self, request, **options)
        _after(answer, streamed=_is_streamed(self, options))
        return answer

    return hearing


def _heard_async(send: Any) -> Any:
    @functools.wraps(send)
    async def hearing(self: Any, request: Any, **options: Any) -> Any:
        _before(request)
        answer = await send(self, request, **options)
        _after(answer, streamed=_is_streamed(self, options))
        return answer

    return hearing
