"""What the night of `kis-retry demo` brings, and how what it did is counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kis_retry import KisRetryError, RefreshEvent, RetryPolicy
from kis_retry.cli import causes, night
from kis_retry.cli.batch import Failure, Tracker
from kis_retry.cli.causes import Cost, Heard
from kis_retry.cli.report import Report, kind_of
from kis_retry.events import EventName

unhurried = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def test_the_token_dies_where_that_of_the_requirement_did() -> None:
    assert night.Night(11_780, 5_000).expires_at == 11_776


@unhurried
@given(st.integers(1, 5_000_000), st.integers(1, 5_000_000))
def test_each_happening_has_its_symbol_and_no_outage_outlasts_what_is_waited_for(overseas: int, domestic: int) -> None:
    planned = night.Night(overseas, domestic)
    assert planned.expires_at in (1, overseas - 4)
    assert 1 <= planned.expires_at <= overseas
    assert 1 <= planned.away_at <= domestic
    assert 0.5 <= planned.endpoint_away <= RetryPolicy().issue_wait / 10
    assert 0.5 <= planned.away <= RetryPolicy().transient_deadline / 10


@pytest.mark.parametrize(
    ("symbols", "away", "endpoint_away"),
    [
        (400, 0.5, 0.5),
        (16_780, 0.8, 0.5),
        (25_641, 1.3, 0.6),
        (39_600, 2.0, 1.0),
        (70_000, 3.0, 1.8),
        (1_000_000, 3.0, 3.0),
    ],
)
def test_the_api_is_away_for_a_twentieth_of_the_batch_from_half_a_second_to_three_and_the_endpoint_for_half_that(
    symbols: int, away: float, endpoint_away: float
) -> None:
    planned = night.Night(symbols - 100, 100)
    assert (planned.away, planned.endpoint_away) == (away, endpoint_away)


def test_a_demo_announces_its_night_in_figures() -> None:
    assert night.Night(11_780, 5_000).announcement() == [
        "paced at 990 calls a second, 55 times KIS's 18",
        "only the pace is sped up: waits and outages take their real time",
        "5 % of the calls are refused within that limit (EGW00201)",
        "0.5 % of the connections break",
        "the token dies at US symbol 11,776, and its endpoint is away for 0.5 s",
        "the API is away for 0.8 s at domestic symbol 2,500",
    ]


def test_what_was_announced_happens() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    lines: list[str] = []
    gateway: Any = SimpleNamespace(tell=lambda name, **arguments: asked.append((name, arguments)))
    planned = night.Night(11_780, 5_000)
    planned.begin(gateway)
    assert asked == [
        ("limit_calls", {"per_second": 990}),
        ("refuse_calls", {"msg_cd": "EGW00201", "share": 0.05}),
        ("drop", {"share": 0.005}),
    ]
    asked.clear()
    happenings = planned.happenings(gateway, lines.append)
    assert list(happenings) == [11_776, 11_780 + 2_500]
    for happen in happenings.values():
        happen()
    assert lines == planned.announcement()[-2:]
    assert asked == [
        ("expire", {}),
        ("outage", {"seconds": 0.5, "where": "tokens", "status": 503}),
        ("outage", {"seconds": 0.8, "where": "calls", "status": 503}),
    ]


def test_nothing_happens_at_a_gateway_that_has_ended_and_what_else_goes_wrong_is_raised() -> None:
    fates: list[Exception] = [KisRetryError("the gateway process has ended"), ValueError("share=7 is not usable")]

    def tell(_: str, **__: object) -> None:
        raise fates[0]

    gateway: Any = SimpleNamespace(tell=tell)
    lines: list[str] = []
    happenings = night.Night(281, 119).happenings(gateway, lines.append).values()
    for happen in happenings:
        happen()
    assert len(lines) == 2, "the demo tells the rest itself"
    del fates[0]
    for happen in happenings:
        with pytest.raises(ValueError, match="share=7"):
            happen()


@pytest.mark.parametrize(
    ("overseas", "domestic", "number", "name"),
    [
        (11_780, 5_000, 1, "US symbol 1"),
        (11_780, 5_000, 11_780, "US symbol 11,780"),
        (11_780, 5_000, 11_781, "domestic symbol 1"),
        (11_780, 5_000, 16_780, "domestic symbol 5,000"),
        (1, 1, 1, "US symbol 1"),
        (1, 1, 2, "domestic symbol 1"),
    ],
)
def test_a_symbol_is_named_as_people_count(overseas: int, domestic: int, number: int, name: str) -> None:
    assert night.Night(overseas, domestic).name_of(number) == name


@pytest.mark.parametrize(
    ("overseas", "domestic", "expires_at", "away_at"),
    [(11_780, 5_000, 11_776, 2_500), (281, 119, 277, 60), (6, 3, 2, 2), (5, 2, 1, 1), (4, 2, 1, 1), (1, 1, 1, 1)],
)
def test_the_token_dies_five_before_the_end_of_the_us_symbols_and_the_api_is_away_in_the_middle_of_the_others(
    overseas: int, domestic: int, expires_at: int, away_at: int
) -> None:
    planned = night.Night(overseas, domestic)
    assert (planned.symbols, planned.expires_at, planned.away_at) == (overseas + domestic, expires_at, away_at)


def test_in_the_whole_batch_the_dice_leave_the_five_refusals_of_the_token_alone() -> None:
    dice = random.Random(night.SEED)
    thrown = [dice.random() for _ in range(11_775 + 64)]  # the gateway's, one a call; so many threads may ask at most
    assert min(thrown[11_775:]) >= night.REFUSED + night.DROPPED
    refused, dropped = (sum(low <= throw < low + share for throw in thrown[:400]) for low, share in SHARES)
    assert min(refused, dropped) >= 1, "a small batch meets them, too"


SHARES = ((0.0, night.REFUSED), (night.REFUSED, night.DROPPED))


# -- what a cause cost


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("EGW00201", "rate_limited"),
        ("EGW00123", "token_expired"),
        ("EGW00121", "token_expired"),
        ("ConnectionError", "dropped"),
        ("ResponseError", "api_away"),
        ("TokenIssueError", "token_endpoint_away"),
        ("ReadTimeout", "other"),
        ("EGW00316", "other"),
        (None, "other"),
    ],
)
def test_a_failure_has_its_cause(code: str | None, cause: str) -> None:
    assert causes.cause_of(code) == cause
    assert cause in causes.CAUSES


def test_the_gateways_counts_are_taken_apart_by_cause() -> None:
    counts = {
        "calls": 100,
        "answered": 80,
        "refused": 12,
        "token_requests": 6,
        "tokens_issued": 2,
        "token_requests_refused": 1,
    }
    met = causes.causes_met(counts, {"EGW00201": 8, "over_limit": 2, "dropped": 3, "outage": 5})
    assert met == {
        "rate_limited": 10,
        "dropped": 3,
        "token_expired": 4,
        "token_endpoint_away": 3,
        "api_away": 2,
    }


def test_a_gateway_that_met_nothing_has_counted_nothing() -> None:
    counts = {"refused": 0, "token_requests": 0, "tokens_issued": 0, "token_requests_refused": 0}
    assert causes.causes_met(counts, {}) == dict.fromkeys(
        ("rate_limited", "dropped", "token_expired", "token_endpoint_away", "api_away"), 0
    )


def costs(*heard: Heard, lost: dict[str, int] | None = None, **struck: int) -> dict[str, Cost]:
    return causes.costs_of(heard, struck, lost or {})


def test_a_call_waits_from_each_failure_to_its_next_one_or_to_its_answer() -> None:
    found = costs(
        Heard(1.0, 7, RefreshEvent(name="call_retried", msg_cd="EGW00201")),
        Heard(1.5, 8, RefreshEvent(name="call_retried", error="ConnectionError")),
        Heard(3.0, 7, RefreshEvent(name="call_retried", error="ResponseError")),
        Heard(3.5, 8, RefreshEvent(name="call_given_up")),
        Heard(4.0, 7, RefreshEvent(name="call_recovered")),
        Heard(9.0, 7, RefreshEvent(name="call_recovered")),
        rate_limited=1,
    )
    assert found["rate_limited"] == Cost(struck=1, repeated=1, seconds=2.0, longest=2.0)
    assert found["dropped"] == Cost(repeated=1, seconds=2.0, longest=2.0)
    assert found["api_away"] == Cost(repeated=1, seconds=1.0, longest=1.0)
    assert found["token_expired"] == found["other"] == Cost()


def test_calls_that_wait_side_by_side_count_each_and_the_token_endpoint_once() -> None:
    found = costs(
        Heard(1.0, 7, RefreshEvent(name="token_expired", msg_cd="EGW00123")),
        Heard(1.0, 8, RefreshEvent(name="token_expired", msg_cd="EGW00123")),
        Heard(2.0, 9, RefreshEvent(name="token_issue_waiting", elapsed=70.0)),
        Heard(4.0, 7, RefreshEvent(name="token_refreshed", source="issued")),
        Heard(4.0, 8, RefreshEvent(name="token_adopted", source="memory")),
        Heard(5.0, 7, RefreshEvent(name="call_recovered")),
        Heard(6.0, 8, RefreshEvent(name="call_recovered")),
        token_expired=2,
        token_endpoint_away=3,
    )
    assert found["token_expired"] == Cost(struck=2, repeated=2, seconds=9.0, longest=5.0)
    assert found["token_endpoint_away"] == Cost(struck=3, repeated=3, seconds=2.0, longest=2.0)


def test_a_refresh_that_failed_repeats_nothing() -> None:
    found = costs(
        Heard(1.0, 7, RefreshEvent(name="token_expired", msg_cd="EGW00123")),
        Heard(2.0, 9, RefreshEvent(name="token_issue_waiting", elapsed=70.0)),
        Heard(4.0, 7, RefreshEvent(name="token_refresh_failed")),
        Heard(4.0, 7, RefreshEvent(name="call_given_up")),
        lost={"EGW00123": 1},
        token_endpoint_away=3,
    )
    assert found["token_expired"] == Cost(seconds=3.0, longest=3.0, lost=1)
    assert found["token_endpoint_away"] == Cost(struck=3)


ENDINGS: tuple[EventName, ...] = ("token_adopted", "token_refreshed", "call_recovered", "call_given_up")
SAID: tuple[EventName, ...] = ("rate_lowered", "rate_raised", "token_refresh_failed", "token_issue_waiting")


@pytest.mark.parametrize("other", [*ENDINGS, *SAID])
def test_what_is_no_failure_of_a_call_begins_no_wait(other: EventName) -> None:
    found = costs(
        Heard(1.0, 7, RefreshEvent(name=other)),
        Heard(2.0, 7, RefreshEvent(name="call_retried", msg_cd="EGW00201")),
        Heard(5.0, 7, RefreshEvent(name="call_recovered")),
    )
    assert found.pop("rate_limited") == Cost(repeated=1, seconds=3.0, longest=3.0)
    assert set(found) == set(causes.CAUSES) - {"rate_limited"}
    assert [cost for cost in found.values() if cost != Cost()] == []


@pytest.mark.parametrize("other", SAID)
def test_what_is_said_in_between_ends_no_wait(other: EventName) -> None:
    found = costs(
        Heard(2.0, 7, RefreshEvent(name="call_retried", msg_cd="EGW00201")),
        Heard(3.0, 7, RefreshEvent(name=other)),
        Heard(5.0, 7, RefreshEvent(name="call_recovered")),
    )
    assert found.pop("rate_limited") == Cost(repeated=1, seconds=3.0, longest=3.0)
    assert [cost for cost in found.values() if cost != Cost()] == []


def test_the_token_endpoint_is_away_from_the_first_word_of_it_to_the_next_token() -> None:
    found = costs(
        Heard(1.0, 9, RefreshEvent(name="token_refreshed", source="issued")),
        Heard(2.0, 7, RefreshEvent(name="call_retried", msg_cd="EGW00201")),
        Heard(4.0, 7, RefreshEvent(name="call_recovered")),
        Heard(5.0, 9, RefreshEvent(name="token_issue_waiting")),
        Heard(6.0, 9, RefreshEvent(name="token_issue_waiting")),
        Heard(8.0, 9, RefreshEvent(name="token_refreshed", source="issued")),
        Heard(9.0, 9, RefreshEvent(name="token_refreshed", source="issued")),
        Heard(10.0, 9, RefreshEvent(name="token_issue_waiting")),
        Heard(11.0, 9, RefreshEvent(name="token_refreshed", source="issued")),
        token_endpoint_away=3,
    )
    assert found["token_endpoint_away"] == Cost(struck=3, repeated=3, seconds=4.0, longest=3.0)
    assert found["token_expired"] == Cost()


def test_lost_symbols_are_counted_by_their_cause() -> None:
    found = costs(lost={"EGW00201": 4, "ReadTimeout": 1, "EGW00316": 2})
    assert (found["rate_limited"].lost, found["other"].lost) == (4, 3)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (RefreshEvent(name="call_retried", msg_cd="EGW00201", attempt=2), ("call_retried", "EGW00201")),
        (RefreshEvent(name="call_retried", error="ReadTimeout"), ("call_retried", "ReadTimeout")),
        (RefreshEvent(name="call_retried", msg_cd="EGW00201", error="HTTPError"), ("call_retried", "EGW00201")),
        (RefreshEvent(name="call_recovered", attempt=2), ("call_recovered", "")),
        (RefreshEvent(name="token_refreshed"), None),
    ],
)
def test_events_are_alike_by_name_and_cause_and_a_new_token_is_always_shown(
    event: RefreshEvent, kind: tuple[str, str] | None
) -> None:
    assert kind_of(event) == kind


# -- what is reported


def reported(*outcomes: str | None, heard: Sequence[Heard] = ()) -> Report:
    """Of a batch of US symbols that went so; None is an answer."""
    tracker = Tracker()
    for number, code in enumerate(outcomes, start=1):
        tracker.record(number, None if code is None else Failure(code, f"{code} said so"))
    counts = dict.fromkeys(("calls", "refused", "token_requests", "tokens_issued", "token_requests_refused"), 0)
    return Report(night.Night(len(outcomes) - 1, 1), tracker, heard, counts, {})


@pytest.mark.parametrize(
    ("code", "name", "title"),
    [
        ("EGW00201", "rate_limited", "refused, EGW00201"),
        ("ResponseError", "api_away", "API away, HTTP 503"),
        ("ReadTimeout", "other", "anything else"),
    ],
)
def test_a_batch_that_gave_up_says_where_and_of_what(code: str, name: str, title: str) -> None:
    report = reported(None, *[code] * 5, None)
    document = report.document(protected=False, threads=1, seconds=1.0)
    assert (document["ended_by"], document["aborted_at"], document["answered"]) == (name, 6, 2)
    assert document["result"] == (
        f"aborted at US symbol 6 after 5 identical failures in a row, 2 of 7 symbols; cause: {title} ({code} said so)"
    )
    assert [row[0] for row in report.causes() if row[-1] == "5"] == [title]


@pytest.mark.parametrize("events", [[], [Heard(1.0, 7, RefreshEvent(name="call_retried", error="ReadTimeout"))]])
def test_what_is_no_cause_of_the_night_has_a_row_only_where_it_struck(events: list[Heard]) -> None:
    titles = [row[0] for row in reported(None, "EGW00201", heard=events).causes()]
    assert titles == [title for name, title in causes.CAUSES.items() if name != "other" or events]


@pytest.mark.parametrize("asked", [0, 2, 7])
def test_what_was_never_asked_for_is_neither_answered_nor_lost(asked: int) -> None:
    tracker = Tracker()
    for number in range(1, asked + 1):
        tracker.record(number, None)
    counts = dict.fromkeys(("calls", "refused", "token_requests", "tokens_issued", "token_requests_refused"), 0)
    outcome = dict(Report(night.Night(5, 2), tracker, [], counts, {}).outcome(1.0))
    assert (outcome["answered"], outcome["lost"]) == (str(asked), "0")
    assert outcome["never asked for"] == {0: "7", 2: "5", 7: "0"}[asked]


def test_a_batch_that_lost_a_symbol_and_did_not_give_up_is_incomplete() -> None:
    document = reported(None, "ReadTimeout", None).document(protected=True, threads=1, seconds=1.0)
    assert (document["ended_by"], document["result"]) == (None, "incomplete, 2 of 3 symbols: ReadTimeout said so")
    assert (document["aborted"], document["aborted_at"], document["over_limit"]) == (False, None, 0)
