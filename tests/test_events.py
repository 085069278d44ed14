"""Events: what a hook is given, what the log says, and that neither harms a call."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import typing
from dataclasses import FrozenInstanceError, fields
from datetime import datetime, timezone
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from kis_retry import KisClient, RefreshEvent, on_event
from kis_retry.events import EVENT_NAMES, EventName, emit, level_of, warn
from kis_retry.testing import KisGateway

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
LEVELS = {
    "token_expired": logging.INFO,
    "token_refreshed": logging.INFO,
    "token_adopted": logging.INFO,
    "token_refresh_failed": logging.ERROR,
    "token_issue_waiting": logging.WARNING,
    "call_retried": logging.INFO,
    "call_recovered": logging.INFO,
    "call_given_up": logging.WARNING,
    "rate_lowered": logging.WARNING,
    "rate_raised": logging.INFO,
}

FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^ ]+)')
"""A field of a message: a word, or a text in quotes."""

every_name = pytest.mark.parametrize("name", EVENT_NAMES)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="kis_retry")
    return caplog


# -- the event


def test_the_names_are_those_of_the_type() -> None:
    assert typing.get_args(EventName) == EVENT_NAMES
    assert set(LEVELS) == set(EVENT_NAMES)


def test_an_event_has_the_allowed_fields_and_no_other() -> None:
    assert [spec.name for spec in fields(RefreshEvent)] == [
        "name",
        "callable",
        "attempt",
        "msg_cd",
        "token",
        "previous_token",
        "expires_at",
        "source",
        "elapsed",
        "error",
        "rate",
    ]


@pytest.mark.parametrize("field", [spec.name for spec in fields(RefreshEvent)])
def test_an_event_is_frozen(field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(FULL, field, None)


def test_an_event_takes_its_fields_by_name_alone() -> None:
    with pytest.raises(TypeError):
        RefreshEvent("token_expired")  # type: ignore[call-arg]  # the mistake this is about


# -- hooks


def test_a_hook_is_given_every_event_until_it_unsubscribes(events: list[RefreshEvent]) -> None:
    seen: list[RefreshEvent] = []
    unsubscribe = on_event(seen.append)
    emit(FULL)
    unsubscribe()
    emit(FULL)
    assert seen == [FULL]
    assert seen[0] is FULL
    assert len(events) == 2


def test_unsubscribing_twice_is_unsubscribing_once() -> None:
    seen: list[RefreshEvent] = []
    first, second = on_event(seen.append), on_event(seen.append)
    emit(FULL)
    assert len(seen) == 2
    first()
    first()
    emit(FULL)
    assert len(seen) == 3
    second()
    emit(FULL)
    assert len(seen) == 3


def test_hooks_are_called_in_the_order_of_their_subscription() -> None:
    order: list[str] = []
    ends = [on_event(lambda _, name=name: order.append(name)) for name in "abc"]  # type: ignore[misc]  # a default binds it
    emit(FULL)
    for end in ends:
        end()
    assert order == ["a", "b", "c"]


def test_a_hook_may_unsubscribe_itself_and_the_others_still_hear() -> None:
    heard: list[str] = []

    def once(_: RefreshEvent) -> None:
        heard.append("once")
        end_once()

    end_once = on_event(once)
    end_always = on_event(lambda _: heard.append("always"))
    emit(FULL)
    emit(FULL)
    end_always()
    assert heard == ["once", "always", "always"]


@pytest.mark.parametrize("hook", [None, "hook", 1, []])
def test_what_cannot_be_called_is_refused_when_subscribing(hook: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(hook).__name__}"):
        on_event(hook)


def test_a_hook_that_raises_is_logged_without_its_text_and_the_others_still_hear(
    log: pytest.LogCaptureFixture,
) -> None:
    def careless(_: RefreshEvent) -> None:
        raise LookupError("the-token-that-the-hook-knew")

    heard: list[RefreshEvent] = []
    ends = [on_event(careless), on_event(heard.append)]
    emit(FULL)
    for end in ends:
        end()
    assert heard == [FULL]
    (record,) = [record for record in log.records if vars(record)["kis_name"] == "hook_failed"]
    assert record.levelno == logging.WARNING
    said = vars(record)
    assert said["kis_hook"].endswith("careless")
    assert (said["kis_event"], said["kis_error"]) == ("token_refreshed", "LookupError")
    assert (
        record.getMessage() == f"kis_retry.hook_failed hook={said['kis_hook']} event=token_refreshed error=LookupError"
    )
    assert record.exc_info is None
    assert not any("the-token-that-the-hook-knew" in str(value) for value in said.values())


def test_a_hook_that_is_an_object_is_named_by_its_type(log: pytest.LogCaptureFixture) -> None:
    class Counter:
        def __call__(self, _: RefreshEvent) -> None:
            raise ValueError

    end = on_event(Counter())
    emit(FULL)
    end()
    assert vars(log.records[-1])["kis_hook"].endswith("Counter")


def test_a_hook_that_raises_does_not_harm_the_call(client: KisClient, gateway: KisGateway) -> None:
    def careless(event: RefreshEvent) -> None:
        called.append(event.name)
        raise RuntimeError

    called: list[str] = []
    end = on_event(careless)
    client.fetch_domestic_price("005930")
    gateway.expire()
    answer = client.fetch_domestic_price("005930")
    end()
    assert answer["rt_cd"] == "0"
    assert called == ["token_expired", "token_refreshed", "call_recovered"]


# -- the log


@every_name
def test_the_log_names_the_event_at_its_level(log: pytest.LogCaptureFixture, name: EventName) -> None:
    emit(RefreshEvent(name=name))
    (record,) = log.records
    assert (record.name, record.levelno) == ("kis_retry", LEVELS[name])
    assert (record.msg, record.args) == (f"kis_retry.{name}", ())


@every_name
def test_an_early_renewal_that_failed_is_never_more_than_a_warning(
    log: pytest.LogCaptureFixture, name: EventName
) -> None:
    emit(RefreshEvent(name=name, expires_at=datetime(2199, 1, 1, tzinfo=timezone.utc)))
    assert log.records[0].levelno == min(LEVELS[name], logging.WARNING)


@every_name
def test_a_failure_while_the_token_is_good_is_never_more_than_a_warning(name: EventName) -> None:
    good, over = datetime(2999, 1, 1, tzinfo=timezone.utc), datetime(1999, 1, 1, tzinfo=timezone.utc)
    assert level_of(RefreshEvent(name=name, expires_at=good)) == min(LEVELS[name], logging.WARNING)
    assert level_of(RefreshEvent(name=name, expires_at=over)) == LEVELS[name]
    assert level_of(RefreshEvent(name=name)) == LEVELS[name]


def test_the_message_is_the_name_and_every_field_that_is_set(log: pytest.LogCaptureFixture) -> None:
    emit(FULL)
    emit(RefreshEvent(name="rate_lowered", rate=3))
    assert [record.getMessage() for record in log.records] == [
        (
            "kis_retry.token_refreshed callable=Batch.fetch_price attempt=2 msg_cd=EGW00123 token=0a1b2c3d"
            " previous_token=4e5f6a7b expires_at=2026-11-24T00:00:00+00:00 source=issued elapsed=0.25"
            " error=TokenIssueError rate=18.0"
        ),
        "kis_retry.rate_lowered rate=3",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(60.0, "60.0"), (0.25, "0.25"), (0.0004, "0.0"), (12.34567, "12.346"), (0, "0")]
)
def test_seconds_are_said_to_the_millisecond(log: pytest.LogCaptureFixture, seconds: float, said: str) -> None:
    emit(RefreshEvent(name="token_issue_waiting", elapsed=seconds))
    assert log.records[0].getMessage() == f"kis_retry.token_issue_waiting elapsed={said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("EGW00123", "EGW00123"),
        ("토큰", "토큰"),
        ("토큰 만료", '"토큰 만료"'),
        ("a b", '"a b"'),
        ('say"so"', '"say\\"so\\""'),
        ("", '""'),
        ("a\nb", '"a\\nb"'),
        ("토큰\n", '"\\ud1a0\\ud070\\n"'),
        ("\u2028", '"\\u2028"'),
        (True, "True"),
        (datetime(2026, 11, 24, 9, 0, 0, 123456, tzinfo=timezone.utc), "2026-11-24T09:00:00+00:00"),
    ],
)
def test_a_text_is_quoted_where_it_is_more_than_a_word_and_escaped_where_it_cannot_be_shown(
    log: pytest.LogCaptureFixture, text: object, said: str
) -> None:
    warn("something", text=text)
    assert log.messages == [f"kis_retry.something text={said}"]


@pytest.mark.parametrize(
    ("expires_at", "level"),
    [
        ("2026-11-24T09:00:00.000001+09:00", logging.WARNING),
        ("2026-11-24T09:00:00+09:00", logging.ERROR),
        ("2026-11-24T08:59:59.999999+09:00", logging.ERROR),
        ("2026-11-24T00:00:01+00:00", logging.WARNING),
    ],
)
def test_a_token_is_good_up_to_the_instant_of_its_expiry(expires_at: str, level: int) -> None:
    with freeze_time("2026-11-24T00:00:00Z"):
        failed = RefreshEvent(name="token_refresh_failed", expires_at=datetime.fromisoformat(expires_at))
        assert level_of(failed) == level


@pytest.mark.one_python
def test_a_log_set_up_with_basic_config_tells_the_story_of_an_expiry() -> None:
    script = """
