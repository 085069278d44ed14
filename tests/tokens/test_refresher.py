"""The one refresh: which token is handed out in which window, who renews, what is told, and what is waited for."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock, tokens_on
from crowds import together
from kis_retry import AccessToken, ConfigurationError, RefreshEvent, RetryPolicy, TokenIssueError
from kis_retry.stores.entry import StoreEntry
from kis_retry.tokens.freshness import CachedToken
from kis_retry.tokens.refresher import TokenRefresher
from kis_retry.tokens.single_flight import Flight, StillUnderWayError
from patience import PATIENCE, until
from refreshes import Notebook, Scripted, token_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STALE, EXPIRES = 1_900.0, 2_000.0
OLD, NEW = token_until(EXPIRES, "old"), token_until(9_000, "new")
WRONG = TokenIssueError("a wrong secret", code="EGW00105")


@pytest.fixture(autouse=True)
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock(1_000.0)) as clock:
        yield clock


class Slow(Scripted):
    """Each request takes three seconds of the test's clock, and as long as `answered` is not set."""

    def __init__(self, clock: FakeClock, *outcomes: AccessToken | Exception) -> None:
        super().__init__(*outcomes)
        self._clock = clock
        self.answered = threading.Event()
        self.answered.set()

    def issue(self, timeout: float) -> AccessToken:
        self._clock.now += 3
        assert self.answered.wait(PATIENCE)
        return super().issue(timeout)


class Refreshing:
    """A `TokenRefresher` that holds `OLD`, stale from 1,900 and dead from 2,000."""

    def __init__(self, clock: FakeClock, *outcomes: AccessToken | Exception, **policy: Any) -> None:
        self.policy = RetryPolicy(**{"issue_timeout": 7, "refresh_margin": 100, **policy})
        self.store, self.issuer = Notebook(), Slow(clock, *outcomes)
        entry = StoreEntry(self.store, "key")
        self.refresher = TokenRefresher(self.issuer, lambda: self.policy, lambda: entry, clock.sleep)
        self.memory = self.refresher.memory
        self.memory.keep(OLD, margin=100, issued=False)

    @property
    def cached(self) -> CachedToken:
        assert self.memory.cached is not None
        return self.memory.cached

    def is_busy(self) -> Flight[Any]:
        """Have a request be under way."""
        flight: Flight[Any] = Flight("another")
        self.refresher._flights._current[""] = flight
        return flight

    def failed_early(self, now: float) -> None:
        """Have the next early try be a second away."""
        self.refresher._early._not_before = now + 1


# --- without blocking


@pytest.mark.parametrize(
    ("now", "plain", "waived"),
    [
        (1_899.75, OLD, OLD),
        (STALE, None, OLD),
        (1_900.25, None, OLD),
        (1_999.75, None, OLD),
        (EXPIRES, None, None),
        (2_000.25, None, None),
    ],
)
def test_a_token_is_at_hand_while_it_is_good_and_inside_the_margin_while_nobody_else_is_to_renew_it(
    now: float, plain: AccessToken | None, waived: AccessToken | None, clock: FakeClock
) -> None:
    clock.now = now
    idle, busy, failed = (Refreshing(clock) for _ in range(3))
    busy.is_busy()
    failed.failed_early(now)
    assert idle.refresher.peek() == plain
    assert busy.refresher.peek() == failed.refresher.peek() == waived
    assert idle.refresher.renewal_due() is (plain is None)
    assert busy.refresher.renewal_due() is failed.refresher.renewal_due() is (waived is None)


def test_where_there_is_no_token_there_is_none_at_hand_and_none_to_renew(clock: FakeClock) -> None:
    refreshing = Refreshing(clock)
    refreshing.memory.cached = None
    assert refreshing.refresher.peek() is None
    assert refreshing.refresher.renewal_due() is False


# --- in place of a refused one


def test_a_refused_token_is_noted_and_another_one_issued(clock: FakeClock) -> None:
    refreshing = Refreshing(clock, NEW)
    assert refreshing.refresher.replace("old") == (NEW, "issued")
    assert refreshing.memory.has_refused("old")


@pytest.mark.parametrize("rejected", [None, "somebody else's"])
def test_where_another_token_is_alive_it_is_handed_out_and_nothing_noted(
    rejected: str | None, clock: FakeClock
) -> None:
    refreshing = Refreshing(clock)
    assert refreshing.refresher.replace(rejected) == (OLD, "memory")
    assert not refreshing.memory.has_refused("somebody else's")
    assert refreshing.memory._refused == {}


def test_where_there_is_none_yet_one_is_issued_and_nothing_noted(clock: FakeClock) -> None:
    refreshing = Refreshing(clock, NEW)
    refreshing.memory.cached = None
    assert refreshing.refresher.replace(None) == (NEW, "issued")
    assert refreshing.memory._refused == {}


