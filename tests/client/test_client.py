"""The client: every call after an expiry, what it sends, and what it refuses to send."""

from __future__ import annotations

import inspect
import pickle
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import requests
from freezegun import freeze_time

from kis_retry import (
    ConfigurationError,
    Credentials,
    KisClient,
    MemoryTokenStore,
    ResponseError,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
)
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from collections.abc import Callable

SEOUL = timezone(timedelta(hours=9))

CALLS: dict[str, Callable[[KisClient], dict[str, Any]]] = {
    "domestic price": lambda client: client.fetch_domestic_price("005930"),
    "domestic price of an ETF": lambda client: client.fetch_domestic_price("069500", "ETF"),
    "overseas price": lambda client: client.fetch_price_detail_oversea("KO"),
    "stock info": lambda client: client.fetch_stock_info("005930"),
    "stock info of a US symbol": lambda client: client.fetch_stock_info("KO", "US"),
    "search stock info": lambda client: client.fetch_search_stock_info("005930"),
    "IPO schedule": lambda client: client.fetch_ipo_schedule(),
    "price": lambda client: client.fetch_price("005930"),
    "price of a US symbol": lambda client: client.fetch_price("KO", "US"),
    "get": lambda client: client.get("/uapi/domestic-stock/v1/quotations/inquire-member", "FHKST01010600"),
}


def _client(gateway: KisGateway, **policy: Any) -> KisClient:
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(**policy))
    return KisClient(tokens=manager)


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("name", CALLS)
def test_after_an_expiry_every_call_gets_its_right_answer(name: str, status: int) -> None:
    with KisGateway(expired_status=status) as gateway, _client(gateway) as client:
        before = CALLS[name](client)
        gateway.expire()
        gateway.reset_counts()
        after = CALLS[name](client)
        assert after["rt_cd"] == "0"
        assert after == before
        assert gateway.counts.refused == 1
        assert (gateway.counts.token_requests, gateway.counts.tokens_issued) == (1, 1)


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("dying_at", [1, 2, 3])
def test_the_overseas_loop_survives_a_token_that_dies_at_any_exchange(dying_at: int, status: int) -> None:
    with KisGateway(expired_status=status) as gateway, _client(gateway) as client:
        assert client.fetch_price_detail_oversea("KO")["rt_cd"] == "0"
        gateway.expire_at(1 + dying_at)
        answer = client.fetch_price_detail_oversea("SPY")  # listed at the third exchange
        assert answer["output"]["rsym"] == "DAMSSPY"
        assert gateway.counts.refused == 1
        assert gateway.counts.token_requests == 2
        assert gateway.counts.calls == 1 + 3 + 1  # the refused request alone is made again


