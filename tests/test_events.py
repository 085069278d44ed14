"""Events: what a hook is given, what the log says, and that nothing that listens harms whoever tells."""

from __future__ import annotations

import logging
import os
import signal
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time

from kis_retry import RefreshEvent, on_event
from kis_retry.events import EVENT_NAMES, EventName, emit, level_of, warn
from outcomes import FULL_EVENT as FULL

LEVELS = dict.fromkeys(EVENT_NAMES, logging.INFO) | {
    "token_refresh_failed": logging.ERROR,
    **dict.fromkeys(("token_issue_waiting", "call_given_up", "order_held_back", "rate_lowered"), logging.WARNING),
}

every_name = pytest.mark.parametrize("name", EVENT_NAMES)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="kis_retry")
    return caplog


@pytest.fixture
def subscribe() -> Iterator[Callable[[Any], None]]:
    """Subscribe hooks until the end of the test."""
    ends: list[Callable[[], None]] = []
    yield lambda hook: ends.append(on_event(hook))
    for end in ends:
        end()


# -- the event


def test_an_event_has_the_allowed_fields_and_is_frozen() -> None:
    assert " ".join(spec.name for spec in fields(RefreshEvent)) == (
        "name callable request attempt msg_cd token previous_token expires_at source elapsed wait error rate"
    )
    with pytest.raises(FrozenInstanceError):
        FULL.token = None  # type: ignore[misc]  # the mistake this is about


# -- hooks


def test_hooks_are_called_in_the_order_of_their_subscription_until_they_unsubscribe() -> None:
    heard: list[str] = []
    ends: list[Callable[[], None]] = []

    def once(_: RefreshEvent) -> None:
        heard.append("once")
        ends[0]()  # a hook may unsubscribe itself

    ends += [on_event(once), on_event(lambda _: heard.append("a")), on_event(lambda _: heard.append("b"))]
    emit(FULL)
    emit(FULL)
    assert heard == ["once", "a", "b", "a", "b"]
    for end in (*ends, *ends):
        end()
    emit(FULL)
    assert len(heard) == 5


def test_what_cannot_be_called_is_refused_when_subscribing() -> None:
    hook: Any = "hook"
    with pytest.raises(TypeError, match="not str"):
        on_event(hook)


def test_a_hook_that_is_subscribed_already_is_not_added_again() -> None:
    seen: list[RefreshEvent] = []
    ends = [on_event(seen.append) for _ in range(3)]
    emit(FULL)
    assert len(seen) == 1
    ends[2]()
    emit(FULL)
    assert len(seen) == 1


MODULE = """
def by_name(event): heard.append(("by_name", run))
by_name({0!r})
on_event(by_name)
on_event(lambda event: heard.append(("first lambda", run)))
on_event(lambda event: heard.append(("second lambda", run)))
class Notifier:
    def notify(self, event): heard.append(("method", run))
    def __call__(self, event): heard.append(("object", run))
on_event(Notifier().notify)
on_event(Notifier())
def make(number):
    def closure(event): heard.append((number, run))
    return closure
on_event(make(1))
on_event(make(2))
"""


def test_a_module_that_is_run_again_replaces_its_own_hooks() -> None:
    heard: list[tuple[Any, int]] = []
    collected: list[Callable[[], None]] = []

    def collecting(hook: Any) -> None:
        collected.append(on_event(hook))

    for run in (1, 2, 3):  # as Streamlit and %autoreload do it, the last time with a change in the first function
        module = types.ModuleType("a_page_of_streamlit")
        vars(module).update(heard=heard, run=run, on_event=collecting)
        exec(compile(MODULE.format(run == 3), "page.py", "exec"), vars(module))
        heard.clear()
        emit(FULL)
        assert sorted(str(name) for name, _ in heard) == sorted(
            ["by_name", "first lambda", "second lambda", "method", "object", "1", "2"]
        )
        assert {number for _, number in heard} == {run}
    for end in collected:
        end()


# -- what listens and raises


class Outage(BaseException):
    pass


RAISED = [LookupError, SystemExit, Outage]


