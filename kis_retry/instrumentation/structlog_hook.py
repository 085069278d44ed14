"""`StructlogHook`: events as structlog's own, with the program's processors and in the program's format."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from ..errors import ConfigurationError
from ..events import RefreshEvent, level_of

__all__ = ["StructlogHook"]

_FIELDS = tuple(spec.name for spec in fields(RefreshEvent) if spec.name != "name")


@dataclass(frozen=True)
class StructlogHook:
    """
    Say every event to structlog, for `on_event(StructlogHook())`. Needs the extra `structlog`.

    The event is `kis_retry.<name>`, constant and in the past tense, at the level it has in the standard log; beside it
    stand the fields of `RefreshEvent` that have a value, `expires_at` as ISO 8601 text, numbers to the thousandth.
    Tokens are fingerprints.

    The standard logger `kis_retry` goes on saying the same, and what is no event besides. A program that shows both has
    each event once with `logging.getLogger("kis_retry").addFilter(lambda record: record.kis_name not in EVENT_NAMES)`
    (`EVENT_NAMES` is in `kis_retry.events`). One whose structlog renders standard log records too needs no hook.

    Args:
        logger: anything with `debug`, `info`, `warning` and `error` as structlog has them; without one,
            `structlog.get_logger("kis_retry")`, set up as the program has set structlog up.

    Raises:
        ConfigurationError: structlog is not installed; the message names the extra.
    """

    logger: Any = None

    def __post_init__(self) -> None:
        if self.logger is None:
            _structlog()

    def __call__(self, event: RefreshEvent) -> None:
        """Say one event."""
        logger = self.logger if self.logger is not None else _structlog().get_logger("kis_retry")
        say = getattr(logger, logging.getLevelName(level_of(event)).lower())
        say(f"kis_retry.{event.name}", **_said(event))


def _said(event: RefreshEvent) -> dict[str, Any]:
    found = {name: getattr(event, name) for name in _FIELDS}
    return {name: _plain(value) for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return round(value, 3) if isinstance(value, float) else value


def _structlog() -> Any:
    try:
        import structlog
    except ImportError as error:
        raise ConfigurationError(
            "StructlogHook needs structlog, which is not installed: pip install 'kis-retry[structlog]'"
        ) from error
    return structlog
