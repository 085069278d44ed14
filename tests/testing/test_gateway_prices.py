"""What a gateway answers for a price and a product: plausible, the same each time, and another for each symbol."""

from __future__ import annotations

import pytest

from kis_retry.testing.listings import ETF_PRICE, PRODUCT_TYPES, Catalogue

DOMESTIC = "/uapi/domestic-stock/v1/quotations/inquire-price"
OVERSEAS = "/uapi/overseas-price/v1/quotations/price"


def domestic(symbol: str) -> dict[str, str]:
    output: dict[str, str] = Catalogue().answer(DOMESTIC, {"FID_INPUT_ISCD": symbol})["output"]
    return output


def test_a_domestic_price_is_plausible_and_tells_symbols_apart() -> None:
    prices = {symbol: int(domestic(symbol)["stck_prpr"]) for symbol in map("{:06}".format, range(500))}
    assert all(10_000 <= price < 100_000 and price % 10 == 0 for price in prices.values())
    assert len(set(prices.values())) > 450
    assert prices == {symbol: int(domestic(symbol)["stck_prpr"]) for symbol in prices}


def test_the_days_range_holds_the_price() -> None:
    quote = {name: int(value) for name, value in domestic("005930").items() if name.startswith(("stck_", "acml"))}
    assert quote["stck_lwpr"] < quote["stck_oprc"] < quote["stck_prpr"] < quote["stck_hgpr"]
    assert quote["acml_vol"] == 7 * quote["stck_prpr"]
    assert quote["acml_tr_pbmn"] == quote["acml_vol"] * quote["stck_prpr"], "turnover is volume times price"


def test_the_tr_id_of_etfs_asks_for_another_price_of_domestic_symbols_alone() -> None:
    query = {"EXCD": "NAS", "SYMB": "AAPL"}
    assert Catalogue().answer(OVERSEAS, query, ETF_PRICE) == Catalogue().answer(OVERSEAS, query)
    etf = Catalogue()
    etf.list_etf("069500")
    assert "nav" in etf.answer(DOMESTIC, {"FID_INPUT_ISCD": "069500"}, ETF_PRICE)["output"]


def test_an_overseas_price_is_a_hundredth_of_that_scale() -> None:
    output = Catalogue().answer(OVERSEAS, {"EXCD": "NAS", "SYMB": "AAPL"})["output"]
    assert 10 <= float(output["last"]) < 100
    assert output["last"] == output["base"]


def test_a_quote_is_the_same_every_day() -> None:
    assert domestic("005930") == {
        "stck_shrn_iscd": "005930",
        "stck_prpr": "40160",
        "prdy_vrss": "100",
        "prdy_vrss_sign": "2",
        "prdy_ctrt": "0.50",
        "acml_vol": "281120",
        "acml_tr_pbmn": "11289779200",
        "stck_oprc": "40060",
        "stck_hgpr": "40360",
        "stck_lwpr": "39960",
        "stck_sdpr": "40060",
        "rprs_mrkt_kor_name": "KOSPI200",
    }
    assert (domestic("000660")["stck_prpr"], domestic("069500")["stck_prpr"]) == ("68740", "79110")


def test_the_quote_of_an_etf_has_its_net_asset_value() -> None:
    output = Catalogue().answer(DOMESTIC, {"FID_INPUT_ISCD": "069500"}, ETF_PRICE)["output"]
    assert (output["stck_prpr"], output["nav"], output["etf_rprs_bstp_kor_isnm"]) == ("79110", "79110.00", "KOSPI200")
    assert (output["stck_hgpr"], output["stck_lwpr"]) == ("79310", "78910")


def test_what_is_no_etf_has_no_price_below_nothing_as_one() -> None:
    output = Catalogue().answer(DOMESTIC, {"FID_INPUT_ISCD": "005930"}, ETF_PRICE)["output"]
    names = ("stck_prpr", "stck_oprc", "stck_lwpr", "stck_sdpr", "acml_vol", "acml_tr_pbmn", "nav")
    assert [output[name] for name in names] == ["0", "0", "0", "0", "0", "0", "0.00"]


@pytest.mark.parametrize(
    ("exchange", "symbol", "currency", "price"),
    [
        ("NAS", "AAPL", "USD", "58.1200"),
        ("NYS", "KO", "USD", "97.0400"),
        ("HKS", "00700", "HKD", "98.6400"),
        ("TSE", "7203", "JPY", "38.3100"),
        ("SHS", "600519", "CNY", "83.0900"),
        ("HSX", "VNM", "VND", "73.2600"),
    ],
)
def test_an_overseas_quote_is_in_the_currency_of_its_exchange(
    exchange: str, symbol: str, currency: str, price: str
) -> None:
    assert Catalogue().answer(OVERSEAS, {"EXCD": exchange, "SYMB": symbol})["output"] == {
        "rsym": f"D{exchange}{symbol}",
        "base": price,
        "last": price,
        "pvol": "1000000",
        "curr": currency,
        "perx": "20.00",
        "pbrx": "3.00",
        "epsx": "5.00",
        "bpsx": "30.00",
    }


def test_where_a_symbol_is_not_listed_every_field_of_its_quote_is_empty() -> None:
    there = Catalogue().answer(OVERSEAS, {"EXCD": "NAS", "SYMB": "AAPL"})["output"]
    elsewhere = Catalogue().answer(OVERSEAS, {"EXCD": "NYS", "SYMB": "AAPL"})["output"]
    assert elsewhere == dict.fromkeys(there, "")


