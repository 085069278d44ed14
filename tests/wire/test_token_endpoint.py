"""A library's own requests about its token: answered by the account's source, in KIS's words."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from kis_retry import install, refresh_on_expired_token, uninstall
from kis_retry.testing import KisGateway
from senders import GOOD, PRICE, SYNC, Answer, Wire, headers_for, manager_for


def token_request(gateway: KisGateway, path: str = "tokenP", **body: str) -> dict[str, Any]:
    credentials = gateway.credentials
    said = {"grant_type": "client_credentials", "appkey": credentials.app_key, "appsecret": credentials.app_secret}
    return {"url": f"{gateway.url}/oauth2/{path}", "json": {**said, **body}}


POSTS: dict[str, Callable[..., Any]] = {
    "requests": lambda url, json: requests.post(url, json=json, timeout=9),
    "httpx": lambda url, json: httpx.post(url, json=json),
}


@pytest.mark.parametrize("library", POSTS)
def test_a_herd_of_token_requests_is_one(library: str, other: KisGateway) -> None:
    install(rate=0)

    def refresh(_: int) -> Any:
        return POSTS[library](**token_request(other)).json()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(refresh, range(16)))
    assert {answer["access_token"] for answer in answers} == {other.current_token}
    assert set(answers[0]) == {"access_token", "access_token_token_expired", "token_type", "expires_in"}
    assert 0 < answers[0]["expires_in"] <= 86_400
    assert other.counts.token_requests == 1


@pytest.mark.parametrize("wire", SYNC, ids=lambda wire: wire.name)
def test_a_library_that_asks_for_a_token_gets_none_that_was_refused(wire: Wire, other: KisGateway) -> None:
    install(rate=0)
    request = token_request(other)

    def fresh() -> Answer:
        return wire.send("POST", request["url"], {}, request["json"], 5)

    assert fresh().status == 200
    first = other.current_token
    other.expire()
    assert wire.get(other, authorization=f"Bearer {first}") == GOOD
    second = other.current_token
    assert fresh().status == 200
    assert (other.current_token, second != first) == (second, True), "the one that took its place is handed over"
    assert other.counts.token_requests == 2


@pytest.mark.parametrize("library", POSTS)
def test_a_token_request_with_a_wrong_secret_fails_in_the_words_of_kis(library: str, other: KisGateway) -> None:
    install(tokens=manager_for(other), rate=0)
    said = token_request(other, appsecret="wrong")
    answer = POSTS[library](**said)
    assert (answer.status_code, answer.json()["error_code"]) == (403, "EGW00105")
    uninstall()
    assert answer.json() == requests.post(**said, timeout=9).json()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("library", POSTS)
def test_a_token_request_within_the_minute_is_refused_in_the_words_of_kis(library: str, gateway: KisGateway) -> None:
    said = token_request(gateway)
    refused = requests.post(**said, timeout=9)
    install(rate=0)
    answer = POSTS[library](**said)
    assert (answer.status_code, answer.json()) == (refused.status_code, refused.json())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("library", POSTS)
def test_a_token_endpoint_that_cannot_be_reached_is_an_error_of_the_library(library: str, other: KisGateway) -> None:
    install(rate=0)
    other.drop("tokens")
    with pytest.raises((requests.ConnectionError, httpx.ReadError)):
        POSTS[library](**token_request(other))


@pytest.mark.parametrize("library", POSTS)
def test_a_token_that_a_library_revoked_is_dead(library: str, gateway: KisGateway) -> None:
    token = str(gateway.current_token)
    fetch = refresh_on_expired_token(lambda: SYNC[0].get(gateway, authorization=f"Bearer {token}"))
    assert fetch() == GOOD

    @refresh_on_expired_token
    def revoke() -> int:
        return int(POSTS[library](**token_request(gateway, "revokeP", token=token)).status_code)

    assert revoke() == 200
    gateway.expire()
    assert fetch() == GOOD
    assert gateway.counts.refused == 0, "it has not left again"


async def test_a_token_that_aiohttp_got_by_itself_is_adopted(other: KisGateway) -> None:
    @refresh_on_expired_token
    async def begin() -> str:
        async with aiohttp.ClientSession() as session, session.post(**token_request(other)) as response:
            return str((await response.json())["access_token"])

    tokens = manager_for(other)
    token = await begin()
    assert (await tokens.token_async()).value == token
    assert other.counts.token_requests == 1


def test_no_token_is_asked_of_another_host_that_a_redirect_leads_to(gateway: KisGateway, other: KisGateway) -> None:
    install(rate=0)
    gateway.fail(303, times=1, headers={"Location": other.url + PRICE})
    httpx.get(gateway.url + PRICE, headers=headers_for(gateway), follow_redirects=True)
    assert (other.counts.calls, other.counts.token_requests) == (1, 0)


def test_a_websocket_key_needs_neither_token_nor_slot_and_is_repeated_as_a_read(other: KisGateway) -> None:
    install(rate=0)
    other.fail(503, times=1, where="tokens", path="/oauth2/Approval")
    request = token_request(other, "Approval", secretkey=other.credentials.app_secret)
    assert requests.post(**request, timeout=9).json()["approval_key"] in other.approval_keys
    assert other.counts.token_requests == 0
