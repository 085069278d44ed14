"""What leaves a client: headers, queries and bodies, the names on paper, and one warning for the wrong environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from freezegun import freeze_time

from clients import Asking
from loopback import TOKEN, Loopback, Reply, Sent

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


def test_a_request_has_what_kis_wants(at_host: Callable[..., Asking], host: Loopback) -> None:
    at_host().fetch_domestic_price(" 005930 ")
    (sent,) = host.sent
    assert (sent.method, sent.path) == ("GET", PRICE)
    assert sent.query == {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}
    wanted = {
        "content-type": "application/json",
        "authorization": f"Bearer {TOKEN}",
        "appkey": "PSappkey0123",
        "appsecret": "c2VjcmV0c2VjcmV0",
        "tr_id": "FHKST01010100",
    }
    assert {name: sent.headers.get(name) for name in wanted} == wanted
    assert "custtype" not in sent.headers


def test_further_headers_and_odd_parameters_are_sent_along(at_host: Callable[..., Asking], host: Loopback) -> None:
    client = at_host()
    client.get("uapi/x", "FHKST01010600", {"A": 1, "B": None, "C": "a b+ㄱ"}, headers={"CustType": "P"})
    client.post(ORDER, "TTTC0012U", {"PRDT_NAME": "삼성전자"}, headers={"hashkey": "h1"})
    read, order = host.sent
    assert (read.path, read.query, read.headers["custtype"]) == ("/uapi/x", {"A": "1", "C": "a b+ㄱ"}, "P")
    assert (order.body, order.headers["hashkey"]) == ('{"PRDT_NAME": "삼성전자"}'.encode(), "h1")
    assert order.headers["tr_id"] == "TTTC0012U"


ON_PAPER = {
    "TTTC0012U": "VTTC0012U",
    "JTTT1002U": "VTTT1002U",
    "CTCA0903R": "VTCA0903R",
    "HHDFS76200200": "HHDFS76200200",
}


@pytest.mark.parametrize(("given", "on_paper"), ON_PAPER.items())
def test_on_paper_a_transaction_of_trading_has_another_name(
    given: str, on_paper: str, at_host: Callable[..., Asking], host: Loopback
) -> None:
    for paper in (False, True):
        client = at_host(paper=paper)
        client.get("/uapi/x", given)
        client.post("/uapi/x", given)
    assert [sent.headers["tr_id"] for sent in host.sent] == [given, given, on_paper, on_paper]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ((None, ""), ("20261123", "20261223")),
        (("20261120", None), ("20261120", "20261223")),
        (("20261201", None), ("20261201", "20261231")),
        ((None, "20261123"), ("20261123", "20261123")),
    ],
)
def test_a_schedule_is_from_today_in_seoul_to_30_days_on(
    given: tuple[Any, Any], asked: tuple[str, str], at_host: Callable[..., Asking], host: Loopback
) -> None:
    client = at_host()
    client.fetch_domestic_price("005930")  # a token, before the clock stands still
    with freeze_time("2026-11-22 16:30:00", ignore=["asyncio"]):  # in UTC: in Seoul it is the next day already
        client.fetch_ipo_schedule(*given)
    sent = host.sent[-1]
    assert sent.query == {"SHT_CD": "", "CTS": "", "F_DT": asked[0], "T_DT": asked[1]}
    assert sent.headers["custtype"] == "P"


# -- where a symbol is looked for


def known_at(**places: str) -> Callable[[Sent], Reply]:
    """A KIS that knows each symbol at one exchange, or as one product type."""

    def answer(sent: Sent) -> Reply:
        if "EXCD" in sent.query:  # of prices
            found = places.get(sent.query["SYMB"]) == sent.query["EXCD"]
            return Reply({"rt_cd": "0", "output": {"rsym": "D" if found else ""}})
        return Reply({"rt_cd": "0" if places.get(sent.query["PDNO"]) == sent.query["PRDT_TYPE_CD"] else "7"})

    return answer


def test_exchanges_and_product_types_are_asked_in_the_order_of_kis(
    at_host: Callable[..., Asking], host: Loopback
) -> None:
    host.answer = known_at(SPY="AMS", KO="513")
    client = at_host()
    for _ in range(2):
        client.fetch_price_detail_oversea("SPY")
        client.fetch_price("SPY", "US")
        client.fetch_stock_info("KO", "US")
    with pytest.raises(ValueError, match=r"no exchange of HK .* knows the symbol 'NONE'"):
        client.fetch_price_detail_oversea("NONE", "HK")
    assert client.fetch_stock_info("NONE", "JP") == {"rt_cd": "7"}
    asked = [sent.query.get("EXCD") or sent.query["PRDT_TYPE_CD"] for sent in host.sent]
    assert asked == ["NYS", "NAS", "AMS", "NYS", "NAS", "AMS", "512", "513"] * 2 + ["HKS", "515"]


@pytest.mark.parametrize("rt_cd", ["1", None])
def test_a_failure_of_another_kind_ends_the_search(rt_cd: Any, at_host: Callable[..., Asking], host: Loopback) -> None:
    client = at_host()
    for ask in (client.fetch_stock_info, client.fetch_price_detail_oversea):
        host.sent.clear()
        host.replies = [Reply({"rt_cd": "7"}), Reply({"rt_cd": rt_cd})]
        assert ask("KO", "US") == {"rt_cd": rt_cd}
        assert len(host.sent) == 2
