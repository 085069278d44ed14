"""Decorated functions that call each other: the innermost handles what went wrong, however it was told, and once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from kis_retry import RetryPolicy, refresh_on_expired_token, retry_on_transient_error
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kis_retry import RefreshEvent, TokenManager

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"


def request(gateway: KisGateway, manager: TokenManager) -> dict[str, Any]:
    """Make one call, whose failure is an exception."""
    response = requests.get(gateway.url + PRICE, headers=manager.headers("FHKST01010100"), timeout=5)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def nested(decorate: Callable[[Any], Any], innermost: Callable[[], Any]) -> Callable[[], Any]:
    inner = decorate(innermost)
    middle = decorate(lambda: inner())
    outer: Callable[[], Any] = decorate(lambda: middle())
    return outer


async def call_async(decorate: Callable[[Any], Any], innermost: Callable[[], Any]) -> Any:
    @decorate
    async def inner() -> Any:
        return innermost()

    @decorate
    async def middle() -> Any:
        return await inner()

    @decorate
    async def outer() -> Any:
        return await middle()

    return await outer()


@pytest.fixture
def gateway() -> Iterator[KisGateway]:
    """Without a minute to wait for: who asks too often gets too many tokens, and soon."""
    with KisGateway(issue_interval=0) as running:
        yield running


@pytest.fixture
def dead_for_ever(gateway: KisGateway, manager: TokenManager) -> None:
    manager.token()
    gateway.expire()
    gateway.refuse_calls()
    gateway.reset_counts()


@pytest.mark.usefixtures("dead_for_ever")
def test_three_deep_an_expiry_that_is_raised_is_one_issue_and_one_repeat(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    outer = nested(refresh_on_expired_token(tokens=manager), lambda: request(gateway, manager))
    with pytest.raises(requests.HTTPError) as caught:
        outer()
    assert caught.value.response.json()["msg_cd"] == "EGW00123"
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)
    told = [event.name for event in events]
    assert told == ["token_expired", "token_refreshed", "token_expired", "call_given_up"]


@pytest.mark.usefixtures("dead_for_ever")
async def test_three_coroutines_deep_it_is_the_same(gateway: KisGateway, manager: TokenManager) -> None:
    with pytest.raises(requests.HTTPError):
        await call_async(refresh_on_expired_token(tokens=manager), lambda: request(gateway, manager))
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)


@pytest.mark.usefixtures("dead_for_ever")
def test_three_deep_it_is_the_same_where_nobody_sees_the_request(gateway: KisGateway, manager: TokenManager) -> None:
    decorate = refresh_on_expired_token(tokens=manager, watch_transport=False)
    with pytest.raises(requests.HTTPError):
        nested(decorate, lambda: request(gateway, manager))()
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)


@pytest.mark.parametrize("raised", [True, False])
def test_three_deep_a_failure_that_stays_is_given_up_once(
    raised: bool, gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    def innermost() -> Any:
        response = requests.get(gateway.url + PRICE, headers=manager.headers("FHKST01010100"), timeout=5)
        if raised:
            response.raise_for_status()
        return response

    gateway.fail(503)
    outer = nested(retry_on_transient_error(policy=RetryPolicy(transient_deadline=0.05)), innermost)
    if raised:
        with pytest.raises(requests.HTTPError):
            outer()
    else:
        assert outer().status_code == 503
    assert [event.name for event in events if event.name != "call_retried"] == ["call_given_up"]
