"""Ahead of the expiry, at it, and KIS's one issue a minute: on a clock that only waiting moves."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from answers import GOOD_CODE
from clocks import FakeClock, tokens_on
from kis_retry import (
    AccessToken,
    Credentials,
    FileTokenStore,
    KisClient,
    KisRetryError,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenIssueLimited,
    TokenManager,
    TokenStore,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from outcomes import call
from patience import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DAY, MARGIN = 86_400, 600


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock()) as clock:
        yield clock


@pytest.fixture
def gateway(clock: FakeClock) -> Iterator[KisGateway]:
    with KisGateway(clock=clock.time) as running:
        yield running


@pytest.fixture
def store() -> TokenStore:
    return MemoryTokenStore()


@pytest.fixture
def make(clock: FakeClock, gateway: KisGateway) -> Callable[..., TokenManager]:
    """A manager as in a process of its own; on a machine of its own where it is given no store."""

    def manager_on(store: TokenStore | None = None, **policy: Any) -> TokenManager:
        return TokenManager(
            gateway.credentials, store=store or MemoryTokenStore(), policy=RetryPolicy(**policy), sleep=clock.sleep
        )

    return manager_on


def threads(number: int, work: Callable[[], object]) -> list[threading.Thread]:
    started = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in started:
        thread.start()
    return started


# --- once a minute


def test_two_machines_without_a_shared_store_get_the_same_token(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    first, second = make().token(), make().token()
    assert first == second
    assert sum(clock.slept) == pytest.approx(60)
    assert gateway.counts.token_requests == 3
    assert gateway.counts.token_requests_refused == 1
    (waiting,) = events
    assert waiting.name == "token_issue_waiting"
    assert (waiting.msg_cd, waiting.error, waiting.elapsed) == ("EGW00133", "TokenIssueLimited", 60)


def test_two_machines_without_a_shared_store_lose_nothing_over_an_expiry(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    clients = [KisClient(tokens=make()) for _ in range(2)]
    assert [call(client) for client in clients] == [GOOD_CODE, GOOD_CODE]
    clock.now += 3_600
    gateway.expire()
    gateway.reset_counts()
    clock.slept.clear()
    assert [call(client) for client in clients * 10] == [GOOD_CODE] * 20
    assert gateway.counts.refused == 2
    assert gateway.counts.token_requests == 3
    assert sum(clock.slept) == pytest.approx(60), "that is how long the second one stood still"


def test_without_issue_wait_the_refusal_is_handed_on_at_once(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    make().token()
    with pytest.raises(TokenIssueLimited) as caught:
        make(issue_wait=0).token()
    assert (caught.value.code, caught.value.retryable) == ("EGW00133", True)
    assert clock.slept == []
    assert gateway.counts.token_requests == 2


def test_an_issue_wait_shorter_than_the_minute_is_kept_to(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    make().token()
    with pytest.raises(TokenIssueLimited):
        make(issue_wait=25).token()
    assert sum(clock.slept) == pytest.approx(25)
    assert gateway.counts.token_requests == 3


def test_somebody_who_is_quicker_every_minute_costs_issue_wait_and_no_more(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    gateway.refuse_tokens(code="EGW00133")
    with pytest.raises(TokenIssueLimited):
        make().token()
    assert sum(clock.slept) == pytest.approx(70)
    assert gateway.counts.token_requests == 3


def test_a_token_that_appears_in_the_store_ends_the_wait(
    *,
    make: Callable[..., TokenManager],
    gateway: KisGateway,
    clock: FakeClock,
    store: TokenStore,
    monkeypatch: pytest.MonkeyPatch,
    events: list[RefreshEvent],
) -> None:
    told = gateway.issue_elsewhere()
    theirs = AccessToken(told["access_token"], datetime.fromtimestamp(clock.now + DAY, timezone.utc))
    sleep = clock.sleep

    def sleep_until_it_is_there(seconds: float) -> None:
        sleep(seconds)
        if sum(clock.slept) >= 3:
            store.save(key_of(gateway.credentials), theirs)

    monkeypatch.setattr(clock, "sleep", sleep_until_it_is_there)
    token = make(store).refresh(None)
    assert token == theirs
    assert 3 <= sum(clock.slept) <= 4
    assert gateway.counts.token_requests == 1
    assert [(event.name, event.source) for event in events] == [
        ("token_issue_waiting", None),
        ("token_adopted", "store"),
    ]


def test_yesterdays_token_in_the_store_does_not_cut_the_wait_short(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, store: TokenStore
) -> None:
    yesterday = AccessToken("eyJ.yesterday.sig", datetime.fromtimestamp(clock.now - 1, timezone.utc))
    store.save(key_of(gateway.credentials), yesterday)
    told = gateway.issue_elsewhere()
    assert make(store).token().value == told["access_token"]
    assert sum(clock.slept) == pytest.approx(60)
    assert gateway.counts.token_requests == 2


def test_the_minute_is_waited_out_once_for_all_threads(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    gateway.issue_elsewhere()
    client = KisClient(tokens=make())
    answers: list[str] = []
    for thread in threads(8, lambda: answers.append(call(client))):
        thread.join(20)
    assert answers == [GOOD_CODE] * 8
    assert sum(clock.slept) == pytest.approx(60)
    assert gateway.counts.token_requests == 2


# --- what is taken from the store


def test_yesterdays_token_is_not_taken(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, store: TokenStore
) -> None:
    yesterday = AccessToken("eyJ.yesterday.sig", datetime.fromtimestamp(clock.now, timezone.utc))
    store.save(key_of(gateway.credentials), yesterday)
    assert make(store).token().value == gateway.current_token
    assert make(store).token().value == gateway.current_token
    assert gateway.counts.token_requests == 1


def test_a_token_that_lives_another_second_is_taken(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, store: TokenStore
) -> None:
    last_second = AccessToken("eyJ.last-second.sig", datetime.fromtimestamp(clock.now + 1, timezone.utc))
    store.save(key_of(gateway.credentials), last_second)
    assert make(store).refresh(None) == last_second
    assert gateway.counts.token_requests == 0


def test_a_token_that_was_refused_before_is_not_taken_again(
    make: Callable[..., TokenManager], gateway: KisGateway, store: TokenStore
) -> None:
    """As when the server fails over to one that lags behind."""
    client, key = KisClient(tokens=make(store)), key_of(gateway.credentials)
    assert call(client) == GOOD_CODE
    lagging = store.load(key)
    assert lagging is not None
    gateway.expire()
    assert call(client) == GOOD_CODE
    store.save(key, lagging)
    gateway.expire()
    assert call(client) == GOOD_CODE
    assert gateway.counts.token_requests == 3
    assert gateway.counts.refused == 2


# --- ahead of the expiry


def test_the_margin_begins_on_the_second(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    tokens = make()
    first = tokens.token()
    clock.now = first.expires - MARGIN - 0.001
    assert tokens.token() is first
    assert gateway.counts.token_requests == 1
    clock.now = first.expires - MARGIN
    second = tokens.token()
    assert second != first
    assert gateway.counts.token_requests == 2
    (event,) = events
    assert (event.name, event.source, event.previous_token) == ("token_refreshed", "issued", first.fingerprint)


def test_inside_the_margin_one_renews_while_the_others_go_on(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    client = KisClient(tokens=make())
    call(client)
    clock.now += DAY - MARGIN
    gateway.reset_counts()
    gateway.hang("tokens", 1)
    answers: list[str] = []
    (renewing,) = threads(1, lambda: answers.append(call(client)))
    until(lambda: gateway.counts.token_requests == 1)
    for thread in threads(4, lambda: answers.extend(call(client) for _ in range(5))):
        thread.join(20)
    assert answers == [GOOD_CODE] * 20, "they did not wait for it"
    assert renewing.is_alive()
    gateway.heal()
    renewing.join(20)
    assert answers == [GOOD_CODE] * 21
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == 0


def test_a_failed_early_renewal_is_one_warning_a_cool_down(
    make: Callable[..., TokenManager],
    gateway: KisGateway,
    clock: FakeClock,
    events: list[RefreshEvent],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = KisClient(tokens=make())
    call(client)
    clock.now += DAY - MARGIN
    gateway.refuse_tokens(code=None, status=500)
    gateway.reset_counts()
    for requests in (1, 2):
        assert [call(client) for _ in range(100)] == [GOOD_CODE] * 100
        assert gateway.counts.token_requests == requests
        clock.now += 60
    assert clock.slept == [], "a good token is nothing to wait for"
    assert [event.name for event in events] == ["token_refresh_failed"] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_an_early_renewal_does_not_wait_out_the_minute(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    tokens = make()
    first = tokens.token()
    clock.now += DAY - MARGIN
    gateway.issue_elsewhere()
    assert tokens.token() is first
    assert clock.slept == []
    clock.now += 60
    assert tokens.token().value == gateway.current_token


def test_a_failed_early_renewal_does_not_hold_up_the_mandatory_one(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    client = KisClient(tokens=make(issue_cooldown=3_600))
    call(client)
    clock.now += DAY - 10
    gateway.refuse_tokens(1)
    assert call(client) == GOOD_CODE
    clock.now += 10
    gateway.reset_counts()
    assert call(client) == GOOD_CODE
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == 0


def test_who_shares_the_store_adopts_an_early_renewal(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, tmp_path: Path
) -> None:
    processes = [make(FileTokenStore(tmp_path / "cache")) for _ in range(4)]
    first = [process.token() for process in processes]
    clock.now += DAY - MARGIN
    second = [process.token() for process in processes]
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]
    assert gateway.counts.token_requests == 2


def test_while_another_process_renews_early_nobody_waits_for_its_lock(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, tmp_path: Path
) -> None:
    ours, theirs = (make(FileTokenStore(tmp_path / "cache")) for _ in range(2))
    first = ours.token()
    theirs.token()
    clock.now += DAY - MARGIN
    gateway.hang("tokens", 1)
    (renewing,) = threads(1, theirs.token)
    until(lambda: gateway.counts.token_requests == 2)
    assert [ours.token() for _ in range(50)] == [first] * 50
    assert renewing.is_alive()
    gateway.heal()
    renewing.join(20)
    clock.now += 1  # the next look
    assert ours.token() == theirs.token() != first
    assert gateway.counts.token_requests == 2


# --- past the expiry


def test_past_the_expiry_everybody_waits_for_one_issue(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    client = KisClient(tokens=make())
    call(client)
    clock.now += DAY
    gateway.reset_counts()
    gateway.hang("tokens", 1)
    answers: list[str] = []
    started = threads(6, lambda: answers.append(call(client)))
    until(lambda: gateway.counts.token_requests == 1)
    time.sleep(0.1)
    assert gateway.counts.calls == 0
    gateway.heal()
    for thread in started:
        thread.join(20)
    assert answers == [GOOD_CODE] * 6
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == 0, "KIS never got to say that it expired"


def test_past_the_expiry_without_a_new_token_kis_itself_answers(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    client = KisClient(tokens=make())
    call(client)
    clock.now += DAY
    gateway.refuse_tokens()
    assert [call(client) for _ in range(20)] == ["EGW00123"] * 20
    gateway.heal()
    clock.now += 60
    assert call(client) == GOOD_CODE


def test_without_any_token_the_failure_is_all_there_is(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock
) -> None:
    gateway.refuse_tokens()
    client = KisClient(tokens=make())
    with pytest.raises(TokenIssueError):
        call(client)
    gateway.heal()
    with pytest.raises(TokenIssueError):
        call(client)
    assert gateway.counts.token_requests == 1, "the cool-down"
    clock.now += 60
    assert call(client) == GOOD_CODE


def test_days_on_end_cost_one_issue_a_day_and_no_refusal(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, tmp_path: Path
) -> None:
    processes = [KisClient(tokens=make(FileTokenStore(tmp_path / "cache"))) for _ in range(3)]
    for _ in range(4 * 24):
        for client in processes:
            assert call(client) == GOOD_CODE
        clock.now += timedelta(hours=1).total_seconds()
    assert gateway.counts.refused == 0
    assert gateway.counts.token_requests == 4


# --- revoking


def test_who_revokes_means_the_token_that_is_shared_and_not_an_older_one_in_its_memory(
    make: Callable[..., TokenManager], gateway: KisGateway, clock: FakeClock, store: TokenStore
) -> None:
    idle, busy, third = make(store), make(store), KisClient(tokens=make(store))
    idle.token()
    gateway.expire()
    clock.now += 1
    shared = busy.refresh(busy.token())
    assert call(third) == GOOD_CODE
    assert idle.revoke() is True
    assert store.load(key_of(gateway.credentials)) is None
    clock.now += 60
    gateway.reset_counts()
    assert call(third) == GOOD_CODE
    assert gateway.counts.refused == 1, "revoked at KIS as well"
    assert idle.token() == third.tokens.token() != shared
    assert gateway.counts.token_requests == 1


def test_without_a_token_there_is_nothing_to_revoke(make: Callable[..., TokenManager], gateway: KisGateway) -> None:
    assert make().revoke() is False
    assert gateway.counts.token_requests == 0


def test_a_token_that_kis_did_not_revoke_is_still_shared(
    make: Callable[..., TokenManager], gateway: KisGateway, store: TokenStore
) -> None:
    token = make(store).token()
    right = gateway.credentials
    wrong = Credentials(right.app_key, "another-secret", base_url=right.base_url)
    with pytest.raises(KisRetryError, match="EGW00105"):
        TokenManager(wrong, store=store).revoke()
    assert store.load(key_of(right)) == token
    assert make(store).token() == token
    assert gateway.counts.token_requests == 1
