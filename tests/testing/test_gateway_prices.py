"""What a gateway answers for a price and a product: plausible, the same each time, and another for each symbol."""

from __future__ import annotations

import pytest

from gateway_caller import DETAIL, INFO, OFFERS, PRICE, STOCK, Caller

EXCHANGES = ("NYS", "NAS", "AMS", "BAY", "BAQ", "BAA", "HKS", "TSE", "SHS", "SZS", "HSX", "HNX")
ETF_PRICE = "FHPST02400000"


def domestic(caller: Caller, symbol: str, tr_id: str = "FHKST01010100", path: str = PRICE) -> dict[str, str]:
    answer = caller.get(path, params={"fid_input_iscd": symbol}, headers={"tr_id": tr_id}).json()
    assert answer["rt_cd"] == "0"
    output: dict[str, str] = answer["output"]
    return output


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
    assert domestic(caller, "005930", ETF_PRICE)["stck_prpr"] == "0", "it knows no stock"
    assert domestic(caller, "069500", ETF_PRICE, "/uapi/etfetn/v1/quotations/inquire-price")["nav"] != "0.00"


@pytest.mark.parametrize(
    ("symbol", "found"),
    [
        ("AAPL", ["NAS"]),
        ("SPY", ["AMS"]),
        ("U00001", ["NYS", "HKS", "TSE", "SHS", "HSX"]),
        ("NONE1", []),
    ],
)
def test_an_overseas_price_is_found_where_the_symbol_is_listed(caller: Caller, symbol: str, found: list[str]) -> None:
    quotes = {each: caller.ask(DETAIL, AUTH="", EXCD=each, SYMB=symbol)["output"] for each in EXCHANGES}
    assert [each for each in EXCHANGES if any(quotes[each].values())] == found
    assert [quotes[each]["rsym"] for each in found] == [f"D{each}{symbol}" for each in found]


@pytest.mark.parametrize(
    ("symbol", "product_type", "class_name"),
    [
        ("005930", "300", "주권"),
        ("069500", "300", "ETF"),
        ("AAPL", "512", "주권"),
        ("7203", "515", "주권"),
        ("AAPL", "513", None),
        ("005930", "301", None),
        ("NONE1", "300", None),
    ],
)
def test_a_product_is_found_by_its_type(caller: Caller, symbol: str, product_type: str, class_name: str | None) -> None:
    for path in (INFO, STOCK):
        body = caller.ask(path, PDNO=symbol, PRDT_TYPE_CD=product_type)
        if class_name is None:
            assert body == {"rt_cd": "7", "msg_cd": "KIOK0560", "msg1": "조회할 자료가 없습니다"}
        else:
            output = body["output"]
            assert (body["rt_cd"], output["pdno"], output["prdt_clsf_name"]) == ("0", symbol, class_name)
    assert caller.gateway.counts.answered == 2


def test_a_public_offer_has_the_dates_that_were_asked_for(caller: Caller) -> None:
    body = caller.ask(OFFERS, SHT_CD="123456", CTS="", F_DT="20261124", T_DT="20261231")
    (offer,) = body["output1"]
    assert (offer["sht_cd"], offer["record_date"], offer["list_dt"]) == ("123456", "20261124", "20261231")
