"""The dashboard and the alert rules ask for metrics, labels and values that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from kis_retry import Credentials, MemoryTokenStore, RateLimiter, RefreshEvent
from kis_retry.events import EVENT_NAMES, EventName
from kis_retry.instrumentation import PrometheusHook

yaml: Any = import_module("yaml")  # comes with `responses`; its types do not

FOLDER = Path(__file__).parents[2] / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "kis_retry.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
TARGETS = {"job", "instance"}
"""Labels that Prometheus gives to what it scrapes."""


def exposed() -> dict[str, dict[str, set[str]]]:
    """Every series that the hook exposes once everything has happened: the labels of each, and their values."""
    registry = prometheus_client.CollectorRegistry()
    hook = PrometheusHook(registry, limiter=RateLimiter(Credentials("k", "s"), rate=18, store=MemoryTokenStore()))
    for name in EVENT_NAMES:
        hook(RefreshEvent(name=name, msg_cd="EGW00201", elapsed=1.0))
    hook(RefreshEvent(name="token_refreshed", source="issued", token="0a1b2c3d", expires_at=datetime.now(timezone.utc)))
    found: dict[str, dict[str, set[str]]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


SERIES = exposed()
SELECTOR = re.compile(r"(kis_retry_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\bby \(([^)]*)\)")


def panels() -> Iterator[tuple[str, str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


EXPRESSIONS = [*((title, expr) for title, expr, _ in panels()), *((rule["alert"], rule["expr"]) for rule in RULES)]
every_expression = pytest.mark.parametrize(("title", "expr"), EXPRESSIONS)


@every_expression
def test_an_expression_selects_series_that_there_are_by_labels_and_values_that_they_have(title: str, expr: str) -> None:
    selectors = SELECTOR.findall(expr)
    assert selectors
    for name, matchers in selectors:
        assert name in SERIES
        for label, operator, value in MATCHER.findall(matchers):
            assert label in SERIES[name].keys() | TARGETS
            if label == "event":
                assert operator in ("=", "=~")
                assert set(value.split("|")) <= set(EVENT_NAMES)
                assert set(value.split("|")) <= SERIES[name][label]
        assert len(MATCHER.findall(matchers)) == matchers.count("="), "all were understood"


@every_expression
def test_an_expression_groups_by_labels_that_there_are_and_is_closed(title: str, expr: str) -> None:
    for name, _ in SELECTOR.findall(expr):
        labels = {label for group in GROUPED.findall(expr) for label in group.replace(" ", "").split(",")}
        assert labels <= SERIES[name].keys() | TARGETS
    for opened, closed in ("()", "{}", "[]"):
        assert expr.count(opened) == expr.count(closed)


@every_expression
def test_a_counter_is_asked_for_its_growth_and_a_gauge_for_its_value(title: str, expr: str) -> None:
    for match in SELECTOR.finditer(expr):
        grows = match[1].endswith(("_total", "_bucket"))
        before = expr[: match.start()].rstrip("(").split("(")[-1].split()[-1:]
        assert (before in (["rate"], ["increase"])) is grows
        assert expr[match.end() :].startswith("[") is grows


def test_every_metric_of_the_hook_is_on_the_dashboard() -> None:
    shown = {name.removesuffix("_bucket") for _, expr, _ in panels() for name, _ in SELECTOR.findall(expr)}
    made = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in SERIES}
    made = {name for name in made if f"{name}_total" not in SERIES}  # a counter's _created has its bare name
    assert shown == made


def test_a_legend_names_labels_that_the_expression_leaves() -> None:
    for title, expr, legend in panels():
        grouped = {label for group in GROUPED.findall(expr) for label in group.replace(" ", "").split(",")}
        kept = grouped if re.search(r"\b(sum|min|max)\b", expr) else TARGETS
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, title


def test_panels_have_numbers_of_their_own_and_do_not_lie_on_each_other() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_is_bound_to_no_server_and_uses_the_variables_that_it_has() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert {name for name in used if not name.startswith("__")} == variables
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert "id" not in DASHBOARD


def test_there_are_alerts_for_a_refresh_that_failed_and_for_calls_that_were_given_up() -> None:
    events = {rule["alert"]: re.findall(r'event="(\w+)"', rule["expr"]) for rule in RULES}
    assert events["KisTokenRefreshFailed"] == ["token_refresh_failed"]
    assert events["KisCallsGivenUp"] == ["call_given_up"]
    wanted: set[EventName] = {"token_refresh_failed", "call_given_up"}
    for name in wanted:
        assert SERIES["kis_retry_events_total"]["event"] >= {name}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do_and_names_labels_that_it_has(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    grouped = {label for group in GROUPED.findall(rule["expr"]) for label in group.replace(" ", "").split(",")}
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= grouped
        for name, _ in SELECTOR.findall(text):
            assert name in SERIES


def test_the_series_that_the_alerts_count_are_there_before_anything_has_happened() -> None:
    registry = prometheus_client.CollectorRegistry()
    PrometheusHook(registry)
    (metric,) = [metric for metric in registry.collect() if metric.name == "kis_retry_events"]
    there = {sample.labels["event"] for sample in metric.samples}
    for rule in RULES:
        assert set(re.findall(r'event="(\w+)"', rule["expr"])) <= there
