"""What a refresh waits for: KIS's one issue a minute, an endpoint that is away; and what comes after a failure."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
import requests

from kis_retry import (
    AccessToken,
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
from managers import ended, started
from patience import PATIENCE

if TYPE_CHECKING:
    from clocks import FakeClock
    from managers import Make

DAY = 86_400


def outcome(tokens: TokenManager, rejected: AccessToken | None = None) -> str:
    """What a refused call gets: a token's value, or the name of the failure."""
    try:
        return (tokens.refresh(rejected) if rejected else tokens.token()).value
    except TokenIssueError as error:
        return type(error).__name__


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
    timed.refuse_tokens(msg_cd=None, status=503)
    clock.at(seconds, timed.heal)
    assert tokens.refresh(first).value == timed.current_token
    assert seconds <= sum(clock.slept) < seconds + 3, "it goes on soon after the endpoint is back"
    pauses = [pause for pause in clock.slept if pause < 0.5]
    assert len(set(pauses)) == len(pauses), "with jitter"
    (waiting,) = [event for event in events if event.name == "token_issue_waiting"]
    assert (waiting.error, waiting.msg_cd) == ("TokenIssueError", None)
    assert waiting.wait == pytest.approx(70)


@pytest.mark.parametrize(("fault", "times"), [("refuse_tokens", 3), ("drop", 3), ("garble", 3)])
def test_everybody_waits_for_the_endpoint_together(fault: str, times: int, make: Make, timed: KisGateway) -> None:
    tokens, got = make(), list[str]()
    if fault == "refuse_tokens":
        timed.refuse_tokens("EGW00201", times)  # calls a second: that passes
    else:
        getattr(timed, fault)("tokens", times)
    ended(started(16, lambda: got.append(tokens.token().value)))
    assert got == [timed.current_token] * 16
    assert timed.counts.tokens_issued == 1


def test_after_an_outage_longer_than_issue_wait_the_next_refresh_waits_anew(
    make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    tokens = make(issue_wait=10)
    first = tokens.token()
    timed.expire()
    timed.refuse_tokens(msg_cd=None, status=503)
    clock.at(15, timed.heal)
    assert [outcome(tokens, first) for _ in range(2)] == ["TokenIssueError", timed.current_token]
    assert 15 <= sum(clock.slept) < 18, "a token that KIS would have issued a moment later is not given up"


@pytest.mark.parametrize("fault", ["the minute", "away"])
def test_with_one_try_kis_is_asked_once_in_a_cool_down(
    fault: str, make: Make, timed: KisGateway, clock: FakeClock
) -> None:
    if fault == "away":
        timed.refuse_tokens(msg_cd=None, status=503)
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
