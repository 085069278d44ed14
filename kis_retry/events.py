"""
Tell everybody who listens what happened to a token: `RefreshEvent`, `on_event`, and the standard logger.

Only the fields below ever leave: no arguments, no headers, no bodies, and tokens as fingerprints.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from functools import partial
from typing import Literal, get_args

from .signals import code_of, is_from_signal_handler

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
_failures_told: set[tuple[str | None, str]] = set()  # a hook, None for the log, and what it raised


def on_event(hook: Hook) -> Callable[[], None]:
    """
    Have `hook` called with every `RefreshEvent` of this process, in the thread where it happens.

    A hook must be quick, and must not call KIS: it may run on the event loop or while others wait for a token. One
    that raises is logged and harms nothing. One that is subscribed already is not added again, and takes its own older
    version's place where its module was run again (Streamlit, `%autoreload`).

    Returns:
        A function that unsubscribes; calling it twice is calling it once.
    """
    if not callable(hook):
        raise TypeError(f"on_event takes a function of one RefreshEvent, not {type(hook).__name__}")
    for subscription, known in list(_hooks.items()):
        if known is hook or (type(known) is type(hook) and known == hook):
            return partial(_unsubscribe, subscription)
        if _is_older_version(known, hook):
            _hooks.pop(subscription, None)
    subscription = object()
    _hooks[subscription] = hook
    return partial(_unsubscribe, subscription)


def _unsubscribe(subscription: object) -> None:
    _hooks.pop(subscription, None)


def emit(event: RefreshEvent, level: int | None = None) -> None:
    """
    Log the event, then hand it to every hook. Whatever they raise stays here, but for what a signal raised.

    Args:
        event: what happened. A call that was given up says why: without a code and an error, "HTTPError" is put in,
            which is what `raise_for_status` would have made of the answer.
        level: how loud, instead of what the name says: `logging.DEBUG` for those who joined another's refresh.
    """
    if event.name == "call_given_up" and event.msg_cd is None and event.error is None:
        event = replace(event, error="HTTPError")
    if level is not None:
        object.__setattr__(event, "_level", level)  # no field: it says nothing of what happened
    _guarded(partial(_log, event))
    for hook in list(_hooks.values()):
        _guarded(partial(hook, event), _name_of(hook)[1])


def level_of(event: RefreshEvent) -> int:
    """Return how loud an event is, as a level of `logging`: a renewal that failed early is only a warning."""
    given: int | None = getattr(event, "_level", None)
    if given is not None:
        return given
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
    _guarded(lambda: _logger.warning(_message(f"kis_retry.{name}", found), extra=extra))


def _guarded(call: Callable[[], object], hook: str | None = None) -> None:
    """Run somebody else's code, a hook or the log, and tell once of each type that it raises."""
    try:
        call()
    except BaseException as error:  # a hook's `sys.exit()` ends no refresh, and a log handler stops no pace
        if _is_of_signal(error):
            raise
        kind = type(error).__name__  # its text may hold anything
        if (hook, kind) in _failures_told:
            return
        _failures_told.add((hook, kind))
        if hook is not None:
            warn("hook_failed", hook=hook, error=kind)
        else:  # as `logging` itself does it; a handler that failed would fail again
            with suppress(Exception):
                print(f"kis_retry.log_failed error={kind}", file=sys.stderr)  # noqa: T201  # there is no log


def _is_of_signal(error: BaseException) -> bool:
    """Say whether a signal raised this (Ctrl-C, a handler of the program), and not the code that it came in on."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return isinstance(error, KeyboardInterrupt) or is_from_signal_handler(error)


def _is_older_version(known: Hook, hook: Hook) -> bool:
    """Say whether both are one function of one module that was run twice; closures of one run share their code."""
    old, new = code_of(known), code_of(hook)
    if old is None or new is None or old is new or _name_of(known) != _name_of(hook):
        return False
    return bool(_name_of(hook)[1] != "<lambda>" or old == new)  # several lambdas have one name


def _name_of(hook: Hook) -> tuple[str, str]:
    return hook.__module__, getattr(hook, "__qualname__", type(hook).__qualname__)


def _log(event: RefreshEvent) -> None:
    level = level_of(event)
    if _logger.isEnabledFor(level):
        found = {name: getattr(event, name) for name in _FIELDS}
        extra = {f"kis_{name}": value for name, value in found.items()}
        del found["name"]
        _logger.log(level, _message(_MESSAGES[event.name], found), extra=extra)


def _message(name: str, found: dict[str, object]) -> str:
    """Return the name, then ` key=value` for each field that is set, so that plain logging tells the story."""
    return name + "".join(f" {key}={_text(value)}" for key, value in found.items() if value is not None)


def _text(value: object) -> str:
    """Return a value as one word, in quotes if there are spaces in it, so that a line is one and can be taken apart."""
    if isinstance(value, float):
        return str(round(value, 3))
    text = value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
    plain = text.isprintable()
    return text if plain and text and not {" ", '"'} & set(text) else json.dumps(text, ensure_ascii=not plain)
