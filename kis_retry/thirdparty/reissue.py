"""
A library that refreshes by itself joins the one refresh: its `issue_access_token` asks a `TokenSource`.

What is meant by the request depends on when it is asked, which `ReissueRequest` judges; two thin shells do the waiting.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

from ..context import Call, current_call
from ..events import RefreshEvent, emit
from ..policy import RetryPolicy
from ..retry.binding import in_form_of
from ..retry.call import ProtectedCall
from ..retry.token_expired import TokenExpired
from ..token import AccessToken, bare, fingerprint
from ..tokens.source import NonBlockingSource, Replacement

__all__ = ["ISSUE", "shared_reissue"]

ISSUE = "issue_access_token"

_Original = Callable[[Any], Callable[..., Any]]


def shared_reissue(target: Any, source: NonBlockingSource, policy: RetryPolicy | None) -> Any:
    """What `issue_access_token` of a class, an object or a module becomes; None where there is nothing to route."""
    found = inspect.getattr_static(target, ISSUE, None)
    function = getattr(found, "__func__", found)
    if not callable(function):
        return None
    shell = _async_shell if inspect.iscoroutinefunction(function) else _shell
    if not isinstance(target, type):
        original = getattr(target, ISSUE)
        routed = shell(source, policy, lambda _: original)
        return functools.update_wrapper(functools.partial(routed, target), original)
    if isinstance(found, staticmethod):  # it is not told for whom
        return None
    routed = shell(source, policy, lambda broker: functools.partial(function, broker))
    functools.update_wrapper(routed, function)
    return classmethod(routed) if isinstance(found, classmethod) else routed


def _shell(source: NonBlockingSource, policy: RetryPolicy | None, original: _Original) -> Callable[..., Any]:
    def issue_access_token(broker: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_off(source, policy):
            return original(broker)(*args, **kwargs)
        request = ReissueRequest(source, broker, args, kwargs)
        try:
            if request.refreshes:
                return request.replaced(source.replace(request.rejected))
            return request.found if request.is_idle else request.answered(source.token())
        except Exception as error:  # of any source; as in the decorator, KIS's own answer is the better one
            if not request.tolerates(error):
                raise
            return request.found

    return issue_access_token


def _async_shell(source: NonBlockingSource, policy: RetryPolicy | None, original: _Original) -> Callable[..., Any]:
    from ..retry import worker  # late: only coroutine functions need asyncio

    async def issue_access_token(broker: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_off(source, policy):
            return await original(broker)(*args, **kwargs)
        request = ReissueRequest(source, broker, args, kwargs)
        try:
            if request.refreshes:
                return request.replaced(await worker.replace(source, request.rejected))
            return request.found if request.is_idle else request.answered(await worker.token(source))
        except Exception as error:  # as above
            if not request.tolerates(error):
                raise
            return request.found

    return issue_access_token


def _is_off(source: NonBlockingSource, policy: RetryPolicy | None) -> bool:
    found = policy or getattr(source, "policy", None)
    return not (found if isinstance(found, RetryPolicy) else RetryPolicy.from_env()).enabled


class ReissueRequest:
    """
    A library asking for a token, and what it means by that.

    Inside a protected call that KIS refused, or where it insists (`force=True`), the library is refreshing: that is one
    replacement of the token with which it was refused or, where nobody heard that, with which the call started. Without
    either it makes sure of its token, and one that it fetched itself stays as it is until KIS refuses it. Outside of a
    call it gets what it would get of itself: the current token, or a new one where it insists.

    Attributes:
        found: what the library holds as its token.
        refreshes: it wants another token than `rejected`.
        rejected: the bare value; None where there is none yet.
        is_idle: it may go on with what it has.
    """

    def __init__(self, source: NonBlockingSource, broker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._began = time.monotonic()
        self._broker = broker
        self._under_way = current_call()
        self._call = _token_of(self._under_way)
        self.found = getattr(broker, "access_token", None)
        held = bare(self.found) if isinstance(self.found, str) else ""
        forced = bool(kwargs.get("force", args[0] if args else False))
        self.rejected: str | None = held or None
        if self._call is None:
            self.refreshes, self.is_idle = forced and bool(held), False
            return
        self.refreshes = forced or self._call.was_refused()
        self.rejected = self._call.rejected() or self.rejected
        self.is_idle = bool(held) and not source.issued(held)

    def replaced(self, replacement: Replacement) -> Any:
        """Put the other token where the library keeps it, and say so."""
        token, origin = replacement
        if self._call is not None:
            self._call.replaced_with = token.value
        event = RefreshEvent(
            name="token_refreshed" if origin == "issued" else "token_adopted",
            callable=self._under_way.name if self._under_way is not None else None,
            attempt=self._under_way.attempt if self._under_way is not None else None,
            token=token.fingerprint,
            previous_token=fingerprint(self.rejected) if self.rejected else None,
            expires_at=token.expires_at,
            source=origin,
            elapsed=time.monotonic() - self._began,
        )
        emit(event)
        return self.answered(token)

    def answered(self, token: AccessToken) -> Any:
        """Put the token where the library keeps it, in the form in which it keeps it."""
        self.found = self._broker.access_token = in_form_of(self.found, token)
        return self.found

    def tolerates(self, error: Exception) -> bool:
        """Whether the library can go on without: then it repeats with the dead token, and KIS answers the caller."""
        if self._call is None or not self.found:
            return False
        self._call.replaced_with = self.rejected
        self._call.emit_refresh_failed(error, self._began)
        return True


def _token_of(call: Call | None) -> TokenExpired | None:
    """What is known of the token of the call under way."""
    return call.token_expired if isinstance(call, ProtectedCall) else None
