"""What a gateway answers for a price: plausible, the same each time, and another for each symbol."""

from __future__ import annotations

from kis_retry.testing.listings import ETF_PRICE, Catalogue

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