import logging
from kis_retry import KisClient, MemoryTokenStore, TokenManager
from kis_retry.testing import KisGateway

logging.basicConfig(level=logging.INFO)
with KisGateway() as gateway:
    client = KisClient(tokens=TokenManager(gateway.credentials, store=MemoryTokenStore()))
    client.fetch_domestic_price("005930")
    gateway.expire()
    client.fetch_domestic_price("005930")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("INFO:kis_retry:")]
    expired, refreshed, recovered = (dict(FIELD.findall(line)) for line in lines)
    assert [line.split()[0] for line in lines] == [
        "INFO:kis_retry:kis_retry.token_expired",
        "INFO:kis_retry:kis_retry.token_refreshed",
        "INFO:kis_retry:kis_retry.call_recovered",
    ]
    assert {story["callable"] for story in (expired, refreshed, recovered)} == {"KisClient.fetch_domestic_price"}
    assert (expired["msg_cd"], expired["attempt"], recovered["attempt"]) == ("EGW00123", "1", "2")
    assert expired["token"] == refreshed["previous_token"] != refreshed["token"]
    assert refreshed["source"] == "issued"
    assert datetime.fromisoformat(refreshed["expires_at"]).tzinfo is not None
    assert float(refreshed["elapsed"]) < 60


def test_a_warning_that_is_no_event_has_the_shape_of_one(log: pytest.LogCaptureFixture) -> None:
    warn("store_unavailable", store="FileTokenStore('/a')", operation="load", error=None)
    (record,) = log.records
    assert (record.name, record.levelno) == ("kis_retry", logging.WARNING)
    assert record.getMessage() == "kis_retry.store_unavailable store=FileTokenStore('/a') operation=load"
    said = {name: value for name, value in vars(record).items() if name.startswith("kis_")}
    assert said == {
        "kis_name": "store_unavailable",
        "kis_store": "FileTokenStore('/a')",
        "kis_operation": "load",
        "kis_error": None,
    }


