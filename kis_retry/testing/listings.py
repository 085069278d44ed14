"""What is listed where, and what KIS answers when all is well. Pure; the bodies are plausible, not prices of a day."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from .wire import failure

__all__ = ["PRODUCT_TYPES", "Catalogue", "Query", "no_data", "success"]

PRODUCT_TYPES = {
    "KRX": "300",
    "NYS": "513",
    "NAS": "512",
    "AMS": "529",
    "BAY": "513",
    "BAQ": "512",
    "BAA": "529",
    "HKS": "501",
    "TSE": "515",
    "SHS": "551",
    "SZS": "552",
    "HSX": "508",
    "HNX": "507",
}
"""Product type of search-info by exchange (KIS page 상품기본조회; BAY, BAQ and BAA are daytime trading in the US)."""

_HOMES = {
    **dict.fromkeys(("AAPL", "MSFT", "TSLA", "NVDA", "GOOGL", "AMZN"), "NAS"),
    **dict.fromkeys(("KO", "JPM", "IBM", "DIS"), "NYS"),
    **dict.fromkeys(("SPY", "GLD", "VOO"), "AMS"),
}
_FIRST_EXCHANGES = ("KRX", "NYS", "HKS", "TSE", "SHS", "HSX")
_CURRENCIES = {"HKS": "HKD", "TSE": "JPY", "SHS": "CNY", "SZS": "CNY", "HSX": "VND", "HNX": "VND"}
_ETFS = ("069500", "102110", "114800", "122630", "133690", "229200", "252670", "305720")

ETF_PRICE = "FHPST02400000"
"""The transaction that asks for the price of an ETF; a stock's is FHKST01010100 (KIS pages 주식현재가, ETF 현재가)."""

_DOMESTIC_PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"

Query = Mapping[str, str]
Body = dict[str, Any]


