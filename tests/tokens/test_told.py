"""What is told of a token: every field of every event, on a clock on which a request takes three seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from clocks import FakeClock, tokens_on
from kis_retry import (
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
)
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kis_retry import AccessToken

DAY = 86_400
TAKES = 3.0


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock()) as clock:
        yield clock


@pytest.fixture
def gateway(clock: FakeClock) -> Iterator[KisGateway]:
    with KisGateway(clock=clock.monotonic) as running:
        yield running


@pytest.fixture
def manager(gateway: KisGateway, clock: FakeClock) -> Iterator[TokenManager]:
    class Slow(requests.Session):
        def post(self, *arguments: Any, **options: Any) -> requests.Response:
            clock.now += TAKES
            return super().post(*arguments, **options)

    with Slow() as session:
        policy = RetryPolicy(refresh_margin=600)
        yield TokenManager(
            gateway.credentials, store=MemoryTokenStore(), policy=policy, session=session, sleep=clock.sleep
        )


def inside_a_call(manager: TokenManager, ask: Callable[[], object]) -> str:
    """Have `ask` called by a decorated function, and give the function's name."""

    @refresh_on_expired_token(tokens=manager)
    def fetch() -> dict[str, str]:
        ask()
        return {"rt_cd": "0"}

    fetch()
    name: str = fetch.__qualname__
    return name


def issued(new: AccessToken, old: AccessToken, **fields: Any) -> RefreshEvent:
    return RefreshEvent(
        name="token_refreshed",
        token=new.fingerprint,
        previous_token=old.fingerprint,
        expires_at=new.expires_at,
        source="issued",
        elapsed=TAKES,
        **fields,
    )


def test_a_refresh_by_hand(manager: TokenManager, gateway: KisGateway, events: list[RefreshEvent]) -> None:
    old = manager.token()
    gateway.expire()
    new = manager.refresh(old)
    assert events == [issued(new, old)]


def test_a_refresh_by_hand_on_a_machine_that_has_just_begun(
    manager: TokenManager,
    gateway: KisGateway,
    clock: FakeClock,
    events: list[RefreshEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The monotonic clock begins there, and has shown less than the refresh takes."""
    old = manager.token()
    gateway.expire()
    began = clock.now - TAKES / 2
    monkeypatch.setattr(clock, "monotonic", lambda: clock.now - began)
    new = manager.refresh(old)
    assert events == [issued(new, old)]


def test_a_refresh_of_nobody_knows_what(manager: TokenManager, events: list[RefreshEvent]) -> None:
    token = manager.refresh(None)
    (event,) = events
    assert event.previous_token is None
    assert event.token == token.fingerprint


@pytest.mark.parametrize("seconds", [DAY, DAY - 300], ids=["past the expiry", "ahead of it"])
def test_a_renewal_inside_a_call(
    seconds: float, manager: TokenManager, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    old = manager.token()

    def ask() -> None:
        clock.now += seconds
        manager.token()

    name = inside_a_call(manager, ask)
    assert events == [issued(manager.token(), old, callable=name)]


def test_a_renewal_on_a_machine_that_has_just_begun(
    manager: TokenManager, clock: FakeClock, events: list[RefreshEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock begins there, and has shown less than the renewal takes."""
    old = manager.token()
    clock.now += DAY
    began = clock.now - TAKES / 2
    monkeypatch.setattr(clock, "monotonic", lambda: clock.now - began)
    new = manager.token()
    assert events == [issued(new, old)]


@pytest.mark.parametrize("seconds", [DAY, DAY - 300], ids=["past the expiry", "ahead of it"])
def test_a_renewal_that_failed_inside_a_call(
    seconds: float, manager: TokenManager, gateway: KisGateway, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    old = manager.token()
    gateway.refuse_tokens(code="EGW00105")

    def ask() -> None:
        clock.now += seconds
        assert manager.token() == old

    name = inside_a_call(manager, ask)
    failed = RefreshEvent(
        name="token_refresh_failed",
        callable=name,
        msg_cd="EGW00105",
        previous_token=old.fingerprint,
        expires_at=old.expires_at,
        elapsed=TAKES,
        error="TokenIssueError",
    )
    assert events == [failed]


def test_the_wait_for_an_endpoint_that_is_away_once_and_how_long_it_may_last(
    manager: TokenManager, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    gateway.refuse_tokens(3, code=None, status=503)
    name = inside_a_call(manager, manager.token)
    waiting = RefreshEvent(
        name="token_issue_waiting", callable=name, elapsed=manager.policy.issue_wait - TAKES, error="TokenIssueError"
    )
    assert events == [waiting]


def test_each_wait_for_the_minute_and_how_long_it_is(
    manager: TokenManager, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    gateway.refuse_tokens("EGW00133", 2)
    manager.token()
    left = manager.policy.issue_wait - 60 - 2 * TAKES
    waiting = [(event.name, event.callable, event.msg_cd, event.elapsed, event.error) for event in events]
    said = "token_issue_waiting", None, "EGW00133"
    assert waiting == [(*said, 60.0, "TokenIssueLimited"), (*said, left, "TokenIssueLimited")]