def test_of_two_who_were_refused_together_one_brings_it_and_the_other_finds_it_in_memory(clock: FakeClock) -> None:
    refreshing = Refreshing(clock, NEW)
    refreshing.issuer.answered.clear()
    flights = refreshing.refresher._flights

    def let_through_once_both_wait() -> None:
        until(lambda: len(getattr(flights._current.get(""), "_waiters", ())) == 2)
        refreshing.issuer.answered.set()

    work: list[Callable[[], Any]] = [lambda: refreshing.refresher.replace("old")] * 2 + [let_through_once_both_wait]
    first, second, _ = together(3, lambda number: work[number]())
    assert sorted([first.origin, second.origin]) == ["issued", "memory"]
    assert first.token == second.token == NEW


@pytest.mark.parametrize(("issue_wait", "asked_for"), [(4, 4), (70, 7), (0, 7)])
def test_a_refresh_may_take_issue_wait_and_without_it_as_long_as_one_request(
    issue_wait: float, asked_for: float, clock: FakeClock
) -> None:
    refreshing = Refreshing(clock, NEW, issue_wait=issue_wait)
    refreshing.refresher.replace("old")
    assert refreshing.issuer.timeouts == [asked_for]


def test_an_unusable_store_is_the_callers_error_and_no_failed_refresh(clock: FakeClock) -> None:
    refreshing = Refreshing(clock)

    def unusable() -> StoreEntry:
        raise ConfigurationError("KIS_TOKEN_STORE")

    refreshing.refresher._entry = unusable
    with pytest.raises(ConfigurationError):
        refreshing.refresher.replace("old")
    assert refreshing.memory.cooldown.failure is None


# --- past the expiry and ahead of it


def told(**fields: Any) -> RefreshEvent:
    return RefreshEvent(previous_token=OLD.fingerprint, elapsed=3.0, **fields)


def renewed() -> RefreshEvent:
    return told(name="token_refreshed", token=NEW.fingerprint, expires_at=NEW.expires_at, source="issued")


def failed() -> RefreshEvent:
    return told(
        name="token_refresh_failed",
        msg_cd="EGW00105",
        expires_at=datetime(1970, 1, 1, 0, 33, 20, tzinfo=timezone.utc),
        error="TokenIssueError",
    )


