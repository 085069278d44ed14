"""Ready-made hooks for `on_event`; each needs its library (an extra) when it is made, not when it is imported."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .answers import CODES
from .errors import ConfigurationError
from .events import EVENT_NAMES, RefreshEvent, level_of

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from .pace.limiter import RateLimiter

__all__ = ["PrometheusHook", "StructlogHook"]

_USUAL = {  # source and error of an event; none elsewhere
    "token_refreshed": [("issued", "")],
    "token_adopted": [("memory", ""), ("store", "")],
    "token_refresh_failed": [("", "TokenIssueError")],
    "token_issue_waiting": [("", "TokenIssueLimited")],
}
_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90, 180, 600)
_EXPIRY, _RATE = "kis_retry_token_expires_timestamp_seconds", "kis_retry_rate_calls_per_second"
_GAUGES = {
    _EXPIRY: "When the newest token of this process dies, in seconds since the epoch.",
    _RATE: "Calls a second that the pace allows; 0: no pace.",
}


@dataclass(frozen=True)
class StructlogHook:
    """
    Say every event to structlog, for `on_event(StructlogHook())`. Needs the extra `structlog`.

    The event is `kis_retry.<name>`, at the level it has in the standard log; beside it stand the fields of
    `RefreshEvent` that have a value, `expires_at` as ISO 8601 text, numbers to the thousandth, tokens as fingerprints.

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
            _library("structlog", "structlog", type(self).__name__)

    def __call__(self, event: RefreshEvent) -> None:
        logger = self.logger if self.logger is not None else import_module("structlog").get_logger("kis_retry")
        say = getattr(logger, logging.getLevelName(level_of(event)).lower())
        found = {spec.name: _plain(getattr(event, spec.name)) for spec in fields(event) if spec.name != "name"}
        say(f"kis_retry.{event.name}", **{name: value for name, value in found.items() if value is not None})


class PrometheusHook:
    """
    Count every event for Prometheus, for `on_event(PrometheusHook())`. Needs the extra `prometheus`.

    No label holds a function's name or a fingerprint. A dashboard and alerts are in `docs/grafana`.

    - `kis_retry_events_total`, a counter by `event`, `source` and `error` (a type name). The usual series are there
      from the start, at 0, so that `rate()` sees the first event too.
    - `kis_retry_codes_total`, a counter by `event` and `code`: what KIS said; "other" without a known meaning.
    - `kis_retry_refresh_seconds`, a histogram by `event`: how long a refresh, an adoption or a failure took.
    - `kis_retry_wait_seconds_total`, a counter by `event`: seconds waited at most before a call or a token request is
      made again. Slots of the pace are not in it.
    - `kis_retry_token_expires_timestamp_seconds`, a gauge, from the first refresh on: when the newest token dies.
    - `kis_retry_rate_calls_per_second`, a gauge: the rate in force; without `limiter` from its first change here on.

    Args:
        registry: where the metrics are registered; without one, the default registry of `prometheus_client`.
        limiter: the `RateLimiter` whose rate is shown, as it is changed by others who share the pace too.

    Raises:
        ConfigurationError: prometheus_client is not installed; the message names the extra.
        ValueError: the registry has the metrics of another `PrometheusHook` already; one is enough for a program.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, limiter: RateLimiter | None = None) -> None:
        library = _library("prometheus_client", "prometheus", type(self).__name__)
        place = {"registry": library.REGISTRY if registry is None else registry}
        counter = partial(library.Counter, **place)
        about = "What happened to tokens, to calls that did not go well at once, and to the pace."
        self._events = counter("kis_retry_events_total", about, ("event", "source", "error"))
        self._codes = counter("kis_retry_codes_total", "What KIS said, by what happened then.", ("event", "code"))
        self._waited = counter("kis_retry_wait_seconds_total", "Seconds waited before KIS was asked again.", ("event",))
        about = "How long a caller waited for another token, by how it ended."
        self._seconds = library.Histogram("kis_retry_refresh_seconds", about, ("event",), buckets=_BUCKETS, **place)
        self._new_gauge = partial(library.Gauge, **place, multiprocess_mode="mostrecent")
        self._gauges: dict[str, Any] = {}
        self._making = threading.Lock()  # guards _gauges
        for name in EVENT_NAMES:
            for usual in _USUAL.get(name, [("", "")]):
                self._events.labels(name, *usual)
        if limiter is not None:
            self._gauge(_RATE).set_function(lambda: limiter.rate)

    def __call__(self, event: RefreshEvent) -> None:
        self._events.labels(event.name, event.source or "", event.error or "").inc()
        if event.msg_cd:
            self._codes.labels(event.name, event.msg_cd if event.msg_cd in CODES else "other").inc()
        if event.elapsed is not None:
            self._seconds.labels(event.name).observe(event.elapsed)
        if event.wait is not None:
            self._waited.labels(event.name).inc(event.wait)
        if event.token is not None and event.expires_at is not None:
            self._gauge(_EXPIRY).set(event.expires_at.timestamp())
        if event.rate is not None:
            self._gauge(_RATE).set(event.rate)

    def _gauge(self, name: str) -> Any:
        # Made late: at an initial 0 they would say "expired in 1970" and "no pace" to whoever has an alert on them.
        with self._making:
            if name not in self._gauges:
                self._gauges[name] = self._new_gauge(name, _GAUGES[name])
            return self._gauges[name]


def _library(name: str, extra: str, hook: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        had = f"pip install '.[{extra}]' in a clone, or pip install {name.replace('_', '-')}"
        raise ConfigurationError(f"{hook} needs {name}, which is not installed: {had}") from error


def _plain(value: Any) -> Any:
    value = value.isoformat() if isinstance(value, datetime) else value
    return round(value, 3) if isinstance(value, float) else value
