"""Each method asks with the transaction of its own KIS page, and the gateway answers no other alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from kis_retry import KisClient
    from kis_retry.testing import KisGateway

DOMESTIC = "/uapi/domestic-stock/v1"

ASKED: dict[str, tuple[Callable[[KisClient], Any], str, str]] = {
    "stock price": (
        lambda client: client.fetch_domestic_price("005930"),
        f"{DOMESTIC}/quotations/inquire-price",
        "FHKST01010100",
    ),
    "ETF price": (
        lambda client: client.fetch_domestic_price("069500", "ETF"),
        f"{DOMESTIC}/quotations/inquire-price",
        "FHPST02400000",
    ),
    "overseas price": (
        lambda client: client.fetch_price_detail_oversea("AAPL"),
        "/uapi/overseas-price/v1/quotations/price-detail",
        "HHDFS76200200",
    ),
    "product": (
        lambda client: client.fetch_stock_info("005930"),
        f"{DOMESTIC}/quotations/search-info",
        "CTPF1604R",
    ),
    "stock": (
        lambda client: client.fetch_search_stock_info("005930"),
        f"{DOMESTIC}/quotations/search-stock-info",
        "CTPF1002R",
    ),
    "price of whatever is domestic": (
        lambda client: client.fetch_price("005930"),
        f"{DOMESTIC}/quotations/inquire-price",
        "FHKST01010100",
    ),
    "price of whatever is an ETF": (
        lambda client: client.fetch_price("069500"),
        f"{DOMESTIC}/quotations/inquire-price",
        "FHPST02400000",
    ),
    "price of whatever is in the US": (
        lambda client: client.fetch_price("AAPL", "US"),
        "/uapi/overseas-price/v1/quotations/price-detail",
        "HHDFS76200200",
    ),
    "public offers": (
        lambda client: client.fetch_ipo_schedule(),
        "/uapi/domestic-stock/v1/ksdinfo/pub-offer",
        "HHKDB669108C0",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_method_asks_with_its_own_transaction(name: str, client: KisClient, gateway: KisGateway) -> None:
    ask, path, transaction = ASKED[name]
    assert ask(client)["rt_cd"] == "0"
    last = gateway.received[-1]
    assert (last.method, last.path, last.tr_id) == ("GET", path, transaction)


def test_the_price_of_an_etf_is_had_with_the_transaction_of_etfs_alone(client: KisClient) -> None:
    stock, etf = client.fetch_domestic_price("005930")["output"], client.fetch_domestic_price("069500", "ETF")["output"]
    assert int(stock["stck_prpr"]) > 0
    assert "nav" not in stock
    assert int(etf["stck_prpr"]) > 0
    assert float(etf["nav"]) > 0
