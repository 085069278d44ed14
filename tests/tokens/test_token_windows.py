"""Ahead of the expiry and past it, on a clock that only waiting moves."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from freezegun import freeze_time

from kis_retry import AccessToken, FileTokenStore, MemoryTokenStore, RetryPolicy, TokenIssueError, TokenManager
from kis_retry.stores.base import key_of
from managers import ended, started
from patience import until

if TYPE_CHECKING:
    from pathlib import Path

    from clocks import FakeClock
    from kis_retry import RefreshEvent
    from kis_retry.testing import KisGateway
    from managers import Make

DAY, MARGIN = 86_400, 600


# --- what is taken from the store


@pytest.mark.parametrize(("seconds", "is_taken"), [(1, True), (0, False), (-1, False)])
def test_a_token_in_the_store_is_taken_while_it_lives(
    seconds: float, is_taken: bool, make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    store = MemoryTokenStore()
    shared = AccessToken("eyJ.shared.sig", datetime.fromtimestamp(clock.now + seconds, timezone.utc))
    store.save(key_of(timed.credentials), shared)
    assert (make(store).token() == shared) is is_taken
    assert timed.counts.token_requests == (0 if is_taken else 1)


# --- ahead of the expiry


def test_the_margin_begins_on_the_second(
    make: Make, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    tokens = make()
    first = tokens.token()
    clock.now = first.expires - MARGIN - 0.001
    assert tokens.token() is first
    assert tokens.peek() is first
    clock.now = first.expires - MARGIN
    assert tokens.peek() is None, "this caller is to renew it"
    second = tokens.token()
    assert second != first
    assert timed.counts.token_requests == 2
    (event,) = events
    assert (event.name, event.source, event.previous_token) == ("token_refreshed", "issued", first.fingerprint)


def test_inside_the_margin_one_renews_while_the_others_go_on(make: Make, timed: KisGateway, clock: FakeClock) -> None:
    tokens = make()
    first = tokens.token()
    clock.now += DAY - MARGIN
    timed.hang("tokens", 1)
    got: list[AccessToken] = []
    renewing = started(1, lambda: got.append(tokens.token()))
    until(lambda: timed.counts.token_requests == 2)
    ended(started(4, lambda: got.extend(tokens.token() for _ in range(5))))
    assert got == [first] * 20, "they did not wait for it"
    assert tokens.peek() == first
    timed.heal()
    ended(renewing)
    assert got[20] != first
    assert timed.counts.token_requests == 2


def test_a_failed_early_renewal_is_one_warning_a_cool_down(
    make: Make, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    tokens = make()
    first = tokens.token()
    clock.now += DAY - MARGIN
    timed.refuse_tokens(msg_cd=None, status=500)
    for requests in (2, 3):
        assert [tokens.token() for _ in range(100)] == [first] * 100
        assert timed.counts.token_requests == requests
        clock.now += 60
    assert clock.slept == [], "a good token is nothing to wait for"
    assert [event.name for event in events] == ["token_refresh_failed"] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_nobody_waits_for_another_process_that_renews_early(
    make: Make, timed: KisGateway, clock: FakeClock, tmp_path: Path
) -> None:
    ours, theirs = (make(FileTokenStore(tmp_path / "cache")) for _ in range(2))
    first = ours.token()
    theirs.token()
    clock.now += DAY - MARGIN
    timed.hang("tokens", 1)
    renewing = started(1, theirs.token)
    until(lambda: timed.counts.token_requests == 2)
    assert [ours.token() for _ in range(50)] == [first] * 50
    timed.heal()
    ended(renewing)
    clock.now += 1  # the next look
    assert ours.token() == theirs.token() != first
    assert timed.counts.token_requests == 2


# --- past the expiry


def test_past_the_expiry_without_a_new_token_the_old_one_lets_kis_answer(
    make: Make, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    tokens = make()
    first = tokens.token()
    clock.now += DAY
    timed.refuse_tokens()
    for _ in range(100):
        assert tokens.token() == first
        clock.now += 0.05
    assert [event.name for event in events] == ["token_refresh_failed"], "once in a cool-down"
    timed.heal()
    clock.now += 60
    assert tokens.token() != first


def test_a_token_that_was_refused_is_never_handed_out_again(make: Make, timed: KisGateway, clock: FakeClock) -> None:
    """Whatever became of the call that saw it."""
    store = MemoryTokenStore()
    tokens = make(store)
    refused = tokens.token()
    timed.refuse_tokens()
    tokens.note_refused(refused.value)
    for moment in (0, 30, 61, DAY):
        clock.now += moment
        with pytest.raises(TokenIssueError):
            tokens.token()
    timed.heal()
    clock.now += 61
    assert tokens.token() != refused


def test_days_on_end_cost_one_issue_a_day(make: Make, timed: KisGateway, clock: FakeClock, tmp_path: Path) -> None:
    processes = [make(FileTokenStore(tmp_path / "cache")) for _ in range(3)]
    for _ in range(4 * 24):
        assert {process.token().value for process in processes} == {timed.current_token}
        clock.now += timedelta(hours=1).total_seconds()
    assert timed.counts.token_requests == 4


# --- clocks


def test_freezegun_moves_the_expiry_and_no_deadline(gateway: KisGateway) -> None:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=5))
    with freeze_time("2026-11-23 00:00:00") as frozen:
        first = tokens.token()
        frozen.tick(timedelta(hours=23, minutes=49))
        assert tokens.token() is first
        gateway.refuse_tokens(None, 2, status=503)  # it is asked again after a while, in real time
        frozen.tick(timedelta(minutes=12))
        assert tokens.token() != first


def test_with_a_clock_a_day_ahead_processes_share_the_token_that_just_appeared(
    make: Make, timed: KisGateway, clock: FakeClock, tmp_path: Path
) -> None:
    class Counting(FileTokenStore):
        loads = 0

        def load(self, key: str) -> AccessToken | None:
            self.loads += 1
            return super().load(key)

    clock.skew = 25 * 3_600
    timed.hang("tokens", 1)
    stores = [Counting(tmp_path / "cache") for _ in range(4)]
    managers = iter([make(store) for store in stores])
    got: list[AccessToken] = []
    waiting = started(4, lambda: got.append(next(managers).token()))
    until(lambda: timed.counts.token_requests == 1)
    until(lambda: min(store.loads for store in stores) == 2)  # the others are on their way to the lock
    timed.heal()
    ended(waiting)
    assert len(set(got)) == 1
    assert timed.counts.token_requests == 1
