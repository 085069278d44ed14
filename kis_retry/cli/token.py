"""`kis-retry token`: the state of the shared token, and renewing or revoking it."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from ..errors import KisRetryError
from ..events import RefreshEvent, on_event
from ..answers import ONCE_A_MINUTE
from ..stores.base import key_of
from ..stores.documents import documents_of
from ..stores.memory import MemoryTokenStore
from ..token import AccessToken
from ..tokens.issuer import SEOUL
from ..tokens.manager import TokenManager
from .output import echo_error, echo_json, echo_table

__all__ = ["token"]

Action = Literal["refresh", "revoke"]

_PROBE = "probe"  # a kind of document that nobody reads
_PROBE_TTL = 60.0  # seconds


def token(action: Action | None, *, as_json: bool) -> int:
    """
    Do `action`, if there is one, and show the token that is shared then.

    Without an action nothing is asked of KIS and nothing is issued.

    Raises:
        ConfigurationError: no credentials, or an unusable variable.
        KisRetryError: KIS refuses or cannot be reached, or the store cannot.
    """
    manager = TokenManager.from_env()
    found = _load(manager)  # first: a token that nobody could keep is not issued
    done = None
    if action == "refresh":
        _require_writable(manager)
        done = _refresh(manager, found)
    elif action == "revoke":
        done = _revoke(manager)
    if isinstance(manager.store, MemoryTokenStore):
        echo_error("KIS_TOKEN_STORE=memory: each process has a token of its own, and this one ends now")
    state = _state(manager, found if action is None else _load(manager), done)
    if as_json:
        echo_json(state)
    else:
        echo_table(_rows(state))
    return 0


def _load(manager: TokenManager) -> AccessToken | None:
    """What the store has, be it expired or not; unlike the manager's own look, a store that is away is an error."""
    try:
        return manager.store.load(key_of(manager.credentials))
    except Exception as error:  # of any engine; its text may hold an address with a password
        raise KisRetryError(f"{manager.store!r} cannot be read ({_reason(error)})") from None


def _require_writable(manager: TokenManager) -> None:
    """
    A store that can be read only would lose the token for which KIS is about to be asked.

    Raises:
        KisRetryError: nothing can be written there.
    """
    documents = documents_of(manager.store)
    if documents is None:
        return
    key = key_of(manager.credentials)
    try:
        documents.write(key, _PROBE, b"", _PROBE_TTL)
        documents.delete(key, _PROBE)
    except Exception as error:  # of any engine
        raise KisRetryError(
            f"{manager.store!r} cannot be written ({_reason(error)}), so KIS was not asked for a token"
        ) from None


def _refresh(manager: TokenManager, current: AccessToken | None) -> str:
    unsubscribe = on_event(_say_waiting)
    try:
        new = manager.refresh(current)
    finally:
        unsubscribe()
    if _load(manager) != new:
        _save_again(manager, new)
    if current is not None and current.value == new.value:
        return "KIS handed the same token out again, as it does within six hours of an issue"
    return "renewed" if current is not None else "issued"


def _save_again(manager: TokenManager, new: AccessToken) -> None:
    """The manager goes on with a token in memory where it cannot be saved; here that would lose it."""
    try:
        manager.store.save(key_of(manager.credentials), new)
    except Exception as error:  # of any engine
        raise KisRetryError(
            f"KIS issued token {new.fingerprint}, but {manager.store!r} cannot keep it ({_reason(error)})"
        ) from None


def _revoke(manager: TokenManager) -> str:
    if not manager.revoke():
        return "there was no token to revoke"
    if _load(manager) is not None:
        raise KisRetryError(f"the token is revoked, but {manager.store!r} still holds it")
    return "revoked"


def _say_waiting(event: RefreshEvent) -> None:
    if event.name == "token_issue_waiting":
        minute = event.msg_cd == ONCE_A_MINUTE
        reason = f"KIS issues one token a minute ({ONCE_A_MINUTE})" if minute else "the token endpoint is away"
        echo_error(f"{reason}; waiting for up to {event.elapsed or 0:.0f} s")


def _reason(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _state(manager: TokenManager, found: AccessToken | None, done: str | None) -> dict[str, Any]:
    now = time.time()
    document: dict[str, Any] = {
        "state": _word(found, now, manager.policy.refresh_margin),
        "fingerprint": None,
        "expires_at": None,
        "expires_at_seoul": None,
        "remaining_seconds": None,
        "store": repr(manager.store),
        "done": done,
    }
    if found is not None:
        document["fingerprint"] = found.fingerprint
        document["expires_at"] = found.expires_at.astimezone(timezone.utc).isoformat()
        document["expires_at_seoul"] = found.expires_at.astimezone(SEOUL).isoformat()
        document["remaining_seconds"] = max(int(found.expires - now), 0)
    return document


def _word(found: AccessToken | None, now: float, margin: float) -> str:
    if found is None:
        return "none"
    if now >= found.expires:
        return "expired"
    return "expiring soon" if now >= found.expires - margin else "valid"


def _rows(state: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("done", state["done"])] if state["done"] else []
    rows.append(("state", state["state"]))
    if state["fingerprint"] is not None:
        rows += [
            ("fingerprint", state["fingerprint"]),
            ("expires", f"{_clock(state['expires_at'])} UTC"),
            ("in Seoul", _clock(state["expires_at_seoul"])),
            ("remaining", str(timedelta(seconds=state["remaining_seconds"]))),
        ]
    return [*rows, ("store", state["store"])]


def _clock(stamp: str) -> str:
    return f"{datetime.fromisoformat(stamp):%Y-%m-%d %H:%M:%S}"
