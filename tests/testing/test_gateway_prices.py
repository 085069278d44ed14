"""What a gateway answers for a price: plausible, the same each time, and another for each symbol."""

from __future__ import annotations

from kis_retry.testing.listings import Catalogue

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


def test_an_overseas_price_is_a_hundredth_of_that_scale() -> None:
    output = Catalogue().answer(OVERSEAS, {"EXCD": "NAS", "SYMB": "AAPL"})["output"]
    assert 10 <= float(output["last"]) < 100
    assert output["last"] == output["base"]
