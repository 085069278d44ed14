"""How a refresh gets its token: from the store or from KIS, for how long, and what a cool-down leaves to be tried."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock, tokens_on
from kis_retry import AccessToken, RetryPolicy, TokenIssueError, TokenIssueLimited
from kis_retry.stores.entry import StoreEntry
from kis_retry.tokens import request as tokens_request
from kis_retry.tokens.adoption import TokenAdoption
from kis_retry.tokens.freshness import CachedToken
from kis_retry.tokens.memory import TokenMemory
from kis_retry.tokens.request import TokenRequest
from kis_retry.tokens.single_flight import Flight
from patience import PATIENCE
from refreshes import Notebook, Scripted, copied, token_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kis_retry import RefreshEvent
    from kis_retry.tokens.source import Replacement

NOW, NEW = 1_500.0, token_until(9_000, "new")
AWAY = TokenIssueError("the endpoint is away", retryable=True)
WRONG = TokenIssueError("a wrong secret", code="EGW00105")
LIMITED = TokenIssueLimited("once a minute", code="EGW00133", retryable=True)


@pytest.fixture(autouse=True)
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock(NOW)) as clock:
        yield clock


class Asking:
    """A `TokenRequest` and what it is made of; `outcomes` are what KIS answers, one after the other."""

    def __init__(self, clock: FakeClock, *outcomes: AccessToken | Exception, **policy: Any) -> None:
        self.policy = RetryPolicy(**{"issue_timeout": 7, "refresh_margin": 100, **policy})
        self.store, self.issuer, self.memory = Notebook(), Scripted(*outcomes), TokenMemory()
        entry = StoreEntry(self.store, "key")
        adoption = TokenAdoption(self.memory, lambda: entry, lambda: self.policy, self.issuer)
        self.slept: list[float] = []
        self._clock = clock
        self.request = TokenRequest(self.memory, adoption, self.issuer, lambda: self.policy, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._clock.pass_by(seconds)

    def replace(self, rejected: str | None = None, seconds: float = 70) -> Replacement:
        return self.request.replace(rejected, seconds)

    def failed(self, rejected: str | None = None, seconds: float = 70) -> TokenIssueError:
        with pytest.raises(TokenIssueError) as caught:
            self.replace(rejected, seconds)
        return caught.value


# --- one request


@pytest.mark.parametrize(
    ("issue_timeout", "left", "asked_for"),
    [(7, float("inf"), 7), (7, 7.5, 7), (7, 3, 3), (7, 0.6, 0.6), (7, 0.2, 0.5), (7, 0, 0.5), (0.3, 0.1, 0.3)],
)
def test_a_request_takes_what_is_left_and_half_a_second_at_least_but_never_more_than_issue_timeout(
    issue_timeout: float, left: float, asked_for: float, clock: FakeClock
) -> None:
    asking = Asking(clock, NEW, issue_timeout=issue_timeout)
    assert asking.request.issue(None, left) == (NEW, "issued")
    assert asking.issuer.timeouts == [asked_for]


def test_what_kis_issued_is_kept_shared_and_known_as_new(clock: FakeClock) -> None:
    asking = Asking(clock, NEW)
    assert asking.replace() == (NEW, "issued")
    assert asking.memory.cached == CachedToken(NEW, 8_900, 9_000)
    assert asking.memory.is_new("new", NOW)
    assert asking.store.saved == [NEW]
    dead = token_until(NOW - 1, "dead-on-arrival")
    asking.issuer.outcomes.append(dead)
    asking.request.issue(None, 7)
    assert asking.memory.current_unless(None) == dead, "this clock is wrong"


@pytest.mark.parametrize(
    ("again", "rejected", "seconds", "final"),
    [
        (True, "same", 0, True),
        (True, "same", 59.75, True),
        (True, "same", 60, False),
        (True, "same", 61, False),
        (True, "a-lesser-value", 0, False),
        (True, "x-greater-value", 0, False),
        (True, None, 0, False),
        (False, "same", 0, False),
    ],
)
def test_within_the_minute_in_which_kis_handed_the_refused_token_out_again_waiting_is_in_vain(
    *, again: bool, rejected: str | None, seconds: float, final: bool, clock: FakeClock
) -> None:
    asking = Asking(clock, LIMITED)
    if again:
        asking.memory.keep(token_until(9_000, "same"), margin=0, issued=True)
    asking.memory.note_issued(token_until(9_000, "same"))
    clock.now += seconds
    with pytest.raises(TokenIssueLimited) as caught:
        asking.request.issue(copied(rejected) if rejected else None, 7)
    error = caught.value
    assert (error.code, error.retryable) == ("EGW00133", not final)
    assert ("hands out again" in str(error)) is final
    assert error.__suppress_context__ is final


def test_on_a_machine_that_has_just_begun_the_minute_of_that_is_as_long(clock: FakeClock) -> None:
    clock.now = 3.0
    asking = Asking(clock, LIMITED, LIMITED)
    asking.memory.keep(token_until(9_000, "same"), margin=0, issued=True)
    asking.memory.note_issued(token_until(9_000, "same"))
    for now, retryable in ((62.75, False), (63, True)):
        clock.now = now
        with pytest.raises(TokenIssueLimited) as caught:
            asking.request.issue("same", 7)
        assert caught.value.retryable is retryable


@pytest.mark.parametrize(("ahead", "taken_at_once"), [(-90_000.0, True), (None, False)])
def test_a_token_that_looks_expired_is_taken_at_once_where_kis_says_what_time_it_is(
    ahead: float | None, taken_at_once: bool, clock: FakeClock
) -> None:
    asking = Asking(clock, LIMITED)
    asking.store.token, asking.issuer.clock_ahead = token_until(NOW - 1, "shared"), ahead
    if taken_at_once:
        assert asking.request.issue(None, 7) == (asking.store.token, "store")
    else:
        with pytest.raises(TokenIssueLimited):
            asking.request.issue(None, 7)


def test_where_there_is_no_token_to_take_once_a_minute_is_told(clock: FakeClock) -> None:
    asking = Asking(clock, LIMITED)
    asking.issuer.clock_ahead = 0.0
    with pytest.raises(TokenIssueLimited):
        asking.request.issue(None, 7)


# --- until there is one


def test_a_live_token_in_the_store_is_taken_and_nobody_asks(clock: FakeClock) -> None:
    asking = Asking(clock)
    asking.store.token = token_until(2_000, "shared")
    assert asking.replace() == (asking.store.token, "store")
    assert (asking.store.locks, asking.issuer.timeouts) == ([], [])


@pytest.mark.parametrize(("seconds", "waits"), [(70, 9), (18.5, 9), (18, 9), (17, 8.5), (4, 2)])
def test_the_stores_lock_is_waited_for_as_long_as_a_live_holder_needs_and_half_the_time_at_most(
    seconds: float, waits: float, clock: FakeClock
) -> None:
    asking = Asking(clock, NEW)
    asking.replace(seconds=seconds)
    assert asking.store.locks == [(waits, 24)]


@pytest.mark.parametrize(("seconds_ago", "waited"), [(None, 60), (5, 55), (59.5, 0.5), (60, 60), (61, 60)])
def test_the_minute_is_waited_out_from_ones_own_issue_or_in_full(
    seconds_ago: float | None, waited: float, clock: FakeClock
) -> None:
    asking = Asking(clock, LIMITED, NEW)
    if seconds_ago is not None:
        asking.memory.note_issued(token_until(9_000, "old"))
        clock.now += seconds_ago
    assert asking.replace("old") == (NEW, "issued")
    assert sum(asking.slept) == waited
    assert set(asking.slept) == {0.5}, "a glance into the store every half second"


def test_on_a_machine_that_has_just_begun_the_minute_is_waited_out_in_full(clock: FakeClock) -> None:
    clock.now = 3.0
    asking = Asking(clock, LIMITED, NEW)
    asking.replace()
    assert sum(asking.slept) == 60


def test_a_token_that_appears_meanwhile_is_taken_whatever_this_clock_makes_of_it(clock: FakeClock) -> None:
    asking = Asking(clock, LIMITED)
    appeared = token_until(NOW - 1, "appeared")
    clock.at(1.5, lambda: setattr(asking.store, "token", appeared))
    assert asking.replace() == (appeared, "store")
    assert asking.slept == [0.5] * 3


def test_yesterdays_token_is_taken_in_the_end_where_others_are_always_quicker(clock: FakeClock) -> None:
    asking = Asking(clock, LIMITED, LIMITED)
    asking.store.token = token_until(NOW - 1, "yesterdays")
    assert asking.replace(seconds=60) == (asking.store.token, "store")
    assert asking.memory.cooldown.failure is None
    assert asking.issuer.timeouts == [7, 0.5]


def test_how_long_it_may_still_take_is_told(events: list[RefreshEvent], clock: FakeClock) -> None:
    asking = Asking(clock, AWAY, NEW)
    asking.replace(seconds=70)
    assert [(event.name, event.elapsed) for event in events] == [("token_issue_waiting", 70)]


def test_without_issue_wait_it_is_one_try_and_a_cool_down(clock: FakeClock) -> None:
    asking = Asking(clock, AWAY, issue_wait=0)
    assert asking.failed(seconds=7) is AWAY
    assert asking.slept == []
    assert (asking.memory.cooldown.failed_at, str(asking.memory.cooldown.failure)) == (NOW, str(AWAY))


def test_where_nobody_says_how_to_wait_it_sleeps(clock: FakeClock) -> None:
    asking = Asking(clock, LIMITED, NEW)
    asking.request._sleep = None
    asking.replace()
    assert sum(clock.slept) == 60


# --- in the cool-down


def cooling(clock: FakeClock, failure: TokenIssueError, *outcomes: AccessToken | Exception, **policy: Any) -> Asking:
    """Its last refresh failed now."""
    asking = Asking(clock, *outcomes, issue_wait=0, issue_cooldown=60, **policy)
    asking.memory.cooldown.begin(failure, NOW)
    return asking


def test_a_wrong_secret_is_told_again_and_nobody_asks(clock: FakeClock) -> None:
    asking = cooling(clock, WRONG)
    clock.now += 59.75
    error = asking.failed()
    assert (str(error), error.code) == ("a wrong secret", "EGW00105")
    clock.now += 0.25
    asking.issuer.outcomes.append(NEW)
    assert asking.replace() == (NEW, "issued")


def test_a_token_in_memory_is_taken_in_the_cool_down(clock: FakeClock) -> None:
    asking = cooling(clock, WRONG)
    asking.memory.cached = CachedToken(NEW, 8_900, 9_000)
    assert asking.replace("old") == (NEW, "memory")
    assert asking.failed("new").code == "EGW00105"


def test_who_looks_whether_the_endpoint_is_back_asks_once_and_brings_the_token(clock: FakeClock) -> None:
    asking = cooling(clock, AWAY, NEW)
    clock.now += 1
    assert asking.replace() == (NEW, "issued")
    assert asking.issuer.timeouts == [7]
    assert asking.store.locks == [(0, 24)], "and waits for nobody's lock"


def test_who_looks_waits_a_second_for_the_answer(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, waited, wait = cooling(clock, AWAY, NEW), list[float](), Flight.wait

    def noted(flight: Flight[Any], seconds: float) -> bool:
        waited.append(seconds)
        return wait(flight, PATIENCE)

    monkeypatch.setattr(Flight, "wait", noted)
    clock.now += 1
    assert asking.replace() == (NEW, "issued")
    assert waited == [1]


def test_a_look_finds_the_token_of_another_process(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = cooling(clock, AWAY)
    shared = token_until(2_000, "shared")

    def appear(_: float) -> bool:
        asking.store.token = shared
        return True

    monkeypatch.setattr(asking.memory.cooldown, "take_probe", appear)
    assert asking.replace() == (shared, "store")
    assert asking.issuer.timeouts == []


def test_while_another_process_looks_nobody_else_does(clock: FakeClock) -> None:
    asking = cooling(clock, AWAY, NEW)
    asking.store.held = False
    clock.now += 1
    assert str(asking.failed()) == str(AWAY)
    assert asking.issuer.timeouts == []


def test_a_look_that_finds_it_away_tells_the_failure_that_began_the_cool_down(clock: FakeClock) -> None:
    asking = cooling(clock, AWAY, TokenIssueError("away still", retryable=True))
    clock.now += 1
    assert str(asking.failed()) == str(AWAY)
    assert asking.memory.cooldown.failed_at == NOW


def test_a_look_that_finds_the_secret_wrong_begins_another_cool_down(clock: FakeClock) -> None:
    asking = cooling(clock, AWAY, WRONG)
    clock.now += 1
    assert str(asking.failed()) == str(WRONG)
    assert asking.memory.cooldown.failed_at == NOW + 1


def test_a_look_that_finds_it_back_waits_out_the_minute(clock: FakeClock) -> None:
    asking = cooling(clock, AWAY, LIMITED, LIMITED, NEW)
    asking.policy = RetryPolicy(issue_wait=70)
    clock.now += 1
    assert asking.replace() == (NEW, "issued")
    assert sum(asking.slept) == 60


def test_a_look_that_ends_without_an_outcome_changes_nothing(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, flight = cooling(clock, AWAY), Flight[Any]("interrupted")
    flight.abandon()
    monkeypatch.setattr(asking.request._probes, "begin", lambda *_: (flight, True))
    clock.now += 1
    assert str(asking.failed()) == str(AWAY)
    assert asking.issuer.timeouts == []


def test_a_look_that_gets_no_answer_is_not_waited_for_and_nobody_joins_it(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_request, "_PROBE_PATIENCE", 0.02)
    asking, answered = cooling(clock, AWAY), threading.Event()

    def hang(timeout: float) -> AccessToken:
        assert answered.wait(PATIENCE)
        return NEW

    asking.issuer.issue = hang  # type: ignore[method-assign]  # an endpoint that hangs
    clock.now += 1
    assert str(asking.failed()) == str(AWAY)
    monkeypatch.setattr(tokens_request, "_PROBE_PATIENCE", PATIENCE)
    clock.now += 1
    assert str(asking.failed()) == str(AWAY), "the look of another caller is under way"
    answered.set()