@pytest.mark.parametrize("kind", RAISED)
def test_a_hook_that_raises_is_one_warning_without_its_text_and_the_others_still_hear(
    kind: type[BaseException], log: pytest.LogCaptureFixture, subscribe: Callable[[Any], None]
) -> None:
    def careless(_: RefreshEvent) -> None:
        raise kind("the-token-that-the-hook-knew")

    careless.__qualname__ = f"careless_with_{kind.__name__}"
    heard: list[RefreshEvent] = []
    subscribe(careless)
    subscribe(heard.append)
    for _ in range(3):
        emit(FULL)
    assert heard == [FULL] * 3
    (record,) = [record for record in log.records if vars(record)["kis_name"] == "hook_failed"]
    assert record.getMessage() == f"kis_retry.hook_failed hook={careless.__qualname__} error={kind.__name__}"
    assert record.levelno == logging.WARNING
    assert not any("the-token" in str(value) for value in vars(record).values())


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("where", ["handler", "filter"])
def test_a_handler_or_a_filter_of_the_log_that_raises_harms_nobody_and_is_told_once(
    kind: type[BaseException], where: str, events: list[RefreshEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    error = type(f"{kind.__name__}Of{where}", (kind,), {})

    class Telegram(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error("no network")

    def refuse(record: logging.LogRecord) -> bool:
        raise error("no network")

    logger, handler = logging.getLogger("kis_retry"), Telegram()
    if where == "handler":
        logger.addHandler(handler)
    else:
        logger.addFilter(refuse)
    try:
        for _ in range(3):
            emit(RefreshEvent(name="call_given_up", msg_cd="EGW00123"))
            warn("store_unavailable", store="x")
    finally:
        logger.removeHandler(handler)
        logger.removeFilter(refuse)
    assert len(events) == 3
    assert capsys.readouterr().err.count(f"kis_retry.log_failed error={error.__name__}\n") == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer on Windows")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError, SystemExit])
def test_what_a_signal_raises_while_a_hook_runs_goes_through(
    kind: type[BaseException], subscribe: Callable[[Any], None]
) -> None:
    def stop(*_: object) -> None:
        raise kind("the program's own time limit")

    def slow(_: RefreshEvent) -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        for _step in range(1_000):
            time.sleep(0.001)

    before = signal.signal(signal.SIGALRM, stop)
    subscribe(slow)
    try:
        with pytest.raises(kind):
            emit(FULL)
    finally:
        signal.signal(signal.SIGALRM, before)


# -- levels


@every_name
def test_the_log_names_the_event_at_its_level_or_at_one_of_its_own_which_hooks_see_too(
    log: pytest.LogCaptureFixture, events: list[RefreshEvent], name: EventName
) -> None:
    emit(RefreshEvent(name=name, error="X"))
    emit(RefreshEvent(name=name, error="X"), quiet=True)
    levels = [LEVELS[name], logging.DEBUG]
    assert [(record.name, record.levelno) for record in log.records] == [("kis_retry", level) for level in levels]
    assert {(record.msg, record.args) for record in log.records} == {(f"kis_retry.{name} error=X", ())}
    assert [level_of(event) for event in events] == levels
    assert events[0] == events[1], "what happened is the same"


@pytest.mark.parametrize(("microsecond", "level"), [(1, logging.WARNING), (0, logging.ERROR)])
def test_a_failure_while_the_token_is_good_is_never_more_than_a_warning(microsecond: int, level: int) -> None:
    expiry = datetime(2026, 11, 24, 9, 0, 0, microsecond, tzinfo=timezone(timedelta(hours=9)))
    with freeze_time("2026-11-24T00:00:00Z"):
        assert level_of(RefreshEvent(name="token_refresh_failed", expires_at=expiry)) == level


# -- the message


def test_the_message_is_the_name_and_every_field_that_is_set(log: pytest.LogCaptureFixture) -> None:
    emit(FULL)
    emit(RefreshEvent(name="rate_lowered", rate=3))
    assert log.messages == [
        (
            "kis_retry.token_refreshed callable=Batch.fetch_price"
            ' request="GET /uapi/domestic-stock/v1/quotations/inquire-price" attempt=2 msg_cd=EGW00123 token=0a1b2c3d'
            " previous_token=4e5f6a7b expires_at=2026-11-24T00:00:00+00:00 source=issued elapsed=0.003 wait=60.0"
            " error=TokenIssueError rate=18.0"
        ),
        "kis_retry.rate_lowered rate=3",
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (60.0, "60.0"),
        (12.34567, "12.346"),
        ("토큰", "토큰"),
        ("토큰 만료", '"토큰 만료"'),
        ('say"so"', '"say\\"so\\""'),
        ("", '""'),
        ("토큰\n", '"\\ud1a0\\ud070\\n"'),
        (datetime(2026, 11, 24, 9, 0, 0, 123456, tzinfo=timezone.utc), "2026-11-24T09:00:00+00:00"),
    ],
)
def test_a_value_is_one_word_in_quotes_where_it_is_more_than_that(
    log: pytest.LogCaptureFixture, value: object, said: str
) -> None:
    warn("something", value=value)
    assert log.messages == [f"kis_retry.something value={said}"]
    assert (vars(log.records[0])["kis_name"], vars(log.records[0])["kis_value"]) == ("something", value)


@pytest.mark.parametrize("event", [FULL, RefreshEvent(name="token_expired")])
def test_the_log_carries_every_field_and_nothing_else(log: pytest.LogCaptureFixture, event: RefreshEvent) -> None:
    plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    emit(event)
    extras = {name: value for name, value in vars(log.records[0]).items() if name not in plain}
    assert extras == {f"kis_{spec.name}": getattr(event, spec.name) for spec in fields(RefreshEvent)}
