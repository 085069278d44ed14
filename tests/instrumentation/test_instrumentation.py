"""The ready-made hooks: what structlog and Prometheus get to see, and what never."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
import requests
import structlog
from structlog.testing import CapturingLogger, capture_logs

import kis_retry.instrumentation
from kis_retry import (
    ConfigurationError,
    Credentials,
    KisClient,
    MemoryTokenStore,
    RateLimiter,
    RefreshEvent,
    TokenManager,
    on_event,
    retry_on_transient_error,
)
from kis_retry.events import EVENT_NAMES, EventName, emit, level_of
from kis_retry.instrumentation import PrometheusHook, StructlogHook
from kis_retry.kis import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kis_retry.testing import KisGateway

NOW = datetime.now(timezone.utc)
FULL = RefreshEvent(
    name="token_refreshed",
    callable="Batch.fetch_price",
    attempt=2,
    msg_cd="EGW00123",
    token="0a1b2c3d",
    previous_token="4e5f6a7b",
    expires_at=datetime(2026, 11, 24, tzinfo=timezone.utc),
    source="issued",
    elapsed=0.25,
    error="TokenIssueError",
    rate=18.0,
)
KNOWN_CODES = sum(f"EGW{number:05d}" in CODES for number in range(200))
STORY = ["token_expired", "token_refreshed", "call_recovered"]

every_name = pytest.mark.parametrize("name", EVENT_NAMES)
both = pytest.mark.parametrize(
    ("hook", "library", "extra"),
    [(StructlogHook, "structlog", "structlog"), (PrometheusHook, "prometheus_client", "prometheus")],
)


@pytest.fixture(autouse=True)
def structlog_as_it_comes() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    return prometheus_client.CollectorRegistry()


def said_of(registry: prometheus_client.CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def expire_once(client: KisClient, gateway: KisGateway) -> None:
    client.fetch_domestic_price("005930")
    gateway.expire()
    assert client.fetch_domestic_price("005930")["rt_cd"] == "0"


# -- both


def test_the_package_offers_its_hooks_and_says_so() -> None:
    assert set(kis_retry.instrumentation.__all__) <= set(dir(kis_retry.instrumentation))
    with pytest.raises(AttributeError, match="no attribute 'DatadogHook'"):
        kis_retry.instrumentation.DatadogHook  # noqa: B018  # the mistake under test


@both
def test_a_missing_library_is_a_configuration_error_that_names_the_extra(
    hook: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf"needs {library}, .*'kis-retry\[{extra}\]'"):
        hook()


def test_importing_the_hooks_loads_no_library() -> None:
    script = """
