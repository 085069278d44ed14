"""The manager by itself: its clock, its headers, its windows, and what it is made of."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import requests
import responses
from freezegun import freeze_time

from kis_retry import (
    AccessToken,
    Credentials,
    KisClient,
    MemoryTokenStore,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    TokenSource,
)
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kis_retry import RefreshEvent

SEOUL = timezone(timedelta(hours=9))


@pytest.fixture(params=["UTC", "Asia/Seoul", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The machine's own time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def _manager(gateway: KisGateway, **policy: Any) -> TokenManager:
    return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(**policy))


@pytest.mark.usefixtures("zone")
def test_expiry_is_seoul_time_wherever_the_machine_is() -> None:
    with freeze_time("2026-11-23 00:00:00", tz_offset=0), KisGateway().mocked() as gateway:
        token = _manager(gateway).token()
        assert token.expires_at == datetime(2026, 11, 24, 9, 0, tzinfo=SEOUL)


@pytest.mark.usefixtures("zone")
def test_across_the_day_a_right_clock_never_lets_kis_say_expired() -> None:
    with freeze_time("2026-11-23 00:00:00") as clock, KisGateway().mocked() as gateway:
        client = KisClient(tokens=_manager(gateway))
        first = client.access_token
        for minutes in (0, 23 * 60, 49, 0, 1, 24 * 60):  # 23:49 after the issue; the margin begins at 23:50
            clock.tick(timedelta(minutes=minutes))
            assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
            assert (client.access_token == first) == (gateway.counts.token_requests == 1)
        assert gateway.counts.refused == 0
        assert gateway.counts.token_requests == 3


@pytest.mark.parametrize(("seconds_before", "requests_made"), [(600.001, 1), (600, 2), (0.001, 2), (0, 2), (-1, 2)])
def test_the_margin_is_kept_to_the_tick(seconds_before: float, requests_made: int) -> None:
    with freeze_time("2026-11-23 00:00:00") as clock, KisGateway().mocked() as gateway:
        manager = _manager(gateway, refresh_margin=600)
        expires_at = manager.token().expires_at
        clock.move_to(expires_at - timedelta(seconds=seconds_before))
        manager.token()
        assert gateway.counts.token_requests == requests_made


def test_without_a_margin_the_token_is_used_to_its_end() -> None:
    with freeze_time("2026-11-23 00:00:00") as clock, KisGateway().mocked() as gateway:
        manager = _manager(gateway, refresh_margin=0)
        token = manager.token()
        clock.move_to(token.expires_at - timedelta(seconds=1))
        assert manager.token() is token
        assert not manager.is_dead(token.value)
        clock.move_to(token.expires_at)
        assert manager.is_dead(token.value), "from that very second on"
        assert manager.token() != token


def test_a_renewal_ahead_of_time_is_said(events: list[RefreshEvent]) -> None:
    with freeze_time("2026-11-23 00:00:00") as clock, KisGateway().mocked() as gateway:
        manager = _manager(gateway)
        old = manager.token()
        clock.move_to(old.expires_at - timedelta(seconds=60))
        new = manager.token()
        (event,) = events
        assert (event.name, event.token, event.previous_token) == ("token_refreshed", new.fingerprint, old.fingerprint)
        assert (event.callable, event.source) == (None, "issued")


def test_an_expired_token_that_cannot_be_renewed_is_handed_out_so_that_kis_answers() -> None:
    with freeze_time("2026-11-23 00:00:00") as clock, KisGateway().mocked() as gateway:
        client = KisClient(tokens=_manager(gateway))
        client.fetch_domestic_price("005930")
        clock.tick(timedelta(hours=25))
        gateway.refuse_tokens(code="EGW00105")
        gateway.reset_counts()
        assert [client.fetch_domestic_price("005930")["msg_cd"] for _ in range(10)] == ["EGW00123"] * 10
        assert gateway.counts.token_requests == 1
        clock.tick(timedelta(seconds=61))  # the cool-down is over
        gateway.heal()
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"


def test_the_headers_are_all_that_kis_wants_and_fresh_each_time(gateway: KisGateway, manager: TokenManager) -> None:
    headers = manager.headers("HHKDB669108C0", custtype="P")
    assert headers == {
        "content-type": "application/json",
        "authorization": manager.authorization,
        "appkey": gateway.credentials.app_key,
        "appsecret": gateway.credentials.app_secret,
        "tr_id": "HHKDB669108C0",
        "custtype": "P",
    }
    assert manager.headers("X") is not manager.headers("X")
    path = gateway.url + "/uapi/domestic-stock/v1/quotations/inquire-price"
    assert requests.get(path, headers=manager.headers("FHKST01010100"), timeout=5).json()["rt_cd"] == "0"


def test_it_is_a_token_source(manager: TokenManager) -> None:
    assert isinstance(manager, TokenSource)
    assert manager.identity is manager
    assert isinstance(manager.token(), AccessToken)


def test_a_session_of_the_user_carries_the_token_requests(gateway: KisGateway) -> None:
    with requests.Session() as session:
        session.headers["x-corporate-proxy"] = "yes"
        sent: list[str] = []
        session.hooks["response"].append(lambda answer, **_: sent.append(answer.request.headers["x-corporate-proxy"]))
        TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(), session=session).token()
        assert sent == ["yes"]


def test_a_redirect_does_not_carry_the_secret_to_another_host() -> None:
    credentials = Credentials("key", "secret")
    with responses.RequestsMock() as mock:
        elsewhere = {"Location": "https://elsewhere.example/oauth2/tokenP"}
        mock.post(f"{credentials.base_url}/oauth2/tokenP", status=307, headers=elsewhere, json={})
        with pytest.raises(TokenIssueError, match="307"):
            TokenManager(credentials, store=MemoryTokenStore(), policy=RetryPolicy(issue_wait=0)).token()
        assert [call.request.url for call in mock.calls] == [f"{credentials.base_url}/oauth2/tokenP"]


@pytest.mark.parametrize("rejected", ["value", "bearer", "token"])
def test_refresh_takes_the_token_in_any_form(gateway: KisGateway, manager: TokenManager, rejected: str) -> None:
    token = manager.token()
    gateway.expire()
    new = manager.refresh(token if rejected == "token" else getattr(token, rejected))
    assert new != token
    assert gateway.counts.token_requests == 2


def test_refresh_of_nobody_knows_what_keeps_a_good_token(gateway: KisGateway, manager: TokenManager) -> None:
    token = manager.token()
    assert manager.refresh(None) == token
    assert manager.refresh("somebody else's") == token
    assert gateway.counts.token_requests == 1


def test_its_options_are_named(gateway: KisGateway) -> None:
    with pytest.raises(TypeError, match="positional"):
        TokenManager(gateway.credentials, MemoryTokenStore())  # type: ignore[call-arg]  # the mistake that is meant
