"""The way to the host: whose session it is, what of the environment counts, and who closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import requests

from clients import KINDS, Asking
from kis_retry import (
    AsyncKisClient,
    ConfigurationError,
    Credentials,
    KisClient,
    MemoryTokenStore,
    RateLimiter,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
)
from kis_retry.testing import KisGateway
from loopback import Loopback, Reply

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


def manager_for(gateway: KisGateway, **policy: Any) -> TokenManager:
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(**policy))
    manager.token()
    return manager


@pytest.fixture
def no_pace(gateway: KisGateway) -> RateLimiter:
    return RateLimiter(gateway.credentials, rate=0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_no_instruction(
    status: int, at_host: Callable[..., Asking], host: Loopback, gateway: KisGateway
) -> None:
    host.replies = [Reply({}, {"location": f"{gateway.url}/uapi/elsewhere"}, status)]
    client = at_host(transient_deadline=0)
    assert client.get("/uapi/anything", "FHKST01010100") == {}
    assert client.post("/uapi/anything", "TTTC0012U") == {}
    assert gateway.counts.calls == 0


def test_a_request_without_an_answer_ends_in_time(make: Callable[..., Asking], gateway: KisGateway) -> None:
    client = make(timeout=(1.0, 0.1), transient_deadline=0)
    client.access_token if isinstance(client.client, KisClient) else client.access_token()
    gateway.hang("calls", seconds=30)
    for ask in (lambda: client.fetch_domestic_price("005930"), lambda: client.post(ORDER, "TTTC0012U")):
        with pytest.raises((requests.exceptions.ReadTimeout, httpx.ReadTimeout)):
            ask()


# -- a session of the user's


def test_a_given_session_carries_the_token_requests_too(gateway: KisGateway) -> None:
    with requests.Session() as session:
        seen: list[str] = []
        session.hooks["response"].append(lambda response, **_: seen.append(response.request.path_url.partition("?")[0]))
        client = KisClient(gateway.credentials, session=session)
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        client.close()
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0", "it is the user's to close"
    price = "/uapi/domestic-stock/v1/quotations/inquire-price"
    assert seen == ["/oauth2/tokenP", price, price]


def test_a_proxy_or_a_bundle_of_a_given_session_counts_for_the_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # which requests prefers to a session's own
        monkeypatch.delenv(variable, raising=False)
    credentials = Credentials("key", "secret", base_url="https://127.0.0.1:1")
    for settings, said in (
        ({"proxies": {"https": "http://127.0.0.1:1"}}, "proxy"),
        ({"verify": "/no/ca.pem"}, "/no/ca"),
    ):
        with requests.Session() as session:
            for name, value in settings.items():
                setattr(session, name, value)
            client = KisClient(credentials, session=session, policy=RetryPolicy(issue_wait=0))
            with pytest.raises(TokenIssueError, match=f"(?i){said}"):
                client.fetch_domestic_price("005930")


async def test_a_given_client_of_httpx_goes_its_own_way(gateway: KisGateway, no_pace: RateLimiter) -> None:
    seen: list[int] = []

    async def note(response: httpx.Response) -> None:
        seen.append(response.status_code)

    async with httpx.AsyncClient(event_hooks={"response": [note]}) as session:
        async with AsyncKisClient(tokens=manager_for(gateway), limiter=no_pace, session=session) as client:
            assert (await client.fetch_domestic_price("005930"))["rt_cd"] == "0"
        assert (await client.fetch_domestic_price("005930"))["rt_cd"] == "0", "it is the user's to close"
    assert seen == [200, 200]


# -- a session of the client's own


def test_the_environments_proxy_counts_and_a_netrc_does_not(
    gateway: KisGateway, kind: str, make: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login name password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client = make()
    assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
    assert gateway.counts.refused == 0, "the password is not sent in the place of the token"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("NO_PROXY", "")
    policy = RetryPolicy(transient_deadline=0)
    other = Asking(KINDS[kind](tokens=client.tokens, limiter=client.limiter, policy=policy))
    with pytest.raises((requests.exceptions.ProxyError, httpx.ConnectError)):
        other.fetch_domestic_price("005930")
    other.shut()


def test_a_bundle_of_certificates_that_is_not_there_is_named(
    kind: str, gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    credentials = Credentials("key", "secret", base_url="https://127.0.0.1:9")
    client = Asking(KINDS[kind](credentials, tokens=manager_for(gateway)))
    with pytest.raises(ConfigurationError, match=r"REQUESTS_CA_BUNDLE.*/nowhere/ca\.pem|/nowhere.*REQUESTS_CA_BUNDLE"):
        client.fetch_domestic_price("005930")
    client.shut()


def test_a_closed_client_opens_connections_again(client: Asking) -> None:
    for _ in range(2):
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        client.close()
        client.close()


def test_an_async_client_serves_one_event_loop_after_the_other(gateway: KisGateway, no_pace: RateLimiter) -> None:
    client = AsyncKisClient(tokens=manager_for(gateway), limiter=no_pace)

    async def ask() -> Any:
        try:
            return (await client.fetch_domestic_price("005930"))["rt_cd"]
        finally:
            await client.close()

    assert [asyncio.run(ask()) for _ in range(3)] == ["0", "0", "0"]