import sys
from kis_retry.instrumentation import PrometheusHook, StructlogHook
from kis_retry.kis import CODES
print(sorted({"structlog", "prometheus_client"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# -- levels


def test_a_failed_renewal_is_loud_only_once_the_old_token_is_dead() -> None:
    failed = RefreshEvent(name="token_refresh_failed", error="TokenIssueError")
    assert level_of(failed) == logging.ERROR
    assert level_of(replace(failed, expires_at=NOW - timedelta(seconds=1))) == logging.ERROR
    assert level_of(replace(failed, expires_at=NOW + timedelta(hours=1))) == logging.WARNING


def test_an_expiry_ahead_makes_nothing_louder() -> None:
    assert level_of(replace(FULL, expires_at=NOW + timedelta(hours=1))) == logging.INFO


# -- structlog


@every_name
def test_structlog_gets_the_event_at_the_level_of_the_log(name: EventName, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="kis_retry")
    end = on_event(StructlogHook())
    with capture_logs() as captured:
        emit(RefreshEvent(name=name))
    end()
    (record,) = caplog.records
    assert captured == [{"event": f"kis_retry.{name}", "log_level": record.levelname.lower()}]
    assert record.getMessage() == captured[0]["event"]


def test_structlog_gets_every_field_as_text_or_number() -> None:
    with capture_logs() as captured:
        StructlogHook()(FULL)
    expected = {spec.name: getattr(FULL, spec.name) for spec in fields(RefreshEvent) if spec.name != "name"}
    expected["expires_at"] = "2026-11-24T00:00:00+00:00"
    assert captured == [{"event": "kis_retry.token_refreshed", "log_level": "info", **expected}]


def test_structlog_gets_no_field_that_has_nothing_to_say() -> None:
    with capture_logs() as captured:
        StructlogHook()(RefreshEvent(name="token_expired", attempt=1))
    assert captured == [{"event": "kis_retry.token_expired", "log_level": "info", "attempt": 1}]


def test_structlog_tells_a_repeat_and_a_change_of_the_pace() -> None:
    hook = StructlogHook()
    with capture_logs() as captured:
        hook(RefreshEvent(name="call_retried", callable="Batch.fetch", attempt=2, msg_cd="EGW00201", elapsed=0.25))
        hook(RefreshEvent(name="rate_lowered", rate=3.0))
    assert captured == [
        {
            "event": "kis_retry.call_retried",
            "log_level": "info",
            "callable": "Batch.fetch",
            "attempt": 2,
            "msg_cd": "EGW00201",
            "elapsed": 0.25,
        },
        {"event": "kis_retry.rate_lowered", "log_level": "warning", "rate": 3.0},
    ]


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


def test_structlog_tells_the_story_of_an_expiry(client: KisClient, gateway: KisGateway) -> None:
    end = on_event(StructlogHook())
    with capture_logs() as captured:
        expire_once(client, gateway)
    end()
    assert [entry["event"] for entry in captured] == [f"kis_retry.{name}" for name in STORY]
    assert captured[0]["token"] == captured[1]["previous_token"]
    assert {entry["callable"] for entry in captured} == {"KisClient.fetch_domestic_price"}


# -- Prometheus


@every_name
def test_prometheus_has_every_event_at_zero_from_the_start(
    registry: prometheus_client.CollectorRegistry, name: EventName
) -> None:
    PrometheusHook(registry)
    (metric,) = [metric for metric in registry.collect() if metric.name == "kis_retry_events"]
    found = [sample for sample in metric.samples if sample.labels["event"] == name and sample.name.endswith("_total")]
    assert found
    assert {sample.value for sample in found} == {0}


def test_prometheus_has_the_series_that_are_to_be_expected_and_no_other(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    PrometheusHook(registry)
    series = {
        (sample.name, *sample.labels.values())
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert series == {
        ("kis_retry_events_total", "token_expired", "", ""),
        ("kis_retry_events_total", "token_refreshed", "issued", ""),
        ("kis_retry_events_total", "token_adopted", "memory", ""),
        ("kis_retry_events_total", "token_adopted", "store", ""),
        ("kis_retry_events_total", "token_refresh_failed", "", "TokenIssueError"),
        ("kis_retry_events_total", "token_issue_waiting", "", "TokenIssueLimited"),
        *(("kis_retry_events_total", f"call_{ended}", "", "") for ended in ("retried", "recovered", "given_up")),
        *(("kis_retry_events_total", f"rate_{moved}", "", "") for moved in ("lowered", "raised")),
        ("kis_retry_codes_total", "token_expired", "EGW00123"),
        ("kis_retry_codes_total", "token_issue_waiting", "EGW00133"),
        ("kis_retry_codes_total", "call_retried", "EGW00201"),
        ("kis_retry_codes_total", "call_given_up", "EGW00201"),
        ("kis_retry_codes_total", "call_given_up", "EGW00123"),
        ("kis_retry_wait_seconds_total", "token_issue_waiting"),
        ("kis_retry_wait_seconds_total", "call_retried"),
    }


def test_the_buckets_reach_from_a_look_into_the_store_to_an_outage_of_ten_minutes(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    PrometheusHook(registry)(RefreshEvent(name="token_refreshed", elapsed=0))
    bounds = [
        float(sample.labels["le"])
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "kis_retry_refresh_seconds_bucket"
    ]
    assert bounds == [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90, 180, 600, float("inf")]


@pytest.mark.parametrize("error", ["ReadTimeout", "ConnectError", "ServerDisconnectedError", "ResponseError"])
def test_prometheus_names_the_usual_errors(registry: prometheus_client.CollectorRegistry, error: str) -> None:
    PrometheusHook(registry)(RefreshEvent(name="call_retried", error=error))
    assert said_of(registry, "kis_retry_events_total", event="call_retried", source="", error=error) == 1


@every_name
def test_prometheus_counts_events_by_name(registry: prometheus_client.CollectorRegistry, name: EventName) -> None:
    hook = PrometheusHook(registry)
    for _ in range(3):
        hook(RefreshEvent(name=name))
    assert said_of(registry, "kis_retry_events_total", event=name, source="", error="") == 3


def test_prometheus_counts_by_source_and_error(registry: prometheus_client.CollectorRegistry) -> None:
    hook = PrometheusHook(registry)
    hook(RefreshEvent(name="token_adopted", source="store"))
    hook(RefreshEvent(name="token_refresh_failed", error="TokenIssueLimited"))
    said = "kis_retry_events_total"
    assert said_of(registry, said, event="token_adopted", source="store", error="") == 1
    assert said_of(registry, said, event="token_adopted", source="memory", error="") == 0
    assert said_of(registry, said, event="token_refresh_failed", source="", error="TokenIssueLimited") == 1


def test_prometheus_has_few_series_whatever_happens(registry: prometheus_client.CollectorRegistry) -> None:
    hook = PrometheusHook(registry)
    for number in range(200):
        hook(
            RefreshEvent(
                name="token_refresh_failed",
                callable=f"Batch.fetch_{number}",
                token=f"{number:08x}",
                msg_cd=f"EGW{number:05d}",
                expires_at=NOW,
                elapsed=number / 10,
                error=f"Error{number}",
            )
        )
    assert said_of(registry, "kis_retry_events_total", event="token_refresh_failed", source="", error="other") == 200
    assert said_of(registry, "kis_retry_codes_total", event="token_refresh_failed", code="other") == 200 - KNOWN_CODES
    assert sum(len(metric.samples) for metric in registry.collect()) < 90 + 2 * KNOWN_CODES
    labels = {name for metric in registry.collect() for sample in metric.samples for name in sample.labels}
    assert labels == {"event", "source", "error", "code", "le"}


@pytest.mark.parametrize("name", ["token_refreshed", "token_adopted", "token_refresh_failed"])
def test_prometheus_times_what_a_caller_waits_for(
    registry: prometheus_client.CollectorRegistry, name: EventName
) -> None:
    hook = PrometheusHook(registry)
    hook(RefreshEvent(name=name, elapsed=0.25))
    hook(RefreshEvent(name=name, elapsed=70))
    assert said_of(registry, "kis_retry_refresh_seconds_count", event=name) == 2
    assert said_of(registry, "kis_retry_refresh_seconds_sum", event=name) == 70.25
    assert said_of(registry, "kis_retry_refresh_seconds_bucket", event=name, le="60.0") == 1


@pytest.mark.parametrize("name", ["token_expired", "token_issue_waiting", "call_recovered", "call_given_up"])
def test_prometheus_times_nothing_else(registry: prometheus_client.CollectorRegistry, name: EventName) -> None:
    PrometheusHook(registry)(RefreshEvent(name=name, elapsed=1.0))
    assert said_of(registry, "kis_retry_refresh_seconds_count", event=name) is None


def test_prometheus_counts_what_kis_said_where_an_event_is_about_an_answer(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    hook = PrometheusHook(registry)
    said = "kis_retry_codes_total"
    assert said_of(registry, said, event="call_retried", code="EGW00201") == 0, "there from the start"
    for code in ("EGW00201", "egw00201", "OPSQ1002", "APBK0919", None):
        hook(RefreshEvent(name="call_retried", msg_cd=code, error=None if code else "ReadTimeout"))
    found = {
        code: said_of(registry, said, event="call_retried", code=code) for code in ("EGW00201", "OPSQ1002", "other")
    }
    assert found == {"EGW00201": 2, "OPSQ1002": 1, "other": 1}
    assert said_of(registry, "kis_retry_events_total", event="call_retried", source="", error="ReadTimeout") == 1


def test_prometheus_adds_up_what_was_waited_before_kis_was_asked_again(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    hook = PrometheusHook(registry)
    said = "kis_retry_wait_seconds_total"
    assert [said_of(registry, said, event=name) for name in ("call_retried", "token_issue_waiting")] == [0, 0]
    hook(RefreshEvent(name="call_retried", elapsed=0.25))
    hook(RefreshEvent(name="call_retried", elapsed=1))
    hook(RefreshEvent(name="call_retried", elapsed=-0.001))
    hook(RefreshEvent(name="token_issue_waiting", elapsed=60.0))
    hook(RefreshEvent(name="call_recovered", elapsed=70.0))
    assert [said_of(registry, said, event=name) for name in ("call_retried", "token_issue_waiting")] == [1.25, 60]
    assert said_of(registry, said, event="call_recovered") is None


def test_prometheus_says_no_rate_before_it_knows_one(registry: prometheus_client.CollectorRegistry) -> None:
    hook = PrometheusHook(registry)
    said = "kis_retry_rate_calls_per_second"
    assert said_of(registry, said) is None
    hook(RefreshEvent(name="rate_lowered", rate=3.5))
    assert said_of(registry, said) == 3.5
    hook(RefreshEvent(name="rate_raised", rate=5))
    assert said_of(registry, said) == 5
    hook(RefreshEvent(name="rate_raised", rate=0))
    assert said_of(registry, said) == 0


def test_the_rate_of_a_limiter_is_there_from_the_start_and_always_the_one_in_force(
    registry: prometheus_client.CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = RateLimiter(Credentials("key", "secret"), rate=12, store=MemoryTokenStore())
    PrometheusHook(registry, limiter=limiter)
    said = "kis_retry_rate_calls_per_second"
    assert said_of(registry, said) == 12
    monkeypatch.setattr(RateLimiter, "rate", 4.5)  # as another process has lowered it: no event here
    assert said_of(registry, said) == 4.5


def test_the_seconds_waited_for_slots_add_up(registry: prometheus_client.CollectorRegistry) -> None:
    limiter = RateLimiter(Credentials("key", "secret"), rate=5, store=MemoryTokenStore())
    PrometheusHook(registry, limiter=limiter)
    said = "kis_retry_slot_wait_seconds_total"
    assert limiter.acquire()
    assert said_of(registry, said) == 0
    threads = [threading.Thread(target=limiter.acquire) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said_of(registry, said) == limiter.seconds_waited > 0.6  # 0.2, 0.4 and 0.6, but for what each came later
    assert not limiter.acquire(0.01)
    asyncio.run(limiter.acquire_async())
    assert (said_of(registry, said) or 0) > 0.6


def test_prometheus_says_no_expiry_before_it_knows_one(registry: prometheus_client.CollectorRegistry) -> None:
    hook = PrometheusHook(registry)
    expiry = "kis_retry_token_expires_timestamp_seconds"
    hook(RefreshEvent(name="token_expired", token="0a1b2c3d"))
    hook(RefreshEvent(name="token_refresh_failed", previous_token="0a1b2c3d", expires_at=NOW))
    assert said_of(registry, expiry) is None
    hook(FULL)
    assert said_of(registry, expiry) == datetime(2026, 11, 24, tzinfo=timezone.utc).timestamp()
    hook(replace(FULL, name="token_adopted", expires_at=NOW))
    assert said_of(registry, expiry) == NOW.timestamp()


def test_threads_that_bring_the_first_expiry_at_once_make_one_gauge(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    hook, start, failures = PrometheusHook(registry), threading.Barrier(16), []

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
    assert said_of(registry, "kis_retry_events_total", event="token_refreshed", source="issued", error="other") is None
    found = said_of(
        registry, "kis_retry_events_total", event="token_refreshed", source="issued", error=FULL.error or ""
    )
    assert found == 16


def test_a_second_hook_in_one_registry_is_refused(registry: prometheus_client.CollectorRegistry) -> None:
    PrometheusHook(registry)
    with pytest.raises(ValueError, match="kis_retry_events"):
        PrometheusHook(registry)


def test_without_a_registry_it_is_the_default_one(
    registry: prometheus_client.CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    PrometheusHook()(RefreshEvent(name="call_recovered"))
    assert said_of(registry, "kis_retry_events_total", event="call_recovered", source="", error="") == 1


def test_prometheus_counts_the_story_of_an_expiry(
    client: KisClient, gateway: KisGateway, registry: prometheus_client.CollectorRegistry
) -> None:
    end = on_event(PrometheusHook(registry))
    expire_once(client, gateway)
    end()
    sources = dict(zip(STORY, ["", "issued", ""], strict=True))
    for name, source in sources.items():
        assert said_of(registry, "kis_retry_events_total", event=name, source=source, error="") == 1
    assert said_of(registry, "kis_retry_refresh_seconds_count", event="token_refreshed") == 1
    assert said_of(registry, "kis_retry_token_expires_timestamp_seconds") == client.tokens.token().expires


def test_prometheus_counts_a_call_that_was_turned_away_and_came_through(
    gateway: KisGateway, registry: prometheus_client.CollectorRegistry
) -> None:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore())

    @retry_on_transient_error(idempotent=True)
    def fetch() -> Any:
        headers = tokens.headers("FHKST01010100")
        return requests.get(
            f"{gateway.url}/uapi/domestic-stock/v1/quotations/inquire-price", headers=headers, timeout=5
        )

    end = on_event(PrometheusHook(registry))
    gateway.refuse_calls("EGW00201", 2)
    answer = fetch().json()
    end()
    assert answer["rt_cd"] == "0"
    assert said_of(registry, "kis_retry_codes_total", event="call_retried", code="EGW00201") == 2
    assert said_of(registry, "kis_retry_events_total", event="call_recovered", source="", error="") == 1


# -- secrets


def test_no_secret_reaches_structlog_or_prometheus(
    client: KisClient,
    gateway: KisGateway,
    registry: prometheus_client.CollectorRegistry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = [on_event(StructlogHook()), on_event(PrometheusHook(registry))]
    secrets = {client.credentials.app_key, client.credentials.app_secret, str(client.credentials.account)}
    expire_once(client, gateway)
    secrets.add(client.access_token.removeprefix("Bearer "))
    gateway.refuse_tokens()
    gateway.expire()
    assert client.fetch_domestic_price("005930")["rt_cd"] == "1"
    for end in ends:
        end()
    said = capsys.readouterr().out + prometheus_client.generate_latest(registry).decode()
    assert "kis_retry.call_given_up" in said
    assert 'event="call_given_up"' in said
    assert [secret for secret in secrets if secret in said] == []