OFFERS = "/uapi/domestic-stock/v1/ksdinfo/pub-offer"
INFO = "/uapi/domestic-stock/v1/quotations/search-info"
STOCK = "/uapi/domestic-stock/v1/quotations/search-stock-info"


@pytest.mark.parametrize("path", [OFFERS, INFO, STOCK, OVERSEAS, "/uapi/else", "/uapi/a", "/uapi/z"])
def test_the_tr_id_of_etfs_means_nothing_to_another_path(path: str) -> None:
    query = {
        "FID_INPUT_ISCD": "069500",
        "PDNO": "005930",
        "PRDT_TYPE_CD": "300",
        "F_DT": "20261124",
        "T_DT": "20261224",
    }
    assert Catalogue().answer(path, query, ETF_PRICE) == Catalogue().answer(path, query)


@pytest.mark.parametrize("tr_id", ["", "FHKST01010100", "FHPST02400001", "ZZZ"])
def test_another_tr_id_asks_for_the_price_of_a_stock(tr_id: str) -> None:
    assert "nav" not in Catalogue().answer(DOMESTIC, {"FID_INPUT_ISCD": "069500"}, tr_id)["output"]


def test_a_request_need_not_be_made_of_the_same_objects() -> None:
    """As strings that come off a wire are not."""
    path, tr_id, product_type, place = (text.encode().decode() for text in (DOMESTIC, ETF_PRICE, "300", "NAS"))
    query = {"FID_INPUT_ISCD": "069500", "PDNO": "005930", "PRDT_TYPE_CD": product_type}
    assert "nav" in Catalogue().answer(path, query, tr_id)["output"]
    assert Catalogue().answer(STOCK, query)["rt_cd"] == "0"
    assert Catalogue().answer(INFO, query)["rt_cd"] == "0"
    assert Catalogue().answer(OVERSEAS, {"EXCD": place, "SYMB": "AAPL"})["output"]["rsym"] == "DNASAAPL"


@pytest.mark.parametrize(
    ("symbol", "kind", "class_name", "group"),
    [("005930", "101310", "주권", "ST"), ("069500", "101340", "ETF", "EF")],
)
def test_what_a_domestic_symbol_is_stands_in_both_services(symbol: str, kind: str, class_name: str, group: str) -> None:
    query = {"PDNO": symbol, "PRDT_TYPE_CD": "300"}
    assert Catalogue().answer(INFO, query)["output"] == {
        "pdno": symbol,
        "prdt_type_cd": "300",
        "prdt_name": f"종목 {symbol}",
        "shtn_pdno": symbol,
        "prdt_clsf_cd": kind,
        "prdt_clsf_name": class_name,
    }
    assert Catalogue().answer(STOCK, query)["output"] == {
        "pdno": symbol,
        "prdt_type_cd": "300",
        "mket_id_cd": "STK",
        "scty_grp_id_cd": group,
        "prdt_name": f"종목 {symbol}",
        "lstg_stqt": "1000000",
        "papr": "100",
    }


@pytest.mark.parametrize("product_type", ["", "299", "301", "512", None])
@pytest.mark.parametrize("path", [INFO, STOCK])
def test_a_domestic_symbol_has_one_product_type(path: str, product_type: str | None) -> None:
    query = {"PDNO": "005930"} if product_type is None else {"PDNO": "005930", "PRDT_TYPE_CD": product_type}
    body = Catalogue().answer(path, query)
    assert body == {"rt_cd": "7", "msg_cd": "KIOK0560", "msg1": "조회할 자료가 없습니다"}


def test_a_public_offer_has_the_dates_that_were_asked_for() -> None:
    body = Catalogue().answer(OFFERS, {"SHT_CD": "123456", "F_DT": "20261124", "T_DT": "20261231"})
    assert body == {
        "rt_cd": "0",
        "msg_cd": "MCA00000",
        "msg1": "정상처리 되었습니다.",
        "output1": [
            {
                "record_date": "20261124",
                "sht_cd": "123456",
                "isin_name": "공모 종목",
                "fix_subscr_pri": "10000",
                "face_value": "500",
                "subscr_dt": "2026.11.24~2026.12.31",
                "pay_dt": "2026.12.31",
                "refund_dt": "2026.12.31",
                "list_dt": "2026.12.31",
                "lead_mgr": "한국투자증권",
            }
        ],
    }


@pytest.mark.parametrize("home", sorted(PRODUCT_TYPES))
def test_a_symbol_that_was_listed_somewhere_is_listed_nowhere_else(home: str) -> None:
    catalogue = Catalogue()
    catalogue.list_symbol("NONE1", home)
    queries = {place: {"EXCD": place, "SYMB": "NONE1"} for place in PRODUCT_TYPES}
    found = [place for place, query in queries.items() if catalogue.answer(OVERSEAS, query)["output"]["rsym"]]
    assert found == [home]


def test_any_other_symbol_is_listed_at_the_first_exchange_of_each_country() -> None:
    for symbol, places in {"U1": ["KRX", "NYS", "HKS", "TSE", "SHS", "HSX"], "NONE": [], "NONE1": [], "": []}.items():
        queries = {place: {"EXCD": place, "SYMB": symbol} for place in PRODUCT_TYPES}
        found = [place for place, query in queries.items() if Catalogue().answer(OVERSEAS, query)["output"]["rsym"]]
        assert found == places
