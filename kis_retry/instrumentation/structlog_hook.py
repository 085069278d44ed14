"""`StructlogHook`: events as structlog's own, with the program's processors and in the program's format."""

from __future__ import annotations

import logging
from dataclasses import fields
from datetime import datetime
from typing import Any

from ..errors import ConfigurationError
from ..events import RefreshEvent, level_of

__all__ = ["StructlogHook"]

_FIELDS = tuple(spec.name for spec in fields(RefreshEvent) if spec.name != "name")
_METHODS = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


class StructlogHook:
    """
    Say every event to structlog, for `on_event(StructlogHook())`. Needs the extra `structlog`.

    The event is `kis_retry.<name>`, constant and in the past tense, at the level it has in the standard log; beside it
    stand the fields of `RefreshEvent` that have a value, `expires_at` as ISO 8601 text, `elapsed` in seconds and `rate`
    in calls a second. Tokens are fingerprints. The standard logger `kis_retry` goes on saying the same, and what is no
    event besides; a program whose structlog renders standard log records too needs no hook.

    Args:
        logger: anything with `info`, `warning` and `error` as structlog has them; without one,
            `structlog.get_logger("kis_retry")`, set up as the program has set structlog up.

    Raises:
        ConfigurationError: structlog is not installed; the message names the extra.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = _own_logger() if logger is None else logger

    def __call__(self, event: RefreshEvent) -> None:
        """Say one event."""
        say = getattr(self._logger, _METHODS[level_of(event)])
        say(f"kis_retry.{event.name}", **_said(event))


def _said(event: RefreshEvent) -> dict[str, Any]:
    found = {name: getattr(event, name) for name in _FIELDS}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in found.items()
        if value is not None
    }


def _own_logger() -> Any:
    try:
        import structlog
    except ImportError as error:
        raise ConfigurationError(
            "StructlogHook needs structlog, which is not installed: pip install 'kis-retry[structlog]'"
        ) from error
    return structlog.get_logger("kis_retry")
