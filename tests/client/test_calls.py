"""Every call of both clients: what it asks, how it goes on after a refusal, and what it refuses to send."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from clients import Asking
from kis_retry import AsyncKisClient, KisClient, ResponseError, TokenIssueError
from kis_retry.testing import KisGateway

DOMESTIC = "/uapi/domestic-stock/v1/quotations"
MEMBER = f"{DOMESTIC}/inquire-member"
OVERSEAS = "/uapi/overseas-price/v1/quotations/price-detail"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"

CALLS: dict[str, tuple[Callable[[Asking], Any], str, str]] = {
    "domestic price": (lambda c: c.fetch_domestic_price("005930"), f"{DOMESTIC}/inquire-price", "FHKST01010100"),
    "ETF price": (lambda c: c.fetch_domestic_price("069500", "ETF"), f"{DOMESTIC}/inquire-price", "FHPST02400000"),
    "overseas price": (lambda c: c.fetch_price_detail_oversea("KO"), OVERSEAS, "HHDFS76200200"),
    "product": (lambda c: c.fetch_stock_info("005930"), f"{DOMESTIC}/search-info", "CTPF1604R"),
    "US product": (lambda c: c.fetch_stock_info("KO", "US"), f"{DOMESTIC}/search-info", "CTPF1604R"),
    "stock": (lambda c: c.fetch_search_stock_info("005930"), f"{DOMESTIC}/search-stock-info", "CTPF1002R"),
    "offers": (lambda c: c.fetch_ipo_schedule(), "/uapi/domestic-stock/v1/ksdinfo/pub-offer", "HHKDB669108C0"),
    "any domestic price": (lambda c: c.fetch_price("005930"), f"{DOMESTIC}/inquire-price", "FHKST01010100"),
    "any ETF price": (lambda c: c.fetch_price("069500"), f"{DOMESTIC}/inquire-price", "FHPST02400000"),
    "any US price": (lambda c: c.fetch_price("KO", "US"), OVERSEAS, "HHDFS76200200"),
    "get": (lambda c: c.get(MEMBER, "FHKST01010600", {"FID_INPUT_ISCD": "005930"}), MEMBER, "FHKST01010600"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gets_its_right_answer_over_an_expiry_too(name: str, client: Asking, gateway: KisGateway) -> None:
    ask, path, transaction = CALLS[name]
    before = ask(client)
    assert before["rt_cd"] == "0"
    last = gateway.received[-1]
    assert (last.method, last.path, last.tr_id) == ("GET", path, transaction)
    gateway.expire()
    gateway.reset_counts()
    assert ask(client) == before
    assert gateway.counts.refused == 1
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("dying_at", [1, 3])
def test_in_a_loop_over_exchanges_the_refused_request_alone_is_sent_again(
    dying_at: int, client: Asking, gateway: KisGateway
) -> None:
    gateway.expire_at(dying_at)
    answer = client.fetch_price_detail_oversea("SPY")  # listed at the third exchange
    assert answer["output"]["rsym"] == "DAMSSPY"
    assert (gateway.counts.calls, gateway.counts.refused) == (3 + 1, 1)


@pytest.mark.parametrize("name", ["overseas price", "US product", "any domestic price", "get"])
def test_where_every_token_is_refused_the_answer_of_kis_comes_back(
    name: str, client: Asking, gateway: KisGateway
) -> None:
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.refuse_calls()
    gateway.reset_counts()
    answer = CALLS[name][0](client)
    assert answer == {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (2, 1)


def test_a_batch_that_can_have_no_other_token_gets_the_answer_of_kis_every_time(
    client: Asking, gateway: KisGateway
) -> None:
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.refuse_tokens("EGW00105")
    gateway.reset_counts()
    assert {client.fetch_domestic_price("005930")["msg_cd"] for _ in range(5)} == {"EGW00123"}
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("policy", [{"max_retries": 0}, {"enabled": False}], ids=str)
def test_without_retries_and_switched_off_one_request_is_sent_and_no_token_issued(
    policy: dict[str, Any], make: Any, gateway: KisGateway
) -> None:
    client = make(**policy)
    client.fetch_domestic_price("005930")
    gateway.expire()
    gateway.reset_counts()
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    assert (gateway.counts.calls, gateway.counts.token_requests) == (1, 0)


def test_without_a_first_token_the_reason_is_raised_and_nothing_sent(client: Asking, gateway: KisGateway) -> None:
    gateway.refuse_tokens("EGW00105")
    for ask in (lambda: client.fetch_domestic_price("005930"), lambda: client.post(ORDER, "TTTC0012U", {})):
        with pytest.raises(TokenIssueError) as caught:
            ask()
        assert (caught.value.code, caught.value.retryable) == ("EGW00105", False)
    assert gateway.counts.calls == 0


def test_an_order_does_not_wait_long_for_the_first_token(make: Any, gateway: KisGateway) -> None:
    gateway.hang("tokens", seconds=1.0)
    client = make(order_deadline=0.1, issue_wait=0)
    with pytest.raises(TokenIssueError, match="no token in time for the order, which was not sent"):
        client.post(ORDER, "TTTC0012U", {})
    assert gateway.orders == []


def test_an_order_with_an_expired_token_is_placed_exactly_once(client: Asking, gateway: KisGateway) -> None:
    order = {"CANO": "12345678", "ACNT_PRDT_CD": "01", "PDNO": "005930", "ORD_QTY": "1", "PRDT_NAME": "삼성전자"}
    client.fetch_domestic_price("005930")
    gateway.expire()
    assert client.post(ORDER, "TTTC0012U", order)["rt_cd"] == "0"
    assert gateway.orders == [order]


@pytest.mark.parametrize("body", [b"<html></html>", b"[]", b"", b"[" * 200_000])
def test_an_answer_that_is_no_json_object_is_an_error_with_its_status(
    body: bytes, client: Asking, gateway: KisGateway
) -> None:
    gateway.fail(404, 1, body=body)
    with pytest.raises(ResponseError, match="HTTP 404 without a JSON object") as caught:
        client.fetch_domestic_price("005930")
    assert caught.value.status == 404


BAD: dict[str, Callable[[Asking], object]] = {
    "blank symbol": lambda c: c.fetch_domestic_price(" "),
    "no text": lambda c: c.fetch_domestic_price(5930),
    "symbol type": lambda c: c.fetch_domestic_price("005930", "Bond"),
    "country of price detail": lambda c: c.fetch_price_detail_oversea("AAPL", "KR"),
    "country of info": lambda c: c.fetch_stock_info("005930", "us"),
    "malformed date": lambda c: c.fetch_ipo_schedule("2026-01-01"),
    "reversed dates": lambda c: c.fetch_ipo_schedule("20260102", "20260101"),
    "another host": lambda c: c.get("https://example.com/uapi/x", "FHKST01010100"),
    "empty path": lambda c: c.get("/", "FHKST01010100"),
    "query in path": lambda c: c.get("/uapi/x?a=b", "FHKST01010100"),
    "path of pages": lambda c: c.all_pages("", "FHKST01010100"),
    "line break in tr_id": lambda c: c.get("/uapi/x", "FHK\r\nX: y"),
    "empty tr_id": lambda c: c.post(ORDER, ""),
    "own header": lambda c: c.get("/uapi/x", "FHKST01010100", headers={"Authorization": "Bearer mine"}),
    "line break in header": lambda c: c.post(ORDER, "TTTC0012U", {}, headers={"hashkey": "a\r\nX: y"}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_a_value_error_before_any_request(name: str, gateway: KisGateway, client: Asking) -> None:
    with pytest.raises(ValueError, match=r"takes|is after to_date"):
        BAD[name](client)
    assert (gateway.counts.calls, gateway.counts.token_requests) == (0, 0)


def test_both_clients_have_the_same_calls_with_the_decorators_on_them() -> None:
    for name in [name for name in dir(KisClient) if name.startswith("fetch_")] + ["get", "post"]:
        sync, other = getattr(KisClient, name), getattr(AsyncKisClient, name)
        assert inspect.unwrap(sync) is not sync
        assert inspect.unwrap(other) is not other
        assert sync.__doc__
        assert inspect.signature(sync) == inspect.signature(other)


def test_the_names_that_people_know_are_there(gateway: KisGateway, make: Any, kind: str) -> None:
    client = make()
    token = (lambda: client.access_token) if kind == "sync" else (lambda: client.access_token())
    first = token()
    assert first.startswith("Bearer ")
    assert client.issue_access_token() == first
    gateway.expire()
    second = client.issue_access_token(force=True)
    assert second not in ("", first)
    assert token() == second