@settings(max_examples=200, deadline=None, database=None)
@given(first=st.text(), second=st.text())
def test_whatever_a_field_holds_a_message_is_one_line_and_can_be_taken_apart(first: str, second: str) -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]  # a handler of one line
    logger = logging.getLogger("kis_retry")
    logger.addHandler(handler)
    try:
        warn("something", first=first, second=second)
    finally:
        logger.removeHandler(handler)
    (message,) = heard
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    found = {key: json.loads(text) if text.startswith('"') else text for key, text in FIELD.findall(message)}
    assert found == {"first": first, "second": second}


@pytest.mark.parametrize("event", [FULL, RefreshEvent(name="call_given_up")])
def test_the_log_carries_every_field_and_nothing_else(log: pytest.LogCaptureFixture, event: RefreshEvent) -> None:
    plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    emit(event)
    extras = {name: value for name, value in vars(log.records[0]).items() if name not in plain}
    assert extras == {f"kis_{spec.name}": getattr(event, spec.name) for spec in fields(RefreshEvent)}


def test_a_logger_that_is_off_says_nothing_and_hooks_still_hear(
    caplog: pytest.LogCaptureFixture, events: list[RefreshEvent]
) -> None:
    caplog.set_level(logging.ERROR, logger="kis_retry")
    emit(FULL)
    emit(RefreshEvent(name="call_given_up"))
    assert caplog.records == []
    assert [event.name for event in events] == ["token_refreshed", "call_given_up"]
