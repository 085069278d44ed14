"""The ready-made hooks: what structlog and Prometheus get to see, and what never."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import prometheus_client
import pytest
import structlog
from structlog.testing import CapturingLogger, capture_logs

import kis_retry.instrumentation
from kis_retry import ConfigurationError, RefreshEvent, on_event
from kis_retry.events import EVENT_NAMES, EventName, emit
from kis_retry.instrumentation import PrometheusHook, StructlogHook

EXPIRY = datetime(2026, 11, 24, tzinfo=timezone.utc)
FULL = RefreshEvent(
    name="token_refreshed",
    callable="Batch.fetch_price",
    request="GET /uapi/x",
    attempt=2,
    msg_cd="EGW00123",
    token="0a1b2c3d",
    previous_token="4e5f6a7b",
    expires_at=EXPIRY,
    source="issued",
    elapsed=0.00272803199993632,
    wait=60.0,
    error="TokenIssueError",
    rate=18.0,
)
EVENTS, CODES, WAITED = "kis_retry_events_total", "kis_retry_codes_total", "kis_retry_wait_seconds_total"
RATE, EXPIRES = "kis_retry_rate_calls_per_second", "kis_retry_token_expires_timestamp_seconds"

every_name = pytest.mark.parametrize("name", EVENT_NAMES)


@pytest.fixture(autouse=True)
def structlog_as_it_comes() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    return prometheus_client.CollectorRegistry()


@pytest.fixture
def hook(registry: prometheus_client.CollectorRegistry) -> PrometheusHook:
    return PrometheusHook(registry)


# -- both


def test_the_package_offers_its_hooks_and_loads_no_library_for_it() -> None:
    assert set(kis_retry.instrumentation.__all__) <= set(dir(kis_retry.instrumentation))
    with pytest.raises(AttributeError, match="no attribute 'DatadogHook'"):
        kis_retry.instrumentation.DatadogHook  # noqa: B018  # the mistake under test
    script = "import sys; from kis_retry.instrumentation import PrometheusHook, StructlogHook;"
    script += "print(sorted({'structlog', 'prometheus_client'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "library", "extra"),
    [(StructlogHook, "structlog", "structlog"), (PrometheusHook, "prometheus_client", "prometheus")],
)
def test_a_missing_library_is_a_configuration_error_that_names_the_extra(
    kind: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf"needs {library}, .*'kis-retry\[{extra}\]'"):
        kind()


# -- structlog


@every_name
@pytest.mark.parametrize("level", [None, logging.DEBUG])
def test_structlog_gets_the_event_at_the_level_of_the_log(
    name: EventName, level: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="kis_retry")
    end = on_event(StructlogHook())
    with capture_logs() as captured:
        emit(RefreshEvent(name=name, attempt=1, msg_cd="X"), level=level)
    end()
    (record,) = caplog.records
    expected = {"event": f"kis_retry.{name}", "log_level": record.levelname.lower(), "attempt": 1, "msg_cd": "X"}
    assert captured == [expected], "and no field that has nothing to say"


def test_structlog_gets_every_field_as_text_or_as_a_number_that_one_can_read() -> None:
    with capture_logs() as captured:
        StructlogHook()(FULL)
    expected = {name: value for name, value in vars(FULL).items() if name != "name"}
    expected |= {"expires_at": "2026-11-24T00:00:00+00:00", "elapsed": 0.003}
    assert captured == [{"event": "kis_retry.token_refreshed", "log_level": "info", **expected}]


def test_structlog_may_be_set_up_after_the_hook_is_made() -> None:
    hook, logger = StructlogHook(), CapturingLogger()
    structlog.configure(processors=[], logger_factory=lambda *_: logger)
    hook(RefreshEvent(name="call_given_up"))
    (call,) = logger.calls
    assert (call.method_name, call.kwargs) == ("warning", {"event": "kis_retry.call_given_up"})


@pytest.mark.parametrize("wrapper", [structlog.stdlib.BoundLogger, structlog.BoundLogger])
def test_a_logger_of_any_of_structlogs_kinds_will_do(wrapper: Any) -> None:
    logger = CapturingLogger()
    StructlogHook(structlog.wrap_logger(logger, processors=[], wrapper_class=wrapper))(
        RefreshEvent(name="token_refresh_failed", error="TokenIssueError")
    )
    (call,) = logger.calls
    assert (call.method_name, call.kwargs["error"]) == ("error", "TokenIssueError")


def test_a_page_that_is_run_again_has_one_hook() -> None:
    ends = [on_event(StructlogHook()) for _ in range(3)]
    with capture_logs() as captured:
        emit(RefreshEvent(name="token_expired"))
    for end in ends:
        end()
    assert len(captured) == 1


def test_a_program_that_shows_both_has_each_event_once_with_a_filter(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("kis_retry")

    def says_more(record: logging.LogRecord) -> bool:
        return vars(record)["kis_name"] not in EVENT_NAMES

    logger.addFilter(says_more)
    try:
        emit(RefreshEvent(name="call_given_up", msg_cd="X"))
        kis_retry.events.warn("store_unavailable", store="x")
    finally:
        logger.removeFilter(says_more)
    assert caplog.messages == ["kis_retry.store_unavailable store=x"]


# -- Prometheus


@every_name
def test_prometheus_has_every_event_at_zero_from_the_start_and_counts_it(
    registry: prometheus_client.CollectorRegistry, hook: PrometheusHook, name: EventName
) -> None:
    (metric,) = [metric for metric in registry.collect() if metric.name == "kis_retry_events"]
    found = [sample for sample in metric.samples if sample.labels["event"] == name and sample.name == EVENTS]
    assert {sample.value for sample in found} == {0}
    for sample in found:
        hook(RefreshEvent(name=name, source=sample.labels["source"] or None, error=sample.labels["error"] or None))  # type: ignore[arg-type]  # one of them
        assert registry.get_sample_value(EVENTS, sample.labels) == 1


USUAL = ("ReadTimeout", "ConnectError", "ServerDisconnectedError", "ResponseError", "HTTPError")


@pytest.mark.parametrize(("error", "label"), [*zip(USUAL, USUAL, strict=True), ("SomebodysError", "other"), (None, "")])
def test_prometheus_names_the_usual_errors(
    registry: prometheus_client.CollectorRegistry, hook: PrometheusHook, error: str | None, label: str
) -> None:
    hook(RefreshEvent(name="call_retried", error=error))
    assert registry.get_sample_value(EVENTS, {"event": "call_retried", "source": "", "error": label}) == 1


def test_prometheus_counts_what_kis_said(registry: prometheus_client.CollectorRegistry, hook: PrometheusHook) -> None:
    assert registry.get_sample_value(CODES, {"event": "call_given_up", "code": "EGW00123"}) == 0, "there from the start"
    for code in ("EGW00201", "egw00201", "OPSQ1002", "APBK0919", None):
        hook(RefreshEvent(name="call_retried", msg_cd=code))
    labels = [{"event": "call_retried", "code": code} for code in ("EGW00201", "OPSQ1002", "other")]
    assert [registry.get_sample_value(CODES, label) for label in labels] == [2, 1, 1]


def test_prometheus_has_few_series_whatever_happens(
    registry: prometheus_client.CollectorRegistry, hook: PrometheusHook
) -> None:
    for number in range(200):
        hook(
            replace(FULL, callable=f"f{number}", token=f"{number:08x}", msg_cd=f"APBK{number:04d}", error=f"E{number}")
        )
    assert registry.get_sample_value(CODES, {"event": "token_refreshed", "code": "other"}) == 200
    assert sum(len(metric.samples) for metric in registry.collect()) < 90
    labels = {name for metric in registry.collect() for sample in metric.samples for name in sample.labels}
    assert labels == {"event", "source", "error", "code", "le"}


@every_name
def test_prometheus_times_what_a_caller_waits_for_and_adds_up_what_is_waited(
    registry: prometheus_client.CollectorRegistry, hook: PrometheusHook, name: EventName
) -> None:
    for elapsed, wait in ((0.25, 0.5), (70, 60), (None, -0.1)):
        hook(RefreshEvent(name=name, elapsed=elapsed, wait=wait))
    timed = registry.get_sample_value("kis_retry_refresh_seconds_sum", {"event": name})
    assert timed == (70.25 if name in ("token_refreshed", "token_adopted", "token_refresh_failed") else None)
    waited = registry.get_sample_value(WAITED, {"event": name})
    assert waited == (60.5 if name in ("token_issue_waiting", "call_retried") else None)


def test_prometheus_says_no_expiry_and_no_rate_before_it_knows_one(
    registry: prometheus_client.CollectorRegistry, hook: PrometheusHook
) -> None:
    hook(RefreshEvent(name="token_expired", token="0a1b2c3d"))
    hook(RefreshEvent(name="token_refresh_failed", previous_token="0a1b2c3d", expires_at=EXPIRY))
    assert [registry.get_sample_value(name) for name in (EXPIRES, RATE)] == [None, None]
    hook(FULL)
    hook(RefreshEvent(name="rate_raised", rate=0))
    assert [registry.get_sample_value(name) for name in (EXPIRES, RATE)] == [EXPIRY.timestamp(), 0]


def test_the_rate_of_a_limiter_is_there_from_the_start_and_always_the_one_in_force(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    class Limiter:
        rate = 12.0

    PrometheusHook(registry, limiter=Limiter())
    assert registry.get_sample_value(RATE) == 12
    Limiter.rate = 4.5  # as another process has lowered it: no event here
    assert registry.get_sample_value(RATE) == 4.5


def test_threads_that_bring_the_first_expiry_at_once_make_one_gauge(
    registry: prometheus_client.CollectorRegistry, hook: PrometheusHook
) -> None:
    start, failures = threading.Barrier(16), []

    def report() -> None:
        start.wait()
        try:
            hook(FULL)
        except ValueError as error:
            failures.append(error)

    threads = [threading.Thread(target=report) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_second_hook_in_one_registry_is_refused_and_without_one_it_is_the_default(
    registry: prometheus_client.CollectorRegistry, hook: PrometheusHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="kis_retry_events"):
        PrometheusHook(registry)
    default = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", default)
    PrometheusHook()
    assert default.get_sample_value(EVENTS, {"event": "order_held_back", "source": "", "error": ""}) == 0
