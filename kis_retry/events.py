"""Tell everybody who listens what happened, without arguments, headers, bodies and tokens: events, and warnings."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from functools import cache, partial
from typing import Literal, get_args

from .context import code_of, is_from_signal_handler

__all__ = ["EVENT_NAMES", "EventName", "RefreshEvent", "emit", "level_of", "on_event", "warn", "warn_once"]

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

_LEVELS = dict.fromkeys(("token_issue_waiting", "call_given_up", "order_held_back", "rate_lowered"), logging.WARNING)
_LEVELS["token_refresh_failed"] = logging.ERROR
_logger = logging.getLogger("kis_retry")


@dataclass(frozen=True, kw_only=True)
class RefreshEvent:
    """
    One step in the life of a token, of a call that did not go well at once, or of the pace.

    Attributes:
        name: one of `EVENT_NAMES`; constant, in the past tense.
        callable: the qualified name of the decorated function; None where a token was renewed outside one.
        request: the request, "GET /uapi/…", without its query; None where none was seen.
        attempt: how often that request was sent, or the function called, from 1.
        msg_cd: KIS's code ("EGW00123"), of the answer or of a refused token request.
        token: fingerprint of the token that the event is about.
        previous_token: fingerprint of the one before; the same where KIS handed out the same again (within six hours).
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

_hooks: dict[object, Hook] = {}  # by an object for each subscription; a lock could be held at a fork


def on_event(hook: Hook) -> Callable[[], None]:
    """
    Have `hook` called with every `RefreshEvent` of this process, in the thread where it happens.

    A hook must be quick, and must not call KIS: it may run on the event loop or while others wait for a token. One
    that raises is logged and harms nothing. One that is subscribed already is not added again, and takes its own older
    version's place where its module was run again (Streamlit, `%autoreload`). What is given back unsubscribes.
    """
    if not callable(hook):
        raise TypeError(f"on_event takes a function of one RefreshEvent, not {type(hook).__name__}")
    mine = object()
    for subscription, known in list(_hooks.items()):
        if known is hook or (type(known) is type(hook) and known == hook) or _is_older_version(known, hook):
            mine = subscription
    _hooks[mine] = hook

    def unsubscribe() -> None:
        _hooks.pop(mine, None)

    return unsubscribe


def emit(event: RefreshEvent, *, quiet: bool = False) -> None:
    """
    Log the event, then hand it to every hook. Whatever they raise stays here, but for what a signal raised.

    `quiet` is for those who joined another's refresh: the level is DEBUG then, whatever the name.
    """
    if quiet:
        object.__setattr__(event, "_level", logging.DEBUG)  # no field: it says nothing of what happened
    found = {spec.name: getattr(event, spec.name) for spec in fields(event) if spec.name != "name"}
    _guarded(lambda: _log(level_of(event), event.name, found))
    for hook in list(_hooks.values()):
        _guarded(partial(hook, event), _name_of(hook)[1])


def level_of(event: RefreshEvent) -> int:
    """Return how loud an event is, as a level of `logging`: a renewal that failed early is only a warning."""
    level = _LEVELS.get(event.name, logging.INFO)
    if event.expires_at is not None and event.expires_at > datetime.now(timezone.utc):
        level = min(level, logging.WARNING)
    return getattr(event, "_level", level)


def warn(name: str, /, **found: object) -> None:
    """Log a warning that is no event, in the shape of one: no token may be given, and no text of others' errors."""
    _guarded(lambda: _log(logging.WARNING, name, found))


warn_once = cache(warn)  # and not of the same again


def _guarded(call: Callable[[], object], hook: str | None = None) -> None:
    """Run somebody else's code, a hook or the log, and tell once of each type that it raises."""
    try:
        call()
    except BaseException as error:  # a hook's `sys.exit()` ends no refresh, and a log handler stops no pace
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and (isinstance(error, KeyboardInterrupt) or is_from_signal_handler(error)):
            raise  # a signal raised it, and not the code that it came in on
        kind = type(error).__name__  # its text may hold anything
        if hook is not None:
            warn_once("hook_failed", hook=hook, error=kind)
        else:
            _say_log_failed(kind)


@cache
def _say_log_failed(kind: str) -> None:
    with suppress(Exception):  # as `logging` itself does it: a handler that failed would fail again
        print(f"kis_retry.log_failed error={kind}", file=sys.stderr)  # noqa: T201  # there is no log


def _is_older_version(known: Hook, hook: Hook) -> bool:
    """Say whether both are one function of one module that was run twice; closures of one run share their code."""
    old, new = code_of(known), code_of(hook)
    if None in (old, new) or old is new or _name_of(known) != _name_of(hook):
        return False
    return "<lambda>" not in _name_of(hook)[1] or bool(old == new)  # several lambdas have one name


def _name_of(hook: Hook) -> tuple[str, str]:
    return hook.__module__, getattr(hook, "__qualname__", type(hook).__qualname__)


def _log(level: int, name: str, found: dict[str, object]) -> None:
    """Log the name, then ` key=value` for each field that is set, so that plain logging tells the story."""
    told = [f" {key}={_text(value)}" for key, value in found.items() if value is not None]
    extra = {"kis_name": name, **{f"kis_{key}": value for key, value in found.items()}}
    _logger.log(level, "".join([f"kis_retry.{name}", *told]), extra=extra)


def _text(value: object) -> str:
    """Return a value as one word, in quotes if there are spaces in it, so that a line can be taken apart."""
    value = round(value, 3) if isinstance(value, float) else value
    text = value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
    plain = text.isprintable()
    return text if plain and text and not {" ", '"'} & set(text) else json.dumps(text, ensure_ascii=not plain)
