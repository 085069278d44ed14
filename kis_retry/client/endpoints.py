"""
What each endpoint asks, and how its answers are read: flows, without I/O.

A flow is a generator that yields a `Call`, is sent KIS's answer to it, and returns what the caller gets. Arguments are
checked before the first call, so nothing is sent where one is wrong. Paths, transactions and tables are KIS's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from ..answers import is_token_expired_response

__all__ = ["Answer", "Call", "Flow", "LastFound", "Payload", "get", "one", "post"]

Payload = dict[str, Any]

EXCHANGES = {
    "US": ("NYS", "NAS", "AMS", "BAY", "BAQ", "BAA"),
    "HK": ("HKS",),
    "JP": ("TSE",),
    "CN": ("SHS", "SZS"),
    "VN": ("HSX", "HNX"),
}
PRODUCT_TYPES = {
    "KR": ("300",),
    "KRX": ("300",),
    "US": ("512", "513", "529"),
    "JP": ("515",),
    "HK": ("501", "543", "558"),
    "CN": ("551", "552"),
    "VN": ("507", "508"),
}
PRICE_TRANSACTIONS = {"Stock": "FHKST01010100", "ETF": "FHPST02400000"}

_SHARED_CODES = {"BAY", "BAQ", "BAA", "SHS", "SZS"}  # a US day market has its night market's; Chinese ones overlap
_SEOUL = timezone(timedelta(hours=9))  # no summer time since 1988
_SYMBOL = re.compile(r"\s*\S.*", re.DOTALL)
_PATH = re.compile(r"/?[^/\s?#\\]+(/[^/\s?#\\]+)*/?")  # below the host, and nowhere else: the request has the secret
_TRANSACTION = re.compile(r"[A-Za-z0-9]+")
_HEADER = re.compile(r"(?i)(?!(authorization|appkey|appsecret|tr_id)$)[a-z0-9_-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")


class Call(NamedTuple):
    """One request, without what a client adds to it: host, keys and token."""

    method: str
    path: str
    tr_id: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = {}
    body: bytes | None = None

    @property
    def is_order(self) -> bool:
        """Say whether it may change something at KIS."""
        return self.method != "GET" and self.path != "/uapi/hashkey"


class Answer(NamedTuple):
    """KIS's answer to one request: its body, and its header `tr_cont`, which tells of further pages."""

    payload: Payload
    tr_cont: str | None


Flow = Generator[Call, Payload, Payload]
_Values = Mapping[str, Any] | None


def get(path: object, tr_id: object, params: _Values = None, headers: _Values = None) -> Call:
    """Make a checked `GET`; parameters that are None are left out."""
    query = {name: str(value) for name, value in (params or {}).items() if value is not None}
    return Call("GET", *_checked(path, tr_id), query, _further(headers))


def post(path: object, tr_id: object, body: _Values = None, headers: _Values = None) -> Call:
    """Make a checked `POST` whose body is JSON in UTF-8."""
    data = json.dumps({} if body is None else body, ensure_ascii=False, allow_nan=False).encode()
    return Call("POST", *_checked(path, tr_id), {}, _further(headers), data)


class LastFound:
    """Remembers where the last symbol was found: a batch asks for the symbols of one exchange after the other."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], str] = {}

    def order(self, places: tuple[str, ...]) -> list[str]:
        """Give `places` in KIS's order, the one of the last find in front."""
        return sorted(places, key=lambda place: place != self._last.get(places))

    def note(self, places: tuple[str, ...], place: str) -> None:
        """Remember a find, unless another place may know the same symbol, and it matters which is asked first."""
        if place not in _SHARED_CODES:
            self._last[places] = place


def one(call: Call) -> Flow:
    """Ask for one thing."""
    return (yield call)


def domestic_price(symbol: str, symbol_type: str) -> Flow:
    """Ask for a domestic price."""
    tr_id = _lookup("symbol_type", symbol_type, PRICE_TRANSACTIONS)
    query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": _symbol(symbol)}
    return (yield Call("GET", "/uapi/domestic-stock/v1/quotations/inquire-price", tr_id, query))


def overseas_price(found: LastFound, symbol: str, country_code: str) -> Flow:
    """Ask one exchange of the country after the other, until one knows the symbol, or fails."""
    exchanges = _lookup("country_code", country_code, EXCHANGES)
    symbol = _symbol(symbol)
    for exchange in found.order(exchanges):
        query = {"AUTH": "", "EXCD": exchange, "SYMB": symbol}
        answer = yield Call("GET", "/uapi/overseas-price/v1/quotations/price-detail", "HHDFS76200200", query)
        rt_cd, known = answer.get("rt_cd"), bool(_output(answer).get("rsym"))
        if rt_cd == "0" and known:
            found.note(exchanges, exchange)
        if rt_cd not in ("0", "7") or (rt_cd == "0" and known):  # an exchange answers "0" either way (observed)
            return answer
    raise ValueError(f"no exchange of {country_code} ({', '.join(exchanges)}) knows the symbol {symbol!r}")


