"""The dashboard and the alert rules ask for metrics, labels and values that there are."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from kis_retry import Credentials, MemoryTokenStore, RateLimiter, RefreshEvent
from kis_retry.events import EVENT_NAMES
from kis_retry.instrumentation import PrometheusHook

yaml: Any = import_module("yaml")  # comes with `responses`; its types do not

FOLDER = Path(__file__).parents[2] / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "kis_retry.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
TARGETS = {"job", "instance"}  # labels that Prometheus gives to what it scrapes


def exposed() -> dict[str, set[str]]:
    """Return every series that the hook exposes once everything has happened, with its labels."""
    registry = prometheus_client.CollectorRegistry()
    hook = PrometheusHook(registry, limiter=RateLimiter(Credentials("k", "s"), rate=18, store=MemoryTokenStore()))
    for name in EVENT_NAMES:
        hook(RefreshEvent(name=name, msg_cd="EGW00201", elapsed=1.0, wait=1.0))
    hook(RefreshEvent(name="token_refreshed", source="issued", token="0a1b2c3d", expires_at=datetime.now(timezone.utc)))
    return {sample.name: set(sample.labels) for metric in registry.collect() for sample in metric.samples}


SERIES = exposed()
SELECTOR = re.compile(r"(kis_retry_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!=|!~|=)\s*"([^"]*)"')
SHOWN = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = SHOWN + [rule["expr"] for rule in RULES]


def grouped(expr: str) -> set[str]:
    """Return the labels that an expression groups by."""
    return {label for group in re.findall(r"\bby \(([^)]*)\)", expr) for label in group.replace(" ", "").split(",")}


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_an_expression_asks_for_series_labels_and_events_that_there_are(expr: str) -> None:
    assert SELECTOR.search(expr)
    for match in SELECTOR.finditer(expr):
        labels = SERIES[match[1]]
        assert grouped(expr) <= labels | TARGETS
        for label, value in MATCHER.findall(match[2] or ""):
            assert label in labels | TARGETS
            assert label != "event" or set(value.split("|")) <= set(EVENT_NAMES)
        grows = match[1].endswith(("_total", "_bucket"))  # a counter is asked for its growth, a gauge for its value
        assert grows is bool(re.search(r"\b(rate|increase)\($", expr[: match.start()]))
        assert grows is expr[match.end() :].startswith("[")


def test_the_dashboard_shows_every_metric_of_the_hook() -> None:
    shown = {match[1].removesuffix("_bucket") for expr in SHOWN for match in SELECTOR.finditer(expr)}
    made = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in SERIES}
    assert shown == {name for name in made if f"{name}_total" not in SERIES}  # a counter's _created has its bare name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_names_labels_that_it_has(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= grouped(rule["expr"])
        assert {match[1] for match in SELECTOR.finditer(text)} <= SERIES.keys()
