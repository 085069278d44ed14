"""What a gateway answers for a price and a product: plausible, the same each time, and another for each symbol."""

from __future__ import annotations

from typing import Any

import pytest

from gateway_caller import DETAIL, INFO, OFFERS, PRICE, STOCK, Caller

EXCHANGES = ("NYS", "NAS", "AMS", "BAY", "BAQ", "BAA", "HKS", "TSE", "SHS", "SZS", "HSX", "HNX")
ETF_PRICE = "FHPST02400000"


def domestic(caller: Caller, symbol: str, tr_id: str = "FHKST01010100", path: str = PRICE) -> dict[str, str]:
    answer = caller.get(path, params={"FID_INPUT_ISCD": symbol}, headers={"tr_id": tr_id}).json()
    assert answer["rt_cd"] == "0"
    output: dict[str, str] = answer["output"]
    return output


def overseas(caller: Caller, symbol: str, exchange: str) -> dict[str, str]:
    output: dict[str, str] = caller.ask(DETAIL, AUTH="", EXCD=exchange, SYMB=symbol)["output"]
    return output


def homes(caller: Caller, symbol: str) -> list[str]:
    return [exchange for exchange in EXCHANGES if overseas(caller, symbol, exchange)["rsym"]]


def test_a_domestic_price_is_plausible_and_the_same_every_day(caller: Caller) -> None:
    quote = domestic(caller, "005930")
    assert quote == domestic(caller, "005930")
    assert quote["stck_shrn_iscd"] == "005930"
    assert (quote["stck_prpr"], domestic(caller, "000660")["stck_prpr"]) == ("40160", "68740")
    numbers = {name: int(value) for name, value in quote.items() if name.startswith(("stck_", "acml"))}
    assert numbers["stck_lwpr"] < numbers["stck_oprc"] < numbers["stck_prpr"] < numbers["stck_hgpr"]
    assert numbers["acml_tr_pbmn"] == numbers["acml_vol"] * numbers["stck_prpr"], "turnover is volume times price"


def test_the_transactions_for_a_stock_and_for_an_etf_are_told_apart(caller: Caller) -> None:
    as_etf, as_stock = domestic(caller, "069500", ETF_PRICE), domestic(caller, "069500")
    assert (as_etf["stck_prpr"], as_etf["nav"]) == ("79110", "79110.00")
    assert "nav" not in as_stock
    assert as_stock["rprs_mrkt_kor_name"]
    assert domestic(caller, "005930", ETF_PRICE)["stck_prpr"] == "0", "it knows no stock"
    assert domestic(caller, "069500", path="/uapi/etfetn/v1/quotations/inquire-price")["nav"] != "0.00"
    caller.gateway.list_etf("005930")
    assert domestic(caller, "005930", ETF_PRICE)["nav"] != "0.00"


def test_parameter_names_may_be_in_lower_case(caller: Caller) -> None:
    assert caller.ask(PRICE, fid_input_iscd="005930")["output"]["stck_shrn_iscd"] == "005930"


@pytest.mark.parametrize(
    ("symbol", "found"),
    [
        ("AAPL", ["NAS"]),
        ("KO", ["NYS"]),
        ("SPY", ["AMS"]),
        ("U00001", ["NYS", "HKS", "TSE", "SHS", "HSX"]),
        ("NONE1", []),
        ("", []),
    ],
)
def test_an_overseas_price_is_found_where_the_symbol_is_listed(caller: Caller, symbol: str, found: list[str]) -> None:
    assert homes(caller, symbol) == found


@pytest.mark.parametrize(
    ("exchange", "symbol", "currency", "price"),
    [("NAS", "AAPL", "USD", "58.1200"), ("HKS", "00700", "HKD", "98.6400"), ("TSE", "7203", "JPY", "38.3100")],
)
def test_an_overseas_quote_is_in_the_currency_of_its_exchange(
    caller: Caller, exchange: str, symbol: str, currency: str, price: str
) -> None:
    quote = overseas(caller, symbol, exchange)
    assert (quote["rsym"], quote["curr"], quote["last"]) == (f"D{exchange}{symbol}", currency, price)
    assert set(overseas(caller, "NONE", exchange).values()) == {""}, "where it is not listed, every field is empty"


