"""Renewals: ahead of the expiry and past it, what they wait for (the minute, an endpoint), and after a failure."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
import requests
from freezegun import freeze_time

from crowds import ended, started
from kis_retry import (
    AccessToken,
    FileTokenStore,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenIssueLimited,
    TokenManager,
    on_event,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from patience import PATIENCE, until

if TYPE_CHECKING:
    from pathlib import Path

    from clocks import FakeClock, Make

DAY, MARGIN = 86_400, 600


def outcome(tokens: TokenManager, rejected: AccessToken | None = None) -> str:
    """What a refused call gets: a token's value, or the name of the failure."""
    try:
        return (tokens.refresh(rejected) if rejected else tokens.token()).value
    except TokenIssueError as error:
        return type(error).__name__


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
    timed.fail(500, where="tokens")
    for asked in (2, 3):
        assert [tokens.token() for _ in range(100)] == [first] * 100
        assert timed.counts.token_requests == asked
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
        gateway.fail(503, 2, "tokens")  # it is asked again after a while, in real time
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


# --- once a minute


def test_two_machines_without_a_shared_store_get_the_same_token(
    make: Make, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    assert make().token() == make().token()
    assert sum(clock.slept) == pytest.approx(60)
    assert (timed.counts.token_requests, timed.counts.token_requests_refused) == (3, 1)
    (waiting,) = events
    assert (waiting.name, waiting.msg_cd, waiting.error) == ("token_issue_waiting", "EGW00133", "TokenIssueLimited")
    assert (waiting.wait, waiting.elapsed) == (60, None)


@pytest.mark.parametrize(("issue_wait", "waited"), [(0, 0), (25, 25), (59, 59)])
def test_an_issue_wait_shorter_than_the_minute_is_kept_to(
    issue_wait: float, waited: float, make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    make().token()
    with pytest.raises(TokenIssueLimited) as caught:
        make(issue_wait=issue_wait).token()
    assert (caught.value.code, caught.value.retryable) == ("EGW00133", True)
    assert sum(clock.slept) == pytest.approx(waited)
    assert timed.counts.token_requests == 2


def test_a_token_that_appears_in_the_store_ends_the_wait(
    make: Make, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    store = MemoryTokenStore()
    told = timed.issue_elsewhere()
    theirs = AccessToken(told["access_token"], datetime.fromtimestamp(clock.now + DAY, timezone.utc))
    clock.at(3, lambda: store.save(key_of(timed.credentials), theirs))
    assert make(store).refresh(None) == theirs
    assert 3 <= sum(clock.slept) <= 4
    assert timed.counts.token_requests == 1
    assert [(event.name, event.source) for event in events] == [
        ("token_issue_waiting", None),
        ("token_adopted", "store"),
    ]


def test_a_token_that_dies_within_the_minute_of_its_issue_is_waited_for(
    make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    tokens = make()
    tokens.token()
    timed.expire()
    second = tokens.refresh(tokens.token())
    clock.pass_by(5)
    revoked = {"appkey": timed.credentials.app_key, "appsecret": timed.credentials.app_secret, "token": second.value}
    requests.post(f"{timed.url}/oauth2/revokeP", json=revoked, timeout=5)
    assert outcome(tokens, second) == timed.current_token != second.value
    assert sum(clock.slept) == pytest.approx(60 - 5)


def test_a_dead_token_that_kis_hands_out_again_is_used_once_more_and_not_waited_for(
    make: Make, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    tokens = make()
    first = tokens.token()
    timed.expire()
    timed.same_token()
    assert tokens.refresh(first) == first
    assert tokens.peek() == first
    (event,) = events
    assert (event.name, event.source, event.token, event.previous_token) == (
        "token_refreshed",
        "issued",
        first.fingerprint,
        first.fingerprint,
    )
    assert [outcome(tokens, first) for _ in range(30)] == ["TokenIssueLimited"] * 30
    assert tokens.peek() is None
    assert clock.slept == []
    assert timed.counts.token_requests <= 3


# --- an endpoint that is away


@pytest.mark.parametrize("seconds", [4, 30, 65])
def test_an_endpoint_that_is_away_is_waited_for(
    seconds: float, make: Make, timed: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    tokens = make()
    first = tokens.token()
    timed.expire()
    timed.fail(503, where="tokens")
    clock.at(seconds, timed.heal)
    assert tokens.refresh(first).value == timed.current_token
    assert seconds <= sum(clock.slept) < seconds + 3, "it goes on soon after the endpoint is back"
    pauses = [pause for pause in clock.slept if pause < 0.5]
    assert len(set(pauses)) == len(pauses), "with jitter"
    (waiting,) = [event for event in events if event.name == "token_issue_waiting"]
    assert (waiting.error, waiting.msg_cd) == ("TokenIssueError", None)
    assert waiting.wait == pytest.approx(70)


@pytest.mark.parametrize(("fault", "times"), [("refuse_tokens", 3), ("drop", 3), ("fail", 3)])
def test_everybody_waits_for_the_endpoint_together(fault: str, times: int, make: Make, timed: KisGateway) -> None:
    tokens, got = make(), list[str]()
    if fault == "refuse_tokens":
        timed.refuse_tokens("EGW00201", times)  # calls a second: that passes
    else:
        getattr(timed, fault)(where="tokens", times=times)
    ended(started(16, lambda: got.append(tokens.token().value)))
    assert got == [timed.current_token] * 16
    assert timed.counts.tokens_issued == 1


def test_after_an_outage_longer_than_issue_wait_nobody_asks_for_the_cool_down(
    make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    tokens = make(issue_wait=10, issue_cooldown=60)
    timed.fail(503, where="tokens")
    assert outcome(tokens) == "TokenIssueError"
    asked = timed.counts.token_requests
    timed.heal()
    clock.pass_by(59)
    assert (outcome(tokens), timed.counts.token_requests) == ("TokenIssueError", asked)
    clock.pass_by(1)
    assert outcome(tokens) == timed.current_token


@pytest.mark.parametrize("fault", ["the minute", "away"])
def test_with_one_try_kis_is_asked_once_in_a_cool_down(
    fault: str, make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    if fault == "away":
        timed.fail(503, where="tokens")
    else:
        timed.issue_elsewhere()
    tokens = make(issue_wait=0)
    failures = {outcome(tokens) for _ in range(100)}
    assert failures == {"TokenIssueError" if fault == "away" else "TokenIssueLimited"}
    assert timed.counts.token_requests == 1
    timed.heal()
    clock.pass_by(61)
    assert outcome(tokens) == timed.current_token


# --- after a failure for good


@pytest.mark.parametrize("code", ["EGW00103", "EGW00105"])
def test_a_wrong_key_or_secret_is_asked_about_once_in_a_cool_down(
    code: str, make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    timed.refuse_tokens(code)
    tokens = make()
    for _ in range(200):
        with pytest.raises(TokenIssueError) as caught:
            tokens.token()
        assert (caught.value.code, caught.value.retryable) == (code, False)
        clock.pass_by(0.25)
    assert timed.counts.token_requests == 1
    assert clock.slept == []
    clock.pass_by(15)
    timed.heal()
    assert outcome(tokens) == timed.current_token


def test_a_token_in_the_store_ends_a_cool_down(make: Make, timed: KisGateway, clock: FakeClock) -> None:
    store = MemoryTokenStore()
    tokens = make(store)
    first = tokens.token()
    timed.expire()
    timed.refuse_tokens("EGW00105", 1)
    assert outcome(tokens, first) == "TokenIssueError"
    adopted = AccessToken("eyJ.adopted.sig", first.expires_at)
    store.save(key_of(timed.credentials), adopted)
    clock.pass_by(1)
    assert outcome(tokens, first) == adopted.value
    assert outcome(tokens, adopted) == timed.current_token, "in what was the cool-down"


# --- what hangs


def test_issue_wait_bounds_a_store_that_never_answers(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(MemoryTokenStore):
        silent = False

        def load(self, key: str) -> AccessToken | None:
            if self.silent:
                answered.wait(PATIENCE)
            return super().load(key)

    monkeypatch.setattr("kis_retry.tokens.single_flight._GRACE", 0.01)
    answered, store = threading.Event(), Silent()
    tokens = TokenManager(gateway.credentials, store=store, policy=RetryPolicy(issue_wait=0.1))
    first = tokens.token()
    gateway.expire()
    store.silent = True
    for future in [tokens.replace_future(first.value) for _ in range(3)]:
        with pytest.raises(TokenIssueError, match=r"no token could be had in 0\.1 seconds"):
            future.result(PATIENCE)
    store.silent = False
    assert outcome(tokens, first) == gateway.current_token, "the next asks anew"
    answered.set()


# --- what hooks do to it


def test_a_hook_that_asks_for_the_first_token_gets_an_error_and_not_silence(make: Make, timed: KisGateway) -> None:
    timed.issue_elsewhere()
    tokens, told = make(), list[str]()

    def hook(event: RefreshEvent) -> None:
        try:
            tokens.token()
        except TokenIssueError as error:
            told.append(str(error))

    unsubscribe = on_event(hook)
    try:
        assert tokens.token().value == timed.current_token
    finally:
        unsubscribe()
    assert len(told) == 1
    assert "would wait for itself" in told[0]
