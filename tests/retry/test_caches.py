"""Under `requests_cache.install_cache()`: what is good may come from the cache, a failure of KIS never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import requests_cache

from answers import PRICE
from kis_retry import (
    AccessToken,
    MemoryTokenStore,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.testing import KisGateway

Fetch = Callable[[int], Any]


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Installed before anything is decorated, and for requests of every method."""
    requests_cache.install_cache(
        backend="memory", allowable_methods=("GET", "HEAD", "POST"), allowable_codes=(200, 403, 500), expire_after=600
    )
    yield
    requests_cache.uninstall_cache()


@pytest.fixture(params=[500, 200])
def gateway(request: pytest.FixtureRequest) -> Iterator[KisGateway]:
    with KisGateway(expired_status=request.param) as running:
        yield running


@pytest.fixture
def fetch(gateway: KisGateway, manager: TokenManager) -> Fetch:
    base = manager.headers("FHKST01010100")

    @refresh_on_expired_token(tokens=manager)
    @retry_on_transient_error
    def fetch(symbol: int) -> Any:
        query = {"FID_INPUT_ISCD": f"{symbol:06d}"}
        return requests.get(gateway.url + PRICE, params=query, headers=base, timeout=9).json()

    return fetch


def test_a_refusal_is_not_kept(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.expire()
    gateway.reset_counts()
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert (gateway.counts.calls, gateway.counts.refused, gateway.counts.token_requests) == (2, 1, 1)


def test_a_refusal_that_was_kept_before_is_asked_for_anew(
    gateway: KisGateway, manager: TokenManager, fetch: Fetch
) -> None:
    gateway.expire()
    query, headers = {"FID_INPUT_ISCD": "000001"}, manager.headers("FHKST01010100")
    for _ in range(2):
        answer = requests.get(gateway.url + PRICE, params=query, headers=headers, timeout=9)
    assert getattr(answer, "from_cache", False)
    assert answer.json()["rt_cd"] == "1"
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3


def test_what_passes_by_itself_is_not_kept(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.refuse_calls("EGW00201", 2)
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert gateway.counts.calls == 3


def test_a_good_answer_is(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.reset_counts()
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert gateway.counts.calls == 1


def test_what_is_never_mended_is_handed_back_and_not_kept(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.refuse_calls()
    gateway.expire()
    assert fetch(1)["msg_cd"] == "EGW00123"
    cache = requests_cache.get_cache()
    assert cache is not None
    assert not list(cache.responses)


def test_no_token_comes_from_a_cache(gateway: KisGateway) -> None:
    def issued() -> AccessToken:
        gateway.expire()
        return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy()).token()

    assert issued() != issued()