def test_list_symbol_moves_a_symbol(caller: Caller) -> None:
    for exchange in ("AMS", "HNX"):
        caller.gateway.list_symbol("U00001", exchange)
        assert homes(caller, "U00001") == [exchange]
    assert caller.ask(INFO, PDNO="U00001", PRDT_TYPE_CD="507")["rt_cd"] == "0"
    with pytest.raises(ValueError, match="exchange='NASDAQ' is not usable"):
        caller.gateway.list_symbol("U00001", "NASDAQ")


@pytest.mark.parametrize(
    ("symbol", "product_type", "class_name"),
    [
        ("005930", "300", "주권"),
        ("069500", "300", "ETF"),
        ("AAPL", "512", "주권"),
        ("KO", "513", "주권"),
        ("SPY", "529", "주권"),
        ("U00001", "513", "주권"),
        ("7203", "515", "주권"),
        ("00700", "501", "주권"),
        ("600519", "551", "주권"),
        ("VNM", "508", "주권"),
        ("AAPL", "513", None),
        ("AAPL", "300", None),
        ("U00001", "512", None),
        ("005930", "301", None),
        ("NONE1", "300", None),
    ],
)
def test_search_info_knows_the_product_type(
    caller: Caller, symbol: str, product_type: str, class_name: str | None
) -> None:
    body = caller.ask(INFO, PDNO=symbol, PRDT_TYPE_CD=product_type)
    if class_name is None:
        assert body == {"rt_cd": "7", "msg_cd": "KIOK0560", "msg1": "조회할 자료가 없습니다"}
    else:
        assert (body["rt_cd"], body["output"]["pdno"], body["output"]["prdt_clsf_name"]) == ("0", symbol, class_name)
    assert caller.gateway.counts.answered == 1


def test_list_etf_makes_an_etf(caller: Caller) -> None:
    assert caller.ask(STOCK, PDNO="005930", PRDT_TYPE_CD="300")["output"]["scty_grp_id_cd"] == "ST"
    caller.gateway.list_etf("005930")
    assert caller.ask(INFO, PDNO="005930", PRDT_TYPE_CD="300")["output"]["prdt_clsf_name"] == "ETF"
    assert caller.ask(STOCK, PDNO="005930", PRDT_TYPE_CD="300")["output"]["scty_grp_id_cd"] == "EF"


@pytest.mark.parametrize(
    ("query", "rt_cd"),
    [
        ({"PDNO": "005930", "PRDT_TYPE_CD": "300"}, "0"),
        ({"PDNO": "005930", "PRDT_TYPE_CD": "512"}, "7"),
        ({"PDNO": "005930"}, "7"),
        ({"PDNO": "NONE", "PRDT_TYPE_CD": "300"}, "7"),
    ],
)
def test_search_stock_info_is_for_domestic_stock(caller: Caller, query: dict[str, str], rt_cd: str) -> None:
    body = caller.ask(STOCK, **query)
    assert body["rt_cd"] == rt_cd
    assert body.get("output", {}).get("pdno") == ("005930" if rt_cd == "0" else None)


@pytest.mark.parametrize(("symbol", "found"), [("123456", "123456"), ("", "999999")])
def test_a_public_offer_has_the_dates_that_were_asked_for(caller: Caller, symbol: str, found: str) -> None:
    body = caller.ask(OFFERS, SHT_CD=symbol, CTS="", F_DT="20261124", T_DT="20261231")
    (offer,) = body["output1"]
    told: dict[str, Any] = {name: offer[name] for name in ("sht_cd", "record_date", "subscr_dt", "list_dt")}
    assert told == {
        "sht_cd": found,
        "record_date": "20261124",
        "subscr_dt": "2026.11.24~2026.12.31",
        "list_dt": "2026.12.31",
    }
