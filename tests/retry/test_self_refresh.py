"""Libraries that repeat a call, or ask KIS for a token, by themselves inside a decorated call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from answers import EXPIRED_CODE, PRICE
from kis_retry import MemoryTokenStore, RefreshEvent, RetryPolicy, TokenManager, refresh_on_expired_token
from kis_retry.context import bypassed
from kis_retry.testing import KisGateway

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
THREADS = 16
TRIES = 3


@pytest.fixture(params=[500, 200])
def gateway(request: pytest.FixtureRequest) -> Any:
    with KisGateway(expired_status=request.param) as running:
        yield running


class Stubborn:
    """It repeats what was refused with the token that it has, as kis-agent and kis-trader do."""

    def __init__(self, gateway: KisGateway, tokens: TokenManager) -> None:
        self.url, self.headers = gateway.url, tokens.headers("FHKST01010100")
        self.tokens = tokens

    def get(self, symbol: int, **how: Any) -> dict[str, Any]:
        query = {"FID_INPUT_ISCD": f"{symbol:06d}"}
        answer: dict[str, Any] = {}
        for _ in range(TRIES):
            answer = requests.get(self.url + PRICE, params=query, headers=self.headers, timeout=9).json()
            if answer["rt_cd"] == "0":
                break
        return answer


class SelfRefreshing(Stubborn):
    """It asks KIS for a token of its own, as python-kis does, with no thought of other threads."""

    def ask_for_token(self, **changes: str) -> requests.Response:
        who = self.tokens.credentials
        body = {"grant_type": "client_credentials", "appkey": who.app_key, "appsecret": who.app_secret, **changes}
        return requests.post(f"{self.url}/oauth2/tokenP", json=body, timeout=9)

    def get(self, symbol: int, **how: Any) -> dict[str, Any]:
        query, headers = {"FID_INPUT_ISCD": f"{symbol:06d}"}, dict(self.headers)
        answer: dict[str, Any] = {}
        for _ in range(TRIES):
            answer = requests.get(self.url + PRICE, params=query, headers=headers, timeout=9).json()
            if answer["rt_cd"] == "0":
                break
            issued = self.ask_for_token()
            issued.raise_for_status()
            token = issued.json()
            assert token["token_type"] == "Bearer"
            assert 86_000 < token["expires_in"] <= 86_400
            headers["authorization"] = f"Bearer {token['access_token']}"
        return answer


def over_an_expiry(kind: type[Stubborn], gateway: KisGateway, tokens: TokenManager, **options: Any) -> Any:
    """The call of such a library, decorated, whose token has expired since it got it."""
    fetch = refresh_on_expired_token(kind(gateway, tokens).get, tokens=tokens, **options)
    gateway.expire()
    gateway.reset_counts()
    return fetch


def in_threads(fetch: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(fetch, range(3 * THREADS)))


@pytest.mark.parametrize("kind", [Stubborn, SelfRefreshing])
def test_its_threads_join_the_one_refresh(
    kind: type[Stubborn], gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    fetch = over_an_expiry(kind, gateway, manager)
    assert {answer["rt_cd"] for answer in in_threads(fetch)} == {"0"}
    assert gateway.counts.token_requests == 1
    assert 0 < gateway.counts.refused <= THREADS
    assert [event.name for event in events].count("token_refreshed") == 1
    assert not [event for event in events if event.name == "token_refresh_failed"]


@pytest.mark.parametrize("kind", [Stubborn, SelfRefreshing])
def test_what_it_mended_by_itself_is_not_called_again(
    kind: type[Stubborn], gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    fetch = over_an_expiry(kind, gateway, manager)
    assert fetch(1)["rt_cd"] == "0"
    assert (gateway.counts.calls, gateway.counts.token_requests) == (2, 1)
    assert [(event.name, event.attempt) for event in events] == [("token_refreshed", 1)]


async def test_httpx_in_a_loop_joins_too(gateway: KisGateway, manager: TokenManager) -> None:
    headers = await manager.headers_async("FHKST01010100")
    who = manager.credentials
    body = {"grant_type": "client_credentials", "appkey": who.app_key, "appsecret": who.app_secret}

    @refresh_on_expired_token(tokens=manager)
    async def fetch(client: httpx.AsyncClient, symbol: int, asks: bool) -> Any:
        own = dict(headers)
        for _ in range(TRIES):
            answer = (await client.get(PRICE, params={"FID_INPUT_ISCD": symbol}, headers=own)).json()
            if answer["rt_cd"] == "0":
                break
            if asks:
                token = (await client.post("/oauth2/tokenP", json=body)).raise_for_status().json()
                own["authorization"] = f"Bearer {token['access_token']}"
        return answer

    async with httpx.AsyncClient(base_url=gateway.url) as client:
        for asks in (True, False):
            gateway.expire()
            gateway.reset_counts()
            answers = await asyncio.gather(*(fetch(client, n, asks) for n in range(THREADS)))
            assert {answer["rt_cd"] for answer in answers} == {"0"}
            assert gateway.counts.token_requests == 1
            assert gateway.counts.refused <= THREADS


def test_hooks_of_the_library_see_the_answer_to_its_token_request(gateway: KisGateway, manager: TokenManager) -> None:
    seen: list[str] = []
    with requests.Session() as session:
        session.hooks["response"] = [lambda response, **_: seen.append(response.json()["access_token"])]
        who = manager.credentials
        body = {"grant_type": "client_credentials", "appkey": who.app_key, "appsecret": who.app_secret}
        ask = refresh_on_expired_token(lambda: session.post(f"{gateway.url}/oauth2/tokenP", json=body), tokens=manager)
        assert ask().json()["access_token"] == manager.token().value
    assert seen == [manager.token().value]


def test_httpx_joins_too(gateway: KisGateway, manager: TokenManager) -> None:
    who = manager.credentials
    body = {"grant_type": "client_credentials", "appkey": who.app_key, "appsecret": who.app_secret}

    @refresh_on_expired_token(tokens=manager)
    def first_token(client: httpx.Client) -> Any:
        return client.post("/oauth2/tokenP", json=body).json()["access_token"]

    with httpx.Client(base_url=gateway.url) as client:
        assert {first_token(client) for _ in range(3)} == {manager.token().value}
    assert gateway.counts.token_requests == 1


async def test_a_repeat_of_aiohttp_leaves_with_a_fresh_token(gateway: KisGateway, manager: TokenManager) -> None:
    headers = await manager.headers_async("FHKST01010100")

    @refresh_on_expired_token(tokens=manager)
    async def fetch(session: aiohttp.ClientSession, symbol: int) -> Any:
        for _ in range(TRIES):
            async with session.get(gateway.url + PRICE, params={"FID_INPUT_ISCD": symbol}) as response:
                answer = await response.json()
            if answer["rt_cd"] == "0":
                break
        return answer

    gateway.expire()
    gateway.reset_counts()
    async with aiohttp.ClientSession(headers=headers) as session:
        answers = await asyncio.gather(*(fetch(session, n) for n in range(THREADS)))
    assert {answer["rt_cd"] for answer in answers} == {"0"}
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused <= THREADS


# A token request of its own.


@pytest.mark.parametrize("changes", [{"appkey": "PSother"}, {"appsecret": "other"}])
def test_a_token_request_of_another_account_goes_to_kis(
    changes: dict[str, str], gateway: KisGateway, manager: TokenManager
) -> None:
    library = SelfRefreshing(gateway, manager)
    ask = refresh_on_expired_token(lambda: library.ask_for_token(**changes), tokens=manager)
    before = gateway.counts.token_requests
    assert ask().status_code == 403
    assert gateway.counts.token_requests == before + 1


def test_a_token_request_to_another_host_is_left_alone(gateway: KisGateway, manager: TokenManager) -> None:
    with KisGateway(app_key=manager.credentials.app_key, app_secret=manager.credentials.app_secret) as elsewhere:
        library = SelfRefreshing(elsewhere, manager)
        token = refresh_on_expired_token(library.ask_for_token, tokens=manager)().json()["access_token"]
        assert token == elsewhere.current_token != manager.token().value


def test_outside_of_a_call_it_is_left_alone(gateway: KisGateway, manager: TokenManager) -> None:
    library = SelfRefreshing(gateway, manager)
    refresh_on_expired_token(library.ask_for_token, tokens=manager)
    assert library.ask_for_token().json()["error_code"] == "EGW00133"
    with bypassed():
        assert library.ask_for_token().status_code == 403


def test_what_kis_says_to_the_one_refresh_is_what_each_library_is_told(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    library = SelfRefreshing(gateway, manager)
    fetch = refresh_on_expired_token(library.get, tokens=manager)
    gateway.expire()
    gateway.refuse_tokens()
    gateway.reset_counts()
    for _ in range(5):
        with pytest.raises(requests.HTTPError, match="403"):
            fetch(1)
    assert gateway.counts.token_requests == 1
    failures = {(event.error, event.msg_cd) for event in events if event.name == "token_refresh_failed"}
    assert failures == {("TokenIssueError", "EGW00103")}


def test_where_nobody_answers_the_library_asks_for_itself(gateway: KisGateway) -> None:
    policy = RetryPolicy(issue_wait=0)
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy)
    library = SelfRefreshing(gateway, manager)
    fetch = refresh_on_expired_token(library.get, tokens=manager)
    gateway.expire()
    gateway.drop("tokens", times=2)
    with pytest.raises(requests.ConnectionError):
        fetch(1)
    assert fetch(1)["rt_cd"] == "0"


@pytest.mark.parametrize("how", ["no retries", "not watched"])
def test_switched_off_the_library_is_on_its_own(how: str, gateway: KisGateway) -> None:
    policy = RetryPolicy(max_retries=0 if how == "no retries" else 1)
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy)
    fetch = over_an_expiry(Stubborn, gateway, manager, watch_transport=how != "not watched")
    assert fetch(1)["rt_cd"] == ("1" if how == "no retries" else "0")
    assert gateway.counts.refused == TRIES


@pytest.mark.parametrize("kind", [Stubborn, SelfRefreshing])
def test_a_token_that_does_not_help_is_not_followed_by_another(
    kind: type[Stubborn], gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    fetch = over_an_expiry(kind, gateway, manager)
    gateway.refuse_calls()
    if kind is Stubborn:
        assert fetch(1)["msg_cd"] == EXPIRED_CODE
    else:
        with pytest.raises(requests.HTTPError, match="403"):  # it asks KIS once more, within the minute
            fetch(1)
    assert gateway.counts.tokens_issued == 1
    assert [event.name for event in events][-1] == "call_given_up"


def test_a_dead_token_that_was_adopted_does_not_spend_the_one_refresh(gateway: KisGateway) -> None:
    store = MemoryTokenStore()
    mine, others = (TokenManager(gateway.credentials, store=store, policy=RetryPolicy()) for _ in range(2))
    library = Stubborn(gateway, mine)
    gateway.expire()
    others.refresh(mine.token())
    gateway.expire()
    gateway.reset_counts()
    assert refresh_on_expired_token(library.get, tokens=mine)(1)["rt_cd"] == "0"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (2, 1)


# A refusal that the function passed over.


class Searching(Stubborn):
    """It asks one exchange after the other; a refusal means "not there" to it, as to korea-investment-stock 0.12."""

    def find(self, between: Callable[[], object] = lambda: None) -> Any:
        for exchange in ("NYS", "NAS", "AMS"):
            query = {"AUTH": "", "EXCD": exchange, "SYMB": "JPM"}
            url = f"{self.url}/uapi/overseas-price/v1/quotations/price-detail"
            answer = requests.get(url, params=query, headers=self.headers, timeout=9).json()
            if answer["rt_cd"] == "0" and answer["output"]["rsym"]:
                return answer["output"]["rsym"]
            between()
        raise ValueError("JPM: not found")


def test_a_good_answer_to_another_request_does_not_make_up_for_a_refusal(
    gateway: KisGateway, manager: TokenManager
) -> None:
    library = Searching(gateway, manager)
    find = refresh_on_expired_token(library.find, tokens=manager)
    gateway.expire()

    def somebody_else_refreshes() -> None:
        manager.refresh(manager.token())
        library.headers = manager.headers("HHDFS76200200")

    threads = [threading.Thread(target=somebody_else_refreshes)]

    def once() -> None:
        if threads:
            thread = threads.pop()
            thread.start()
            thread.join()

    assert find(once) == "DNYSJPM"
    assert gateway.counts.refused == 1


def test_reads_after_a_refusal_are_not_refused_as_well(gateway: KisGateway, manager: TokenManager) -> None:
    find = refresh_on_expired_token(Searching(gateway, manager).find, tokens=manager)
    gateway.expire()
    gateway.reset_counts()
    assert find() == "DNYSJPM"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)


def test_an_order_after_a_refused_read_waits_for_the_whole_function(gateway: KisGateway, manager: TokenManager) -> None:
    headers = manager.headers("TTTC0012U")

    @refresh_on_expired_token(tokens=manager)
    def buy_at_price() -> Any:
        price = requests.get(gateway.url + PRICE, params={"FID_INPUT_ISCD": "005930"}, headers=headers, timeout=9)
        seen = price.json().get("output", {}).get("stck_prpr", "0")
        body = {"PDNO": "005930", "ORD_UNPR": seen}
        return requests.post(gateway.url + ORDER, json=body, headers=headers, timeout=9).json()

    gateway.expire()
    assert buy_at_price()["rt_cd"] == "0"
    (order,) = gateway.orders
    assert int(order["ORD_UNPR"]) > 0


def test_an_order_that_the_library_repeats_itself_is_placed_once(gateway: KisGateway, manager: TokenManager) -> None:
    headers = manager.headers("TTTC0012U")

    @refresh_on_expired_token(tokens=manager)
    def buy() -> Any:
        for _ in range(TRIES):
            answer = requests.post(gateway.url + ORDER, json={"PDNO": "005930"}, headers=headers, timeout=9).json()
            if answer["rt_cd"] == "0":
                return answer
        return None

    gateway.expire()
    gateway.reset_counts()
    assert buy()["rt_cd"] == "0"
    assert (len(gateway.orders), gateway.counts.refused) == (1, 1)


def test_what_an_inner_function_made_again_is_no_matter_of_the_outer_one(
    gateway: KisGateway, manager: TokenManager, events: list[RefreshEvent]
) -> None:
    headers, asked = manager.headers("FHKST01010100"), []

    @refresh_on_expired_token(tokens=manager)
    def inner() -> Any:
        asked.append(1)
        query = {"FID_INPUT_ISCD": "005930", "NONCE": str(len(asked))}
        return requests.get(gateway.url + PRICE, params=query, headers=headers, timeout=9).json()

    outer = refresh_on_expired_token(lambda: inner()["output"], tokens=manager)
    gateway.expire()
    assert outer()
    assert len(asked) == 2
    assert [event.name for event in events] == ["token_expired", "token_refreshed", "call_recovered"]