class Catalogue:
    """
    The listings, and the answers that depend on them. Not thread-safe: the gateway's lock guards it.

    A symbol nobody has spoken of is listed at the first exchange of every country, one that begins with "NONE" nowhere.
    """

    def __init__(self) -> None:
        self._homes = dict(_HOMES)
        self._etfs = set(_ETFS)
        self._answers: dict[str, Callable[[Query], Body]] = {
            _DOMESTIC_PRICE: self._stock_price,
            "/uapi/etfetn/v1/quotations/inquire-price": self._etf_price,
            "/uapi/overseas-price/v1/quotations/price-detail": self._overseas_price,
            "/uapi/overseas-price/v1/quotations/price": self._overseas_price,
            "/uapi/domestic-stock/v1/quotations/search-info": self._product,
            "/uapi/domestic-stock/v1/quotations/search-stock-info": self._stock,
            "/uapi/domestic-stock/v1/ksdinfo/pub-offer": _public_offers,
        }

    def list_symbol(self, symbol: str, exchange: str) -> None:
        """List a symbol at one exchange and nowhere else."""
        if exchange not in PRODUCT_TYPES:
            raise ValueError(f"exchange={exchange!r} is not usable: it takes one of {' '.join(PRODUCT_TYPES)}")
        self._homes[symbol] = exchange

    def list_etf(self, symbol: str) -> None:
        """Make a symbol an ETF."""
        self._etfs.add(symbol)

    def answer(self, path: str, query: Query, tr_id: str = "") -> Body:
        """The body for a GET; a path without one of its own echoes the query."""
        answer = self._answers.get(path)
        if tr_id == ETF_PRICE and path == _DOMESTIC_PRICE:
            answer = self._etf_price
        # KIS's parameter names are written in both cases by the libraries of the field.
        return success(dict(query)) if answer is None else answer({name.upper(): query[name] for name in query})

    def _is_listed(self, symbol: str, exchange: str) -> bool:
        home = self._homes.get(symbol)
        if home is not None:
            return home == exchange
        return bool(symbol) and not symbol.startswith("NONE") and exchange in _FIRST_EXCHANGES

    def _class_name(self, symbol: str) -> str:
        return "ETF" if symbol in self._etfs else "주권"

    def _stock_price(self, query: Query) -> Body:
        symbol = query.get("FID_INPUT_ISCD", "")
        output = _quote(symbol, _price(symbol) * 10)
        output["rprs_mrkt_kor_name"] = "KOSPI200"
        return success(output)

    def _etf_price(self, query: Query) -> Body:
        symbol = query.get("FID_INPUT_ISCD", "")
        price = _price(symbol) * 10 if symbol in self._etfs else 0  # it knows no other than ETFs
        return success({**_quote(symbol, price), "nav": f"{price}.00", "etf_rprs_bstp_kor_isnm": "KOSPI200"})

    def _overseas_price(self, query: Query) -> Body:
        exchange, symbol = query.get("EXCD", ""), query.get("SYMB", "")
        price = f"{_price(symbol) / 100:.4f}"
        output = {
            "rsym": f"D{exchange}{symbol}",
            "base": price,
            "last": price,
            "pvol": "1000000",
            "curr": _CURRENCIES.get(exchange, "USD"),
            "perx": "20.00",
            "pbrx": "3.00",
            "epsx": "5.00",
            "bpsx": "30.00",
        }
        return success(output if self._is_listed(symbol, exchange) else dict.fromkeys(output, ""))

    def _product(self, query: Query) -> Body:
        symbol, product_type = query.get("PDNO", ""), query.get("PRDT_TYPE_CD", "")
        if not any(self._is_listed(symbol, place) for place, of in PRODUCT_TYPES.items() if of == product_type):
            return no_data()
        return success(
            {
                "pdno": symbol,
                "prdt_type_cd": product_type,
                "prdt_name": f"종목 {symbol}",
                "shtn_pdno": symbol,
                "prdt_clsf_cd": "101340" if symbol in self._etfs else "101310",
                "prdt_clsf_name": self._class_name(symbol),
            }
        )

    def _stock(self, query: Query) -> Body:
        symbol = query.get("PDNO", "")
        if query.get("PRDT_TYPE_CD") != "300" or not self._is_listed(symbol, "KRX"):
            return no_data()
        return success(
            {
                "pdno": symbol,
                "prdt_type_cd": "300",
                "mket_id_cd": "STK",
                "scty_grp_id_cd": "EF" if symbol in self._etfs else "ST",
                "prdt_name": f"종목 {symbol}",
                "lstg_stqt": "1000000",
                "papr": "100",
            }
        )


def success(output: Any, key: str = "output") -> Body:
    """The body of an API call that went well."""
    return {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다.", key: output}


def no_data() -> Body:
    """The body where there is nothing to answer."""
    return failure("KIOK0560", "조회할 자료가 없습니다", rt_cd="7")


def _public_offers(query: Query) -> Body:
    first, last = query.get("F_DT", ""), query.get("T_DT", "")
    offer = {
        "record_date": first,
        "sht_cd": query.get("SHT_CD") or "999999",
        "isin_name": "공모 종목",
        "fix_subscr_pri": "10000",
        "face_value": "500",
        "subscr_dt": f"{_dotted(first)}~{_dotted(last)}",
        "pay_dt": _dotted(last),
        "refund_dt": _dotted(last),
        "list_dt": _dotted(last),
        "lead_mgr": "한국투자증권",
    }
    return success([offer], "output1")


def _quote(symbol: str, price: int) -> dict[str, str]:
    return {
        "stck_shrn_iscd": symbol,
        "stck_prpr": str(price),
        "prdy_vrss": "100",
        "prdy_vrss_sign": "2",
        "prdy_ctrt": "0.50",
        "acml_vol": str(price * 7),
        "acml_tr_pbmn": str(price * price * 7),
        "stck_oprc": str(max(0, price - 100)),
        "stck_hgpr": str(price + 200),
        "stck_lwpr": str(max(0, price - 200)),
        "stck_sdpr": str(max(0, price - 100)),
    }


def _dotted(date: str) -> str:
    return f"{date[:4]}.{date[4:6]}.{date[6:]}"


def _price(symbol: str) -> int:
    return 1_000 + zlib.crc32(symbol.encode()) % 9_000
