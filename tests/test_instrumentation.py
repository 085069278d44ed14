"""The ready-made hooks: what structlog and Prometheus get to see, and what never."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import prometheus_client
import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import CapturingLogger, capture_logs

from kis_retry import ConfigurationError, RefreshEvent, on_event
from kis_retry.events import EVENT_NAMES, emit, warn
from kis_retry.instrumentation import PrometheusHook, StructlogHook
from outcomes import FULL_EVENT as FULL

EXPIRY = datetime(2026, 11, 24, tzinfo=timezone.utc)
EVENTS, CODES = "kis_retry_events_total", "kis_retry_codes_total"
RATE, EXPIRES = "kis_retry_rate_calls_per_second", "kis_retry_token_expires_timestamp_seconds"


@pytest.fixture(autouse=True)
def structlog_as_it_comes() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def hook(registry: CollectorRegistry) -> PrometheusHook:
    return PrometheusHook(registry)


# -- both


@pytest.mark.parametrize(
    ("kind", "library", "extra"),
    [(StructlogHook, "structlog", "structlog"), (PrometheusHook, "prometheus_client", "prometheus")],
)
def test_a_missing_library_is_a_configuration_error_that_names_the_extra(
    kind: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf"needs {library}, .*'\.\[{extra}\]' in a clone"):
        kind()


# -- structlog


@pytest.mark.parametrize("quiet", [False, True])
def test_structlog_gets_the_event_at_the_level_of_the_log(quiet: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="kis_retry")
    end = on_event(StructlogHook())
    with capture_logs() as captured:
        for name in EVENT_NAMES:
            emit(RefreshEvent(name=name, attempt=1, msg_cd="X"), quiet=quiet)
    end()
    assert captured == [
        {"event": f"kis_retry.{name}", "log_level": record.levelname.lower(), "attempt": 1, "msg_cd": "X"}
        for name, record in zip(EVENT_NAMES, caplog.records, strict=True)
    ], "and no field that has nothing to say"


def test_structlog_gets_every_field_as_text_or_as_a_number_that_one_can_read() -> None:
    with capture_logs() as captured:
        StructlogHook()(FULL)
    expected = {name: value for name, value in vars(FULL).items() if name != "name"}
    expected |= {"expires_at": "2026-11-24T00:00:00+00:00", "elapsed": 0.003}
    assert captured == [{"event": "kis_retry.token_refreshed", "log_level": "info", **expected}]


def test_a_logger_of_structlogs_may_be_given_or_set_up_later() -> None:
    logger, hook = CapturingLogger(), StructlogHook()
    structlog.configure(processors=[], logger_factory=lambda *_: logger)
    hook(RefreshEvent(name="call_given_up"))
    StructlogHook(structlog.wrap_logger(logger, processors=[]))(RefreshEvent(name="token_refresh_failed", error="X"))
    assert [(call.method_name, call.kwargs["event"]) for call in logger.calls] == [
        ("warning", "kis_retry.call_given_up"),
        ("error", "kis_retry.token_refresh_failed"),
    ]


def test_a_program_that_shows_both_has_each_event_once_with_a_filter(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("kis_retry")

    def says_more(record: logging.LogRecord) -> bool:
        return vars(record)["kis_name"] not in EVENT_NAMES

    logger.addFilter(says_more)
    try:
        emit(RefreshEvent(name="call_given_up", msg_cd="X"))
        warn("store_unavailable", store="x")
    finally:
        logger.removeFilter(says_more)
    assert caplog.messages == ["kis_retry.store_unavailable store=x"]


# -- Prometheus


def test_prometheus_has_every_event_at_zero_from_the_start_and_counts_it(
    registry: CollectorRegistry, hook: PrometheusHook
) -> None:
    (metric,) = [metric for metric in registry.collect() if metric.name == "kis_retry_events"]
    found = [sample for sample in metric.samples if sample.name == EVENTS]
    assert {sample.labels["event"] for sample in found} == {*EVENT_NAMES}
    assert {sample.value for sample in found} == {0}
    for labels in (sample.labels for sample in found):
        told: Any = {"name": labels["event"], "source": labels["source"] or None, "error": labels["error"] or None}
        hook(RefreshEvent(**told))
        assert registry.get_sample_value(EVENTS, labels) == 1


def test_prometheus_counts_what_kis_said_by_codes_that_have_a_meaning(
    registry: CollectorRegistry, hook: PrometheusHook
) -> None:
    for code in ("EGW00201", "EGW00201", "OPSQ1002", "APBK0919", "APBK0920", None):
        hook(replace(FULL, name="call_retried", msg_cd=code))
    labels = [{"event": "call_retried", "code": code} for code in ("EGW00201", "OPSQ1002", "other")]
    assert [registry.get_sample_value(CODES, label) for label in labels] == [2, 1, 2]
    names = {name for metric in registry.collect() for sample in metric.samples for name in sample.labels}
    assert names <= {"event", "source", "error", "code", "le"}, "and no function's or token's"


@pytest.mark.parametrize(("name", "timed"), [("token_adopted", 70.25), ("call_retried", None)])
def test_prometheus_times_what_a_caller_waits_for_and_adds_up_what_is_waited(
    registry: CollectorRegistry, hook: PrometheusHook, name: Any, timed: float | None
) -> None:
    for elapsed, wait in ((0.25, 0.5), (70, 60), (None, None)):
        hook(RefreshEvent(name=name, elapsed=timed and elapsed, wait=wait))
    assert registry.get_sample_value("kis_retry_refresh_seconds_sum", {"event": name}) == timed
    assert registry.get_sample_value("kis_retry_wait_seconds_total", {"event": name}) == 60.5


def test_prometheus_says_no_expiry_and_no_rate_before_it_knows_one(
    registry: CollectorRegistry, hook: PrometheusHook
) -> None:
    hook(RefreshEvent(name="token_expired", token="0a1b2c3d"))
    hook(RefreshEvent(name="token_refresh_failed", previous_token="0a1b2c3d", expires_at=EXPIRY))
    assert [registry.get_sample_value(name) for name in (EXPIRES, RATE)] == [None, None]
    hook(FULL)
    hook(RefreshEvent(name="rate_raised", rate=0))
    assert [registry.get_sample_value(name) for name in (EXPIRES, RATE)] == [EXPIRY.timestamp(), 0]


def test_the_rate_of_a_limiter_is_there_from_the_start_and_always_the_one_in_force(registry: CollectorRegistry) -> None:
    limiter: Any = SimpleNamespace(rate=12.0)
    PrometheusHook(registry, limiter=limiter)
    assert registry.get_sample_value(RATE) == 12
    limiter.rate = 4.5  # as another process has lowered it: no event here
    assert registry.get_sample_value(RATE) == 4.5


def test_a_second_hook_in_one_registry_is_refused_and_without_one_it_is_the_default(
    registry: CollectorRegistry, hook: PrometheusHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="kis_retry_events"):
        PrometheusHook(registry)
    default = CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", default)
    PrometheusHook()
    assert default.get_sample_value(EVENTS, {"event": "order_held_back", "source": "", "error": ""}) == 0