def stock_info(found: LastFound, symbol: str, country_code: str) -> Flow:
    """Ask for one product type of the country after the other, until one does not answer "no such data"."""
    product_types = _lookup("country_code", country_code, PRODUCT_TYPES)
    symbol = _symbol(symbol)
    answer: Payload = {}
    for product_type in found.order(product_types):
        query = {"PDNO": symbol, "PRDT_TYPE_CD": product_type}
        answer = yield Call("GET", "/uapi/domestic-stock/v1/quotations/search-info", "CTPF1604R", query)
        if answer.get("rt_cd") == "0":
            found.note(product_types, product_type)
        if answer.get("rt_cd") != "7":
            break
    return answer


def search_stock_info(symbol: str, country_code: str) -> Flow:
    """Ask for the details of a domestic stock."""
    _lookup("country_code", country_code, {"KR": ()})
    query = {"PDNO": _symbol(symbol), "PRDT_TYPE_CD": "300"}
    return (yield Call("GET", "/uapi/domestic-stock/v1/quotations/search-stock-info", "CTPF1002R", query))


def ipo_schedule(from_date: str | None, to_date: str | None, symbol: str) -> Flow:
    """Ask for the public offerings from one day in Seoul to another."""
    today = datetime.now(_SEOUL).replace(tzinfo=None)
    first = _date("from_date", from_date) if from_date else today
    last = _date("to_date", to_date) if to_date else max(today, first) + timedelta(days=30)
    if first.date() > last.date():
        raise ValueError(f"from_date {first:%Y%m%d} is after to_date {last:%Y%m%d}")
    query = {"SHT_CD": symbol, "CTS": "", "F_DT": f"{first:%Y%m%d}", "T_DT": f"{last:%Y%m%d}"}
    return (yield Call("GET", "/uapi/domestic-stock/v1/ksdinfo/pub-offer", "HHKDB669108C0", query, {"custtype": "P"}))


def price(found: LastFound, symbol: str, country_code: str) -> Flow:
    """Ask for a price, in Korea for the type of the symbol first."""
    if _lookup("country_code", country_code, {"KR": "KR", "US": "US"}) == "US":
        return (yield from overseas_price(found, symbol, country_code))
    info = yield from stock_info(found, symbol, country_code)
    if is_token_expired_response(info):
        return info  # no other token could be had, and the price would be refused as well
    is_etf = _output(info).get("prdt_clsf_name") == "ETF"
    return (yield from domestic_price(symbol, "ETF" if is_etf else "Stock"))


def _output(answer: Payload) -> Mapping[str, Any]:
    output = answer.get("output")
    return output if isinstance(output, Mapping) else {}


def _lookup(name: str, given: object, choices: Mapping[str, Any]) -> Any:
    if isinstance(given, str) and given in choices:
        return choices[given]
    raise ValueError(f"{name} {given!r} is not known: it takes {', '.join(choices)}")


def _match(name: str, given: object, pattern: re.Pattern[str], takes: str) -> str:
    if isinstance(given, str) and pattern.fullmatch(given):
        return given
    raise ValueError(f"{name} {given!r} is not usable: it takes {takes}")


def _symbol(given: object) -> str:
    return _match("symbol", given, _SYMBOL, "a text like '005930' or 'AAPL'").strip()


def _checked(path: object, tr_id: object) -> tuple[str, str]:
    found = _match("path", path, _PATH, "a path below the host, without a query, like '/uapi/…'")
    return "/" + found.lstrip("/"), _match("tr_id", tr_id, _TRANSACTION, "letters and digits like 'FHKST01010100'")


def _further(headers: _Values) -> dict[str, str]:
    for name, value in (headers or {}).items():
        _match("the name of a header", name, _HEADER, "one like 'custtype', and none that the client sends itself")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):  # which is not shown: it may be secret
            raise ValueError(f"the header {name} takes a text of printable ASCII characters")
    return {name.lower(): value for name, value in (headers or {}).items()}


def _date(name: str, given: object) -> datetime:
    try:
        return datetime.strptime(_match(name, given, re.compile("[0-9]{8}"), ""), "%Y%m%d")
    except ValueError:
        raise ValueError(f"{name} {given!r} is not a date: it takes YYYYMMDD") from None
