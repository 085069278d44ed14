"""What `kis-retry demo` shows at its end, and of each event on the way: the figures and the words."""

from __future__ import annotations

import queue
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from kis_retry import RefreshEvent
from kis_retry.cli import demo, night
from kis_retry.cli.batch import Failure, Tracker
from kis_retry.cli.causes import Heard
from kis_retry.cli.output import Progress
from kis_retry.cli.report import CAUSE_COLUMNS, Report, description, kind_of

EXPIRES = datetime(2026, 11, 24, tzinfo=timezone.utc)
HEARD = [
    Heard(1.0, 7, RefreshEvent(name="call_retried", msg_cd="EGW00201")),
    Heard(2.12345, 7, RefreshEvent(name="call_recovered")),
    Heard(3.0, 8, RefreshEvent(name="call_retried", msg_cd="EGW00201")),
    Heard(3.5, 8, RefreshEvent(name="call_recovered")),
    Heard(4.0, 8, RefreshEvent(name="token_refreshed", token="0123abcd", expires_at=EXPIRES)),
]
COUNTS = {
    "calls": 3_456,
    "answered": 1_999,
    "refused": 1_000,
    "token_requests": 1_004,
    "tokens_issued": 1_002,
    "token_requests_refused": 0,
}
FAULTS = {"EGW00201": 996, "over_limit": 1_001, "dropped": 5, "outage": 9}


@pytest.fixture
def report() -> Report:
    """Of a batch of 3,000 that was interrupted after 2,002, of which it lost 3."""
    tracker = Tracker()
    for number in range(1, 2_003):
        tracker.record(number, Failure("ReadTimeout", "ReadTimeout") if number > 1_999 else None)
    return Report(night.Night(2_500, 500), tracker, HEARD, COUNTS, FAULTS)


def test_each_cause_has_its_figures_under_the_headings(report: Report) -> None:
    assert CAUSE_COLUMNS == ("cause", "struck", "repeated", "waited", "lost")
    assert report.causes() == [
        ("refused, EGW00201", "1,997", "2", "1.6 s", "0"),
        ("connection dropped", "5", "0", "0.0 s", "0"),
        ("token expired", "4", "0", "0.0 s", "0"),
        ("token endpoint away", "2", "0", "0.0 s", "0"),
        ("API away, HTTP 503", "7", "0", "0.0 s", "0"),
        ("anything else", "0", "0", "0.0 s", "3"),
    ]


def test_the_outcome_says_what_became_of_every_symbol_and_what_it_took(report: Report) -> None:
    assert report.outcome(1_234.567) == [
        ("symbols", "3,000"),
        ("answered", "1,999"),
        ("lost", "3"),
        ("never asked for", "998"),
        ("requests", "3,456"),
        ("past the limit", "1,001"),
        ("token requests", "1,004"),
        ("tokens issued", "1,002"),
        ("seconds", "1,234.57"),
        ("result", "incomplete, 1,999 of 3,000 symbols: ReadTimeout"),
    ]


def test_programs_get_the_same_figures(report: Report) -> None:
    document = report.document(protected=True, threads=4, seconds=1_234.567)
    shown = {name.replace(" ", "_"): value.replace(",", "") for name, value in report.outcome(1_234.567)[:-1]}
    names = {"lost": "failed", "requests": "calls", "past_the_limit": "over_limit"}
    for name, value in shown.items():
        if name != "never_asked_for":
            assert str(document[names.get(name, name)]) == value, name
    assert (document["processed"], document["refused"], document["us"], document["domestic"]) == (
        2_002,
        1_000,
        2_500,
        500,
    )
    assert (document["pace"], document["fast_forward"]) == (990, 55)
    assert document["causes"]["rate_limited"] == {
        "struck": 1_997,
        "repeated": 2,
        "seconds": 1.623,
        "longest": 1.123,
        "lost": 0,
    }
    assert document["causes"]["dropped"] == {"struck": 5, "repeated": 0, "seconds": 0, "longest": 0, "lost": 0}


def test_programs_get_every_event_with_what_it_says(report: Report) -> None:
    events = report.document(protected=True, threads=4, seconds=1.0)["events"]
    assert len(events) == len(HEARD)
    assert events[0] == {"name": "call_retried", "msg_cd": "EGW00201"}
    assert events[-1] == {"name": "token_refreshed", "token": "0123abcd", "expires_at": "2026-11-24T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            RefreshEvent(name="call_retried", callable="fetch", error="ConnectionError", elapsed=0.0625, attempt=2),
            "call_retried: fetch, 0.062 s, ConnectionError",
        ),
        (
            RefreshEvent(
                name="token_refreshed",
                callable="fetch",
                msg_cd="EGW00123",
                token="0123abcd",
                previous_token="4567cdef",
                expires_at=EXPIRES,
                source="issued",
                elapsed=0.0,
            ),
            "token_refreshed: fetch, EGW00123, token 0123abcd, in place of 4567cdef, issued, 0.000 s",
        ),
        (RefreshEvent(name="rate_lowered", rate=2.5), "rate_lowered: 2.5 calls a second"),
    ],
)
def test_an_event_is_shown_in_a_line(event: RefreshEvent, line: str) -> None:
    assert description(event) == line


@pytest.mark.parametrize(
    "name", ["token_refreshed", "token_refresh_failed", "token_issue_waiting", "rate_lowered", "rate_raised"]
)
def test_what_is_rare_is_always_shown(name: Any) -> None:
    assert kind_of(RefreshEvent(name=name)) is None


def test_of_many_events_of_a_kind_the_first_is_shown_and_of_rare_ones_each() -> None:
    lines: list[str] = []
    news: queue.SimpleQueue[Heard | str] = queue.SimpleQueue()
    for _ in range(2):
        news.put(Heard(1.0, 7, RefreshEvent(name="token_refreshed", token="0123abcd")))
        news.put(Heard(1.0, 7, RefreshEvent(name="call_retried", msg_cd="EGW00201")))
        news.put("the API is away")

    class Shown(Progress):
        def tell(self, text: str) -> None:
            lines.append(text)

    over: Any = SimpleNamespace(
        start=lambda: None, wait=lambda _: True, stop=lambda _: None, tracker=SimpleNamespace(processed=1)
    )
    sound: Any = SimpleNamespace(check=lambda: None)
    assert len(demo._run(over, sound, news, Shown(1))) == 4, "all are counted"
    assert lines == [
        "token_refreshed: token 0123abcd",
        "call_retried: EGW00201",
        "the API is away",
        "token_refreshed: token 0123abcd",
        "the API is away",
    ]
