"""`kis-retry token`: the state of the shared token, and renewing or revoking it."""

from __future__ import annotations

from argparse import Namespace
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any

from ..errors import KisRetryError
from ..events import RefreshEvent, on_event
from ..stores.base import MemoryTokenStore, key_of
from ..token import SEOUL, AccessToken
from ..tokens.manager import TokenManager
from . import echo_error, echo_json, echo_table


def token(arguments: Namespace) -> int:
    """Renew or revoke the token where that is asked for, and show the one that is shared then."""
    manager, done = TokenManager.from_env(), None
    found = _load(manager)  # first: a token that nobody could keep is not issued
    if arguments.refresh:
        done = _refresh(manager, found)
    elif arguments.revoke:
        done = "revoked" if manager.revoke() else "there was no token to revoke"
    if isinstance(manager.store, MemoryTokenStore):
        echo_error("KIS_TOKEN_STORE=memory: each process has a token of its own, and this one ends now")
    state = {"done": done, **_state(manager, _load(manager))}
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
        raise KisRetryError(f"{manager.store!r} cannot be read ({type(error).__name__})") from None


def _refresh(manager: TokenManager, current: AccessToken | None) -> str:
    with ExitStack() as stack:
        stack.callback(on_event(_say_waiting))
        new = manager.refresh(current)
    if _load(manager) != new:
        raise KisRetryError(f"KIS issued token {new.fingerprint}, but {manager.store!r} does not keep it")
    if current is not None and current.value == new.value:
        return "KIS handed the same token out again, as it does within six hours of an issue"
    return "renewed" if current else "issued"


def _say_waiting(event: RefreshEvent) -> None:
    if event.name == "token_issue_waiting":
        reason = "KIS issues one token a minute" if event.msg_cd == "EGW00133" else "the token endpoint is away"
        echo_error(f"{reason}; waiting for up to {event.wait or 0:.0f} s")


def _state(manager: TokenManager, found: AccessToken | None) -> dict[str, Any]:
    if found is None:
        return {"state": "none", "store": repr(manager.store)}
    left = (found.expires_at - datetime.now(timezone.utc)).total_seconds()
    soon = "expiring soon" if left <= manager.policy.refresh_margin else "valid"
    return {
        "state": soon if left > 0 else "expired",
        "fingerprint": found.fingerprint,
        "expires_at": found.expires_at.astimezone(SEOUL).isoformat(" ", "seconds"),
        "remaining_seconds": max(int(left), 0),
        "store": repr(manager.store),
    }