@pytest.mark.parametrize("now", [STALE, 1_999.75, EXPIRES, 2_001])
def test_inside_the_margin_and_past_the_expiry_it_is_renewed_and_told(
    now: float, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    clock.now = now
    refreshing = Refreshing(clock, NEW)
    assert refreshing.refresher.current_or_refreshed(refreshing.cached) == NEW
    assert events == [renewed()]


@pytest.mark.parametrize("now", [STALE, EXPIRES])
def test_where_none_can_be_had_the_old_one_is_handed_out_and_the_failure_told_once(
    now: float, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    clock.now = now
    refreshing = Refreshing(clock, WRONG)
    for _ in range(3):
        assert refreshing.refresher.current_or_refreshed(refreshing.cached) == OLD
        clock.now += 1
    assert events == [failed()]


def test_a_failure_that_takes_no_time_is_told(clock: FakeClock, events: list[RefreshEvent]) -> None:
    clock.now = EXPIRES
    refreshing = Refreshing(clock)
    refreshing.issuer = Scripted(WRONG)  # type: ignore[assignment]  # which is quick
    refreshing.refresher._request._issuer = refreshing.issuer
    assert refreshing.refresher.current_or_refreshed(refreshing.cached) == OLD
    assert [(event.name, event.elapsed) for event in events] == [("token_refresh_failed", 0)]


@pytest.mark.parametrize("now", [STALE, EXPIRES])
def test_a_token_of_another_process_is_adopted_without_a_word(
    now: float, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    clock.now = now
    refreshing = Refreshing(clock)
    refreshing.store.token = NEW
    assert refreshing.refresher.current_or_refreshed(refreshing.cached) == NEW
    assert events == []


def test_inside_the_margin_nobody_renews_while_a_request_is_under_way(
    clock: FakeClock, events: list[RefreshEvent]
) -> None:
    clock.now = STALE
    refreshing = Refreshing(clock)
    refreshing.is_busy()
    assert refreshing.refresher.current_or_refreshed(refreshing.cached) == OLD
    assert (refreshing.store.locks, events) == ([], [])


def test_inside_the_margin_nobody_renews_right_after_a_failure(clock: FakeClock) -> None:
    clock.now = STALE
    refreshing = Refreshing(clock)
    refreshing.failed_early(STALE)
    assert refreshing.refresher.current_or_refreshed(refreshing.cached) == OLD
    assert refreshing.store.locks == []


def test_who_comes_upon_the_renewal_of_another_says_nothing_of_it(clock: FakeClock, events: list[RefreshEvent]) -> None:
    refreshing = Refreshing(clock)
    refreshing.is_busy().answer(NEW)
    refreshing.refresher._renew_early(refreshing.cached, 1_000)
    assert events == []


def test_a_renewal_that_does_not_come_is_not_waited_for_beyond_issue_wait(
    clock: FakeClock, events: list[RefreshEvent]
) -> None:
    clock.now = STALE
    refreshing = Refreshing(clock, NEW, issue_wait=0.05)
    refreshing.issuer.answered.clear()
    assert refreshing.refresher.current_or_refreshed(refreshing.cached) == OLD
    assert events == []
    refreshing.issuer.answered.set()
    until(lambda: refreshing.cached.token == NEW)


def test_of_a_renewal_that_ends_without_an_outcome_nothing_is_told(
    clock: FakeClock, events: list[RefreshEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now = STALE
    refreshing = Refreshing(clock)
    flight: Flight[Any] = Flight("interrupted")
    flight.abandon()
    monkeypatch.setattr(refreshing.refresher._flights, "begin", lambda *_: (flight, True))
    assert refreshing.refresher.current_or_refreshed(refreshing.cached) == OLD
    assert events == []


def test_a_token_that_was_forgotten_meanwhile_is_used_to_its_end(clock: FakeClock) -> None:
    clock.now = STALE
    refreshing = Refreshing(clock)
    refreshing.is_busy()
    cached = refreshing.cached
    refreshing.memory.cached = None
    assert refreshing.refresher.current_or_refreshed(cached) == OLD


# --- what does not come to an end


def late(refreshing: Refreshing, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have every wait be in vain, for what has been under way so long; how long each was to be."""
    waited: list[float] = []

    def run(*_: Any, **options: Any) -> None:
        waited.append(options["seconds"])
        raise StillUnderWayError(refreshing.is_busy(), seconds)

    monkeypatch.setattr(refreshing.refresher._flights, "run", run)
    return waited


@pytest.mark.parametrize(("seconds", "given_up"), [(0.5, False), (9.75, False), (10, True), (10.5, True)])
def test_a_refresh_is_given_up_once_it_has_had_all_its_time_and_a_moment_to_say_how_it_ended(
    *, seconds: float, given_up: bool, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshing = Refreshing(clock, issue_wait=10)
    waited = late(refreshing, seconds, monkeypatch)
    with pytest.raises(TokenIssueError, match=r"^no token could be had in 10 seconds$") as caught:
        refreshing.refresher.replace("old")
    assert caught.value.retryable is True
    assert caught.value.__context__ is None
    assert waited == [10.75]
    assert refreshing.refresher._flights.busy is not given_up
    cooldown = refreshing.memory.cooldown
    assert (cooldown.failure is not None, cooldown.failed_at) == (given_up, 1_000 if given_up else 0)


def test_a_token_that_came_at_the_last_moment_is_taken(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    refreshing = Refreshing(clock)
    late(refreshing, 100, monkeypatch)
    assert refreshing.refresher.replace(None) == (OLD, "memory")
    assert refreshing.refresher._flights.busy


def test_what_asks_for_a_token_while_it_is_being_issued_is_told_and_may_try_again(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshing, told = Refreshing(clock), list[TokenIssueError]()

    def issue(timeout: float) -> AccessToken:
        with pytest.raises(TokenIssueError, match="would wait for itself") as caught:
            refreshing.refresher.replace("old")
        told.append(caught.value)
        return NEW

    monkeypatch.setattr(refreshing.issuer, "issue", issue)
    assert refreshing.refresher.replace("old") == (NEW, "issued")
    assert [(error.retryable, error.__context__) for error in told] == [(True, None)]
    assert refreshing.memory.cooldown.failure is None


# --- revoking


@pytest.mark.parametrize(("shared", "revoked"), [(NEW, NEW), (token_until(1_999, "earlier"), OLD), (None, OLD)])
def test_the_token_that_lives_longest_is_revoked_and_forgotten_everywhere(
    shared: AccessToken | None, revoked: AccessToken, clock: FakeClock
) -> None:
    refreshing = Refreshing(clock)
    refreshing.store.token = shared
    assert refreshing.refresher.revoke() is True
    assert refreshing.issuer.revoked == [(revoked, 7)]
    assert refreshing.store.locks == [(9, 24)]
    assert refreshing.store.token is None
    assert refreshing.memory.cached is None
    assert refreshing.memory.has_refused(revoked.value)


def test_a_token_that_only_others_have_is_revoked_too(clock: FakeClock) -> None:
    refreshing = Refreshing(clock)
    refreshing.memory.cached, refreshing.store.token = None, NEW
    assert refreshing.refresher.revoke() is True
    assert refreshing.issuer.revoked == [(NEW, 7)]


def test_where_there_is_no_token_none_is_revoked(clock: FakeClock) -> None:
    refreshing = Refreshing(clock)
    refreshing.memory.cached = None
    assert refreshing.refresher.revoke() is False
    assert refreshing.issuer.revoked == []