@pytest.mark.parametrize("fault", ["refused", "dropped", "failing"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("no_backoff")
def test_a_request_that_was_turned_away_for_a_moment_is_made_again_and_no_other(
    name: str, fault: str, gateway: KisGateway, client: KisClient
) -> None:
    for _ in range(2):  # by the second time it knows where its symbol is
        gateway.reset_counts()
        expected = CALLS[name](client)
    calls = gateway.counts.calls
    gateway.reset_counts()
    {
        "refused": lambda: gateway.refuse_calls("EGW00201", 1),
        "dropped": lambda: gateway.drop("calls", 1),
        "failing": lambda: gateway.fail(503, 1),
    }[fault]()
    assert CALLS[name](client) == expected
    assert gateway.counts.calls == calls + 1


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("name", [name for name in CALLS if name != "price"])
def test_when_kis_calls_every_token_expired_its_own_answer_comes_back(name: str, status: int) -> None:
    with KisGateway(expired_status=status) as gateway, _client(gateway) as client:
        client.access_token  # noqa: B018  # the first token
        gateway.expire()
        gateway.refuse_calls()
        gateway.reset_counts()
        answer = CALLS[name](client)
        assert answer == {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
        assert gateway.counts.calls == 2
        assert gateway.counts.tokens_issued == 1


def test_the_composite_price_never_makes_more_than_one_issue_when_every_token_is_dead(
    gateway: KisGateway, client: KisClient
) -> None:
    client.fetch_price("005930")
    gateway.expire()
    gateway.refuse_calls()
    gateway.reset_counts()
    assert client.fetch_price("005930")["msg_cd"] == "EGW00123"
    assert gateway.counts.tokens_issued == 1
    assert gateway.counts.calls == 2


def test_without_retries_one_call_is_made_and_nothing_issued(gateway: KisGateway) -> None:
    client = _client(gateway, max_retries=0)
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.reset_counts()
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    assert (gateway.counts.calls, gateway.counts.token_requests) == (1, 0)


def test_the_clients_own_policy_goes_before_that_of_its_tokens(gateway: KisGateway, manager: TokenManager) -> None:
    client = KisClient(tokens=manager, policy=RetryPolicy(max_retries=0))
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.reset_counts()
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    assert (gateway.counts.calls, gateway.counts.token_requests) == (1, 0)


def test_a_code_of_the_policy_ends_the_overseas_loop() -> None:
    with KisGateway(issue_interval=0) as gateway, _client(gateway, expired_codes=("EGW00999",)) as client:
        client.access_token  # noqa: B018  # the first token
        gateway.refuse_calls(1, msg_cd="EGW00999", msg1="?")
        assert client.fetch_price_detail_oversea("KO")["rt_cd"] == "0"
        assert (gateway.counts.calls, gateway.counts.refused) == (2, 1)


def test_switched_off_a_call_is_made_once_and_its_answer_handed_back(gateway: KisGateway) -> None:
    client = _client(gateway, enabled=False)
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.reset_counts()
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    assert (gateway.counts.calls, gateway.counts.token_requests) == (1, 0)


def test_an_endpoint_that_refuses_for_good_is_asked_a_handful_of_times(gateway: KisGateway) -> None:
    client = _client(gateway)
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.refuse_tokens(code="EGW00105")
    gateway.reset_counts()
    answers = [client.fetch_domestic_price("005930") for _ in range(50)]
    assert {answer["msg_cd"] for answer in answers} == {"EGW00123"}
    assert gateway.counts.calls == 50
    assert gateway.counts.token_requests <= 6


def test_without_a_first_token_the_reason_is_raised(gateway: KisGateway) -> None:
    gateway.refuse_tokens(code="EGW00105")
    client = _client(gateway)
    with pytest.raises(TokenIssueError) as caught:
        client.fetch_domestic_price("005930")
    assert caught.value.code == "EGW00105"
    assert not caught.value.retryable
    assert gateway.counts.calls == 0


@pytest.mark.parametrize("status", [500, 200])
def test_an_order_posted_with_an_expired_token_is_placed_exactly_once(status: int) -> None:
    with KisGateway(expired_status=status) as gateway, _client(gateway) as client:
        order = {"CANO": "12345678", "ACNT_PRDT_CD": "01", "PDNO": "005930", "ORD_QTY": "1"}
        client.access_token  # noqa: B018  # the first token
        gateway.expire()
        answer = client.post("/uapi/domestic-stock/v1/trading/order-cash", "TTTC0012U", order)
        assert answer["rt_cd"] == "0"
        assert gateway.orders == [order]
        assert gateway.counts.refused == 1


def test_a_body_goes_out_in_utf_8(manager: TokenManager) -> None:
    with requests.Session() as session:
        sent: list[Any] = []
        session.hooks["response"].append(lambda response, **_: sent.append(response.request.body))
        client = KisClient(tokens=manager, session=session)
        client.post("/uapi/domestic-stock/v1/trading/order-cash", "TTTC0012U", {"PRDT_NAME": "삼성전자"})
    assert sent == ['{"PRDT_NAME": "삼성전자"}'.encode()]


@pytest.mark.parametrize("code", ["EGW00301", "EGW00302"])
def test_an_answer_that_says_check_your_last_order_is_never_repeated(
    gateway: KisGateway, client: KisClient, code: str
) -> None:
    client.access_token  # noqa: B018  # the first token
    gateway.garble("calls", 1, body=f'{{"rt_cd":"1","msg_cd":"{code}","msg1":"token 만료"}}'.encode(), status=500)
    answer = client.post("/uapi/domestic-stock/v1/trading/order-cash", "TTTC0012U", {})
    assert answer["msg_cd"] == code
    assert gateway.counts.calls == 1


@pytest.mark.parametrize("fault", ["drop", "hang"])
def test_an_order_without_an_answer_is_never_repeated(gateway: KisGateway, manager: TokenManager, fault: str) -> None:
    client = KisClient(tokens=manager, timeout=(1.0, 0.2))
    client.access_token  # noqa: B018  # the first token
    gateway.drop("calls") if fault == "drop" else gateway.hang("calls", seconds=30)
    with pytest.raises(requests.RequestException):
        client.post("/uapi/domestic-stock/v1/trading/order-cash", "TTTC0012U", {"PDNO": "005930"})
    assert gateway.counts.calls == 1


def test_an_answer_that_is_not_json_is_an_error_with_the_status_and_no_secret(
    gateway: KisGateway, client: KisClient
) -> None:
    client.access_token  # noqa: B018  # the first token
    gateway.garble("calls", 1, body=b"<html>" + gateway.credentials.app_key.encode() + b"</html>", status=404)
    with pytest.raises(ResponseError, match="404") as caught:
        client.fetch_domestic_price("005930")
    assert caught.value.status == 404
    assert gateway.credentials.app_key not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).status == 404


def test_an_answer_nested_too_deep_is_no_json_object(gateway: KisGateway, client: KisClient) -> None:
    gateway.garble("calls", body=b"[" * 200_000, status=404)
    with pytest.raises(ResponseError, match="without a JSON object"):
        client.fetch_domestic_price("005930")


BAD: dict[str, Callable[[KisClient], object]] = {
    "blank symbol": lambda client: client.fetch_domestic_price(" "),
    "no text": lambda client: client.fetch_domestic_price(5930),  # type: ignore[arg-type]
    "symbol type": lambda client: client.fetch_domestic_price("005930", "Bond"),
    "country of price detail": lambda client: client.fetch_price_detail_oversea("AAPL", "KR"),
    "country of info": lambda client: client.fetch_stock_info("005930", "XX"),
    "country of search": lambda client: client.fetch_search_stock_info("AAPL", "US"),
    "country of price": lambda client: client.fetch_price("7203", "JP"),
    "malformed date": lambda client: client.fetch_ipo_schedule("2026-01-01"),
    "no such date": lambda client: client.fetch_ipo_schedule("20260230"),
    "short date": lambda client: client.fetch_ipo_schedule("2026111"),
    "reversed dates": lambda client: client.fetch_ipo_schedule("20260102", "20260101"),
    "another host": lambda client: client.get("https://example.com/uapi/x", "FHKST01010100"),
    "another host without scheme": lambda client: client.get("//example.com/uapi/x", "FHKST01010100"),
    "empty path": lambda client: client.get("/", "FHKST01010100"),
    "query in path": lambda client: client.get("/uapi/x?a=b", "FHKST01010100"),
    "line break in tr_id": lambda client: client.get("/uapi/x", "FHK\r\nX: y"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_a_value_error_before_any_request(name: str, gateway: KisGateway, client: KisClient) -> None:
    with pytest.raises(ValueError, match=r"takes|after"):
        BAD[name](client)
    assert gateway.counts.calls == 0


def test_a_symbol_that_no_exchange_knows_is_named(gateway: KisGateway, client: KisClient) -> None:
    with pytest.raises(ValueError, match=r"US .*NONESUCH"):
        client.fetch_price_detail_oversea("NONESUCH")
    assert gateway.counts.calls == 6


def test_a_product_that_no_type_knows_is_kis_own_answer(client: KisClient) -> None:
    answer = client.fetch_stock_info("NONESUCH", "US")
    assert answer["rt_cd"] == "7"


def test_the_price_of_an_etf_is_asked_as_one(gateway: KisGateway, client: KisClient) -> None:
    assert client.fetch_price("069500") == client.fetch_domestic_price("069500", "ETF")


@freeze_time("2026-11-22 16:30:00")  # in UTC: in Seoul it is the next day already
def test_the_ipo_schedule_begins_today_in_seoul_and_ends_30_days_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, str]] = []

    def ask(self: KisClient, method: str, path: str, tr_id: str, **options: Any) -> dict[str, Any]:
        sent.append({**options["params"], "custtype": options["custtype"]})
        return {"rt_cd": "0"}

    monkeypatch.setattr(KisClient, "_request", ask)
    credentials = Credentials("key", "secret", base_url="http://127.0.0.1:1")
    source = TokenManager(credentials, store=MemoryTokenStore())
    monkeypatch.setattr(source, "peek", lambda: _token())
    KisClient(credentials, tokens=source).fetch_ipo_schedule()
    assert sent == [{"SHT_CD": "", "CTS": "", "F_DT": "20261123", "T_DT": "20261223", "custtype": "P"}]


def _token() -> Any:
    from kis_retry import AccessToken

    return AccessToken("t", datetime(2027, 1, 1, tzinfo=SEOUL))


def test_the_environment_proxies_and_ca_bundle_are_honoured(
    gateway: KisGateway, manager: TokenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.token()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(requests.exceptions.ProxyError):
        KisClient(tokens=manager, policy=RetryPolicy(transient_deadline=0)).fetch_domestic_price("005930")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert KisClient(tokens=manager).fetch_domestic_price("005930")["rt_cd"] == "0"
    assert gateway.counts.calls == 1


def test_a_ca_bundle_named_in_the_environment_is_the_one_that_is_used(
    manager: TokenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    credentials = Credentials("key", "secret", base_url="https://127.0.0.1:9")
    manager.token()
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        KisClient(credentials, tokens=manager).fetch_domestic_price("005930")


def test_a_session_of_the_user_goes_its_own_way(gateway: KisGateway, manager: TokenManager) -> None:
    with requests.Session() as session:
        seen: list[int] = []
        session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
        client = KisClient(tokens=manager, session=session)
        client.fetch_domestic_price("005930")
        gateway.expire()
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        client.close()
        assert seen == [200, 500, 200]
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"


@pytest.mark.parametrize("timeout", [None, 0, -1.0, (1.0, None), "3", (1, 2, 3), float("inf"), True])
def test_a_timeout_is_always_set(manager: TokenManager, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        KisClient(tokens=manager, timeout=timeout)


def test_the_names_that_people_know_are_there(gateway: KisGateway, client: KisClient) -> None:
    first = client.access_token
    assert first.startswith("Bearer ")
    assert client.issue_access_token() == first
    gateway.expire()
    assert client.issue_access_token(force=True) != first
    assert client.access_token.startswith("Bearer ")


def test_every_method_carries_the_decorator_itself_and_keeps_its_face() -> None:
    names = ["fetch_domestic_price", "fetch_price_detail_oversea", "fetch_stock_info", "fetch_search_stock_info"]
    for name in [*names, "fetch_ipo_schedule", "fetch_price", "get", "post"]:
        method = getattr(KisClient, name)
        assert inspect.unwrap(method) is not method
        assert method.__doc__
        assert next(iter(inspect.signature(method).parameters)) == "self"


def test_from_env_takes_credentials_store_and_policy(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", gateway.credentials.app_key)
    monkeypatch.setenv("KIS_APP_SECRET", gateway.credentials.app_secret)
    monkeypatch.setenv("KIS_BASE_URL", gateway.url)
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    monkeypatch.setenv("KIS_RETRY_MAX_RETRIES", "0")
    client = KisClient.from_env()
    assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
    gateway.expire()
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    other = KisClient.from_env()
    assert other.access_token == client.access_token  # one memory for the process
    assert gateway.counts.token_requests == 1


def test_a_client_without_credentials_says_which_variables_to_set() -> None:
    with pytest.raises(ConfigurationError, match="KIS_APP_KEY"):
        KisClient()


def test_the_reprs_show_no_secret(gateway: KisGateway, client: KisClient) -> None:
    client.fetch_domestic_price("005930")
    shown = f"{client!r} {client.tokens!r} {client.credentials!r}"
    assert gateway.credentials.app_key not in shown
    assert gateway.credentials.app_secret not in shown
    assert str(gateway.current_token) not in shown
