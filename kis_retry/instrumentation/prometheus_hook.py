"""`PrometheusHook`: events and codes as counters, what was waited for, when the token dies, the rate in force."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from .. import errors
from ..answers import CODES, LIMIT_CODE, ONCE_A_MINUTE
from ..errors import ConfigurationError
from ..events import EVENT_NAMES, RefreshEvent

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusHook"]

_SOURCES = {"token_refreshed": ("issued",), "token_adopted": ("memory", "store")}
_USUAL_ERRORS = {"token_refresh_failed": "TokenIssueError", "token_issue_waiting": "TokenIssueLimited"}
_USUAL_CODES = (
    ("token_expired", "EGW00123"),
    ("token_issue_waiting", ONCE_A_MINUTE),
    ("call_retried", LIMIT_CODE),
    ("call_given_up", LIMIT_CODE),
    ("call_given_up", "EGW00123"),
)
_ERRORS = frozenset(
    (
        *errors.__all__,
        *("ChunkedEncodingError", "ConnectionError", "ConnectTimeout", "HTTPError", "ReadTimeout", "SSLError"),
        *("ConnectError", "HTTPStatusError", "ReadError", "RemoteProtocolError"),
        *("ClientConnectorError", "ClientOSError", "ClientPayloadError", "ServerDisconnectedError", "TimeoutError"),
    )
)
_TIMED = ("token_refreshed", "token_adopted", "token_refresh_failed")
_WAITING = ("token_issue_waiting", "call_retried")
_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90, 180, 600)


class _Paced(Protocol):
    @property
    def rate(self) -> float: ...


class PrometheusHook:
    """
    Count every event for Prometheus, for `on_event(PrometheusHook())`. Needs the extra `prometheus`.

    - `kis_retry_events_total`, a counter by `event`, `source` and `error`. Each series that is to be expected is there
      from the start, at 0, so that `rate()` sees the first event too.
    - `kis_retry_codes_total`, a counter by `event` and `code`: what KIS said, where an event is about an answer.
    - `kis_retry_refresh_seconds`, a histogram by `event`: seconds that a refresh, an adoption or a failure took,
      what was waited for the once-a-minute rule included.
    - `kis_retry_wait_seconds_total`, a counter by `event`: seconds that are waited at most before a call is made again
      (`call_retried`) and before a token is asked for again (`token_issue_waiting`). Waiting for a slot of the pace is
      no event, and not in it.
    - `kis_retry_token_expires_timestamp_seconds`, a gauge: when the newest token dies, in seconds since the epoch. It
      is there from the first refresh on, since the first token of a process makes no event, and neither does one that
      another process has renewed ahead of the expiry: of those that share a token, the latest value is the right one.
    - `kis_retry_rate_calls_per_second`, a gauge: the rate in force. With `limiter` it is there from the start and holds
      what others who share the pace have changed; without, from the first change in this process on.

    Label values are few, whatever happens: no function names, no fingerprints; an `error` that is not one of the usual
    of this package and the HTTP libraries, and a `code` without a known meaning for a repeat, are "other". What these
    leave out is in the log. An example of a dashboard and of alerts is in `docs/grafana`.

    Args:
        registry: where the metrics are registered; without one, the default registry of `prometheus_client`.
        limiter: the `RateLimiter` whose rate is shown. With `prometheus_client`'s multiprocess mode its changes in this
            process are.

    Raises:
        ConfigurationError: prometheus_client is not installed; the message names the extra.
        ValueError: the registry has the metrics of another `PrometheusHook` already; one is enough for a program.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, limiter: _Paced | None = None) -> None:
        self._library = library = _prometheus_client()
        self._registry = library.REGISTRY if registry is None else registry
        self._events = self._counter(
            "kis_retry_events_total",
            "What happened to tokens, to calls that did not go well at once, and to the pace.",
            ("event", "source", "error"),
        )
        self._codes = self._counter("kis_retry_codes_total", "What KIS said, by what happened then.", ("event", "code"))
        self._seconds = library.Histogram(
            "kis_retry_refresh_seconds",
            "How long a caller waited for another token, by how it ended.",
            ("event",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._waited = self._counter(
            "kis_retry_wait_seconds_total", "Seconds waited before KIS was asked again.", ("event",)
        )
        self._gauges: dict[str, Any] = {}
        self._making = threading.Lock()  # guards the making of _gauges
        for name in EVENT_NAMES:
            for source in _SOURCES.get(name, ("",)):
                self._events.labels(name, source, _USUAL_ERRORS.get(name, ""))
        for usual in _USUAL_CODES:
            self._codes.labels(*usual)
        for waiting in _WAITING:
            self._waited.labels(waiting)
        if limiter is not None:
            rate = self._rate()
            rate.set(limiter.rate)
            rate.set_function(lambda: limiter.rate)

    def __call__(self, event: RefreshEvent) -> None:
        """Count one event."""
        self._events.labels(event.name, event.source or "", _or_other(event.error, _ERRORS)).inc()
        if event.msg_cd:
            self._codes.labels(event.name, _or_other(event.msg_cd.upper(), CODES)).inc()
        if event.elapsed is not None and event.name in _TIMED:
            self._seconds.labels(event.name).observe(event.elapsed)
        if event.wait is not None and event.name in _WAITING:
            self._waited.labels(event.name).inc(max(event.wait, 0))
        if event.token is not None and event.expires_at is not None:
            self._expiry().set(event.expires_at.timestamp())
        if event.rate is not None:
            self._rate().set(event.rate)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Any:
        return self._library.Counter(name, text, labels, registry=self._registry)

    def _expiry(self) -> Any:
        return self._gauge(
            "kis_retry_token_expires_timestamp_seconds",
            "When the newest token of this process dies, in seconds since the epoch.",
        )

    def _rate(self) -> Any:
        return self._gauge("kis_retry_rate_calls_per_second", "Calls a second that the pace allows; 0: no pace.")

    def _gauge(self, name: str, text: str) -> Any:
        # Made late: at an initial 0 they would say "expired in 1970" and "no pace" to whoever has an alert on them.
        with self._making:
            if name not in self._gauges:
                self._gauges[name] = self._library.Gauge(
                    name, text, registry=self._registry, multiprocess_mode="mostrecent"
                )
            return self._gauges[name]


def _or_other(text: str | None, usual: Any) -> str:
    if not text:
        return ""
    return text if text in usual else "other"


def _prometheus_client() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigurationError(
            "PrometheusHook needs prometheus_client, which is not installed: pip install 'kis-retry[prometheus]'"
        ) from error
    return prometheus_client
