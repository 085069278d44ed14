"""`kis-retry token`: the state of the shared token, and renewing or revoking it."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime, timedelta, timezone
from typing import Any

from .. import AccessToken, KisRetryError, MemoryTokenStore, RefreshEvent, TokenManager, on_event
from ..stores.base import key_of
from .output import echo_error, echo_json, echo_table

__all__ = ["token"]

_SEOUL = timezone(timedelta(hours=9))


def token(arguments: Namespace) -> int:
    """Renew or revoke the token where that is asked for, and show the one that is shared then."""
    manager = TokenManager.from_env()
    found = _load(manager)  # first: a token that nobody could keep is not issued
    done = _refresh(manager, found) if arguments.refresh else _revoke(manager) if arguments.revoke else None
    if isinstance(manager.store, MemoryTokenStore):
        echo_error("KIS_TOKEN_STORE=memory: each process has a token of its own, and this one ends now")
    state = _state(manager, _load(manager) if done else found, done)
    if arguments.json:
        echo_json(state)
    else:
        echo_table((name.replace("_", " "), str(value)) for name, value in state.items() if value is not None)
    return 0


def _load(manager: TokenManager) -> AccessToken | None:
    """Return what the store has, be it expired or not; here, unlike in a batch, a store that is away is an error."""
    try:
        return manager.store.load(key_of(manager.credentials))
    except Exception as error:  # of any engine; its text may hold an address with a password
        said = error.strerror if isinstance(error, OSError) else None
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise KisRetryError(f"{manager.store!r} cannot be read ({reason})") from None


def _refresh(manager: TokenManager, current: AccessToken | None) -> str:
    unsubscribe = on_event(_say_waiting)
    try:
        new = manager.refresh(current)
    finally:
        unsubscribe()
    if _load(manager) != new:
        raise KisRetryError(f"KIS issued token {new.fingerprint}, but {manager.store!r} does not keep it")
    if current is None:
        return "issued"
    same = "KIS handed the same token out again, as it does within six hours of an issue"
    return same if current.value == new.value else "renewed"


def _revoke(manager: TokenManager) -> str:
    if not manager.revoke():
        return "there was no token to revoke"
    if _load(manager) is not None:
        raise KisRetryError(f"the token is revoked, but {manager.store!r} still holds it")
    return "revoked"


def _say_waiting(event: RefreshEvent) -> None:
    if event.name == "token_issue_waiting":
        minute = event.msg_cd == "EGW00133"
        reason = "KIS issues one token a minute (EGW00133)" if minute else "the token endpoint is away"
        echo_error(f"{reason}; waiting for up to {event.wait or 0:.0f} s")


def _state(manager: TokenManager, found: AccessToken | None, done: str | None) -> dict[str, Any]:
    names = ("done", "state", "fingerprint", "expires_at", "expires_at_seoul", "remaining_seconds", "store")
    state: dict[str, Any] = {**dict.fromkeys(names), "done": done, "state": "none", "store": repr(manager.store)}
    if found is not None:
        left = (found.expires_at - datetime.now(timezone.utc)).total_seconds()
        soon = "expiring soon" if left <= manager.policy.refresh_margin else "valid"
        state["state"] = soon if left > 0 else "expired"
        state["fingerprint"] = found.fingerprint
        state["expires_at"] = found.expires_at.astimezone(timezone.utc).isoformat(" ", "seconds")
        state["expires_at_seoul"] = found.expires_at.astimezone(_SEOUL).isoformat(" ", "seconds")
        state["remaining_seconds"] = max(int(left), 0)
    return state
