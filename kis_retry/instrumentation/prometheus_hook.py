"""`PrometheusHook`: events as counters, the time a refresh takes, and when the token dies."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .. import errors
from ..errors import ConfigurationError
from ..events import RefreshEvent

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusHook"]

_USUAL = (
    ("token_expired", "", ""),
    ("token_refreshed", "issued", ""),
    ("token_adopted", "memory", ""),
    ("token_adopted", "store", ""),
    ("token_refresh_failed", "", "TokenIssueError"),
    ("token_issue_waiting", "", "TokenIssueLimited"),
    ("call_retried", "", ""),
    ("call_recovered", "", ""),
    ("call_given_up", "", ""),
    ("rate_lowered", "", ""),
    ("rate_raised", "", ""),
)
_ERRORS = frozenset(("", *errors.__all__, "ConnectionError", "ConnectTimeout", "ReadTimeout", "HTTPError"))
_TIMED = frozenset(("token_refreshed", "token_adopted", "token_refresh_failed"))
_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90, 180, 600)


class PrometheusHook:
    """
    Count every event for Prometheus, for `on_event(PrometheusHook())`. Needs the extra `prometheus`.

    - `kis_retry_events_total`, a counter by `event`, `source` and `error`. Each series that is to be expected is there
      from the start, at 0, so that `rate()` sees the first event too.
    - `kis_retry_refresh_seconds`, a histogram by `event`: seconds that a refresh, an adoption or a failure took,
      what was waited for the once-a-minute rule included.
    - `kis_retry_token_expires_timestamp_seconds`, a gauge: when the newest token dies, in seconds since the epoch. It
      is there from the first refresh on, since the first token of a process makes no event.

    Label values are few, whatever happens: no function names, no fingerprints, and an `error` that is neither of this
    package nor of `requests` is "other". What these leave out is in the log.

    Args:
        registry: where the metrics are registered; without one, the default registry of `prometheus_client`.

    Raises:
        ConfigurationError: prometheus_client is not installed; the message names the extra.
        ValueError: the registry has the metrics of another `PrometheusHook` already; one is enough for a program.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._library = library = _prometheus_client()
        self._registry = library.REGISTRY if registry is None else registry
        self._events = library.Counter(
            "kis_retry_events_total",
            "What happened to tokens, to calls that did not go well at once, and to the pace.",
            ("event", "source", "error"),
            registry=self._registry,
        )
        self._seconds = library.Histogram(
            "kis_retry_refresh_seconds",
            "How long a caller waited for another token, by how it ended.",
            ("event",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._expiry: Any = None
        self._making = threading.Lock()  # guards the making of _expiry
        for labels in _USUAL:
            self._events.labels(*labels)

    def __call__(self, event: RefreshEvent) -> None:
        """Count one event."""
        error = event.error or ""
        self._events.labels(event.name, event.source or "", error if error in _ERRORS else "other").inc()
        if event.name in _TIMED and event.elapsed is not None:
            self._seconds.labels(event.name).observe(event.elapsed)
        if event.token is not None and event.expires_at is not None:
            self._expiry_gauge().set(event.expires_at.timestamp())

    def _expiry_gauge(self) -> Any:
        # Made late: at its initial 0 it would say "expired in 1970" to whoever has an alert on it.
        with self._making:
            if self._expiry is None:
                self._expiry = self._library.Gauge(
                    "kis_retry_token_expires_timestamp_seconds",
                    "When the newest token of this process dies, in seconds since the epoch.",
                    registry=self._registry,
                    multiprocess_mode="mostrecent",
                )
            return self._expiry


def _prometheus_client() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigurationError(
            "PrometheusHook needs prometheus_client, which is not installed: pip install 'kis-retry[prometheus]'"
        ) from error
    return prometheus_client
