"""
What happened to a token, said once to everybody who listens: `RefreshEvent`, `on_event`, and the standard logger.

Only the fields below ever leave: no arguments, no headers, no bodies, and tokens as fingerprints.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Literal, get_args

__all__ = ["EVENT_NAMES", "EventName", "RefreshEvent", "emit", "level_of", "on_event", "warn"]

EventName = Literal[
    "token_expired",
    "token_refreshed",
    "token_adopted",
    "token_refresh_failed",
    "token_issue_waiting",
    "call_retried",
    "call_recovered",
    "call_given_up",
    "order_held_back",
    "rate_lowered",
    "rate_raised",
]
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName)

_LEVELS = {
    "token_refresh_failed": logging.ERROR,
    "token_issue_waiting": logging.WARNING,
    "call_given_up": logging.WARNING,
    "order_held_back": logging.WARNING,
    "rate_lowered": logging.WARNING,
}
_MESSAGES = {name: f"kis_retry.{name}" for name in EVENT_NAMES}
_logger = logging.getLogger("kis_retry")


@dataclass(frozen=True, kw_only=True)
class RefreshEvent:
    """
    One step in the life of a token, of a call that did not go well at once, or of the pace.

    Attributes:
        name: one of `EVENT_NAMES`; constant, in the past tense.
        callable: the qualified name of the decorated function; None where a token was renewed outside one.
        request: the request that this is about, "GET /uapi/…", without its query; None where none was seen.
        attempt: how often that request was sent, or the function called, from 1.
        msg_cd: KIS's code ("EGW00123"), of the answer or of a refused token request.
        token: fingerprint of the token that the event is about.
        previous_token: fingerprint of the one before it. The same as `token` where KIS handed the same one out again,
            as it does within six hours of an issue.
        expires_at: when `token` expires.
        source: where `token` came from: "issued" by KIS, "memory" of this process, a shared "store".
        elapsed: seconds this step took.
        wait: seconds that will be waited at most, for `token_issue_waiting` and `call_retried`.
        error: the type name of what went wrong, without its text.
        rate: calls a second that the pace allows from now on, for `rate_lowered` and `rate_raised`.
    """

    name: EventName
    callable: str | None = None
    request: str | None = None
    attempt: int | None = None
    msg_cd: str | None = None
    token: str | None = None
    previous_token: str | None = None
    expires_at: datetime | None = None
    source: Literal["issued", "memory", "store"] | None = None
    elapsed: float | None = None
    wait: float | None = None
    error: str | None = None
    rate: float | None = None


Hook = Callable[[RefreshEvent], object]

_FIELDS = tuple(spec.name for spec in fields(RefreshEvent))
_hooks: dict[object, Hook] = {}  # by an object for each subscription; a lock could be held at a fork


def on_event(hook: Hook) -> Callable[[], None]:
    """
    Have `hook` called with every `RefreshEvent` of this process, in the thread where it happens.

    A hook must be quick, and must not call KIS: it may run on the event loop or while others wait for a token. One
    that raises is logged and harms nothing.

    Returns:
        A function that unsubscribes; calling it twice is calling it once.
    """
    if not callable(hook):
        raise TypeError(f"on_event takes a function of one RefreshEvent, not {type(hook).__name__}")
    subscription = object()  # one hook may be subscribed twice
    _hooks[subscription] = hook

    def unsubscribe() -> None:
        _hooks.pop(subscription, None)

    return unsubscribe


def emit(event: RefreshEvent) -> None:
    """Log the event, then hand it to every hook."""
    _log(event)
    for hook in list(_hooks.values()):
        try:
            hook(event)
        except Exception as error:  # somebody else's code; its text may hold anything, so only its type is logged
            name = getattr(hook, "__qualname__", type(hook).__qualname__)
            warn("hook_failed", hook=name, event=event.name, error=type(error).__name__)


def level_of(event: RefreshEvent) -> int:
    """How loud an event is, as a level of `logging`: a renewal that failed ahead of the expiry is only a warning."""
    level = _LEVELS.get(event.name, logging.INFO)
    if event.expires_at is not None and event.expires_at > datetime.now(timezone.utc):
        level = min(level, logging.WARNING)
    return level


def warn(name: str, /, **found: object) -> None:
    """
    Log a warning that is no event, in the shape of one: `kis_retry.<name>` and its fields, which are in `extra` too.

    Only what may be logged may be given: no tokens, no text of somebody else's error.
    """
    extra = {"kis_name": name, **{f"kis_{key}": value for key, value in found.items()}}
    _logger.warning(_message(f"kis_retry.{name}", found), extra=extra)


def _log(event: RefreshEvent) -> None:
    level = level_of(event)
    if _logger.isEnabledFor(level):
        found = {name: getattr(event, name) for name in _FIELDS}
        extra = {f"kis_{name}": value for name, value in found.items()}
        del found["name"]
        _logger.log(level, _message(_MESSAGES[event.name], found), extra=extra)


def _message(name: str, found: dict[str, object]) -> str:
    """A constant name, then ` key=value` for each field that is set, so that plain logging tells the story."""
    return name + "".join(f" {key}={_text(value)}" for key, value in found.items() if value is not None)


def _text(value: object) -> str:
    """A value as one word; one with spaces in it is quoted, so that a line is one line and can be taken apart."""
    if isinstance(value, float):
        return str(round(value, 3))
    text = value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
    plain = text.isprintable()
    return text if plain and text and not {" ", '"'} & set(text) else json.dumps(text, ensure_ascii=not plain)
