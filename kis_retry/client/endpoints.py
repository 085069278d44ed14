"""
Every call of a client, without its way to KIS: what it asks, and how the answers are read.

A call is a flow: a generator that yields a `Call`, is sent KIS's `Answer`, and returns the JSON object as KIS sent it,
failures included. Arguments are checked before the first request. Paths, transactions and tables are KIS's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta
from functools import wraps
from inspect import unwrap
from json import dumps
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from ..decorators import decorated, rules_of
from ..errors import PageError
from ..token import SEOUL

__all__ = ["Answer", "Call", "Endpoints", "Fields", "Flow", "Payload", "checked", "following"]

Payload = dict[str, Any]
Fields = Mapping[str, Any]
P = ParamSpec("P")
R = TypeVar("R")

_QUOTATIONS = "/uapi/domestic-stock/v1/quotations"
_PUBLIC_OFFERS = "/uapi/domestic-stock/v1/ksdinfo/pub-offer"
_EXCHANGES = {"US": "NYS NAS AMS BAY BAQ BAA", "HK": "HKS", "JP": "TSE", "CN": "SHS SZS", "VN": "HSX HNX"}
_PRODUCT_TYPES = {"KR": "300", "KRX": "300", "US": "512 513 529", "JP": "515", "HK": "501 543 558"}
_PRODUCT_TYPES |= {"CN": "551 552", "VN": "507 508"}
_PRICES = {"Stock": "FHKST01010100", "ETF": "FHPST02400000"}

_SYMBOL = re.compile(r"\s*\S.*", re.DOTALL)
_PATH = re.compile(r"/?[^/\s?#\\]+(/[^/\s?#\\]+)*/?")  # below the host, and nowhere else: the request has the secret
_TRANSACTION = re.compile(r"[A-Za-z0-9]+")
_HEADER = re.compile(r"(?!(authorization|appkey|appsecret|tr_id):)[a-z0-9_-]+:[ -~]*")
_DATE = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
_CURSOR = re.compile(r"(?i)(ctx_area_)?(fk|nk)(100|200)|keyb|cts")


class Call(NamedTuple):
    """One request, without what a client adds to it: host, keys and token."""

    method: str
    path: str
    tr_id: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = {}
    body: bytes | None = None


class Answer(NamedTuple):
    """KIS's answer to one request: its body, and its header `tr_cont`, which tells of further pages."""

    payload: Payload
    tr_cont: str | None


Flow = Generator[Call, Answer, Any]


def _each_request(flow: Callable[Concatenate[Endpoints[R], P], Flow]) -> Callable[Concatenate[Endpoints[R], P], R]:
    """Make a call of a flow, with both decorators at once; it keeps no token: a client takes the current one."""

    @wraps(flow)
    def call(self: Endpoints[R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(flow(self, *args, **kwargs))

    call.__qualname__ = f"KisClient.{flow.__name__.lstrip('_')}"  # by which events tell of it
    return decorated(call, rules_of(refreshes=True, repeats=True, bind=lambda _: None))


class Endpoints(Generic[R]):
    """The calls of both clients; `R` is what a call gives: an answer, or a coroutine of one."""

    _run: Callable[[Flow], R]  # drives a flow: sends what it yields, and hands it KIS's answers

    @_each_request
    def get(self, path: str, tr_id: str, params: Fields | None = None, headers: Fields | None = None) -> Flow:
        """
        Ask any endpoint with `GET`.

        Args:
            path: below the host, e.g. "/uapi/domestic-stock/v1/quotations/inquire-price".
            tr_id: its transaction, e.g. "FHKST01010100" (API page of the endpoint).
            params: the query.
            headers: further ones, e.g. `{"custtype": "P"}`.

        Raises:
            ValueError: an argument cannot be; nothing has been sent. So it is with every call.
            ResponseError: the answer is not a JSON object.
            requests.RequestException: no answer (`AsyncKisClient`: `httpx.HTTPError`).
        """
        return (yield checked("GET", path, tr_id, params, headers)).payload

    @_each_request
    def post(self, path: str, tr_id: str, json: Fields | None = None, headers: Fields | None = None) -> Flow:
        """
        Send to any endpoint with `POST`, as `get` asks: orders, for one.

        It is repeated after a refusal that KIS says before it acts (a token, EGW00201) and where it never left, within
        `RetryPolicy.order_deadline`. Nothing else is ever repeated, a time-out least of all: look at your orders.
        """
        body = dumps({} if json is None else json, ensure_ascii=False, allow_nan=False).encode()
        return (yield checked("POST", path, tr_id, None, headers, body=body)).payload

    @_each_request
    def fetch_domestic_price(self, symbol: str, symbol_type: str = "Stock") -> Flow:
        """Ask for the price (주식현재가 시세) of a domestic `symbol` like "005930", a "Stock" or an "ETF"."""
        tr_id = _lookup("symbol_type", symbol_type, _PRICES)
        query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": _symbol(symbol)}
        return (yield Call("GET", f"{_QUOTATIONS}/inquire-price", tr_id, query)).payload

    @_each_request
    def fetch_price_detail_oversea(self, symbol: str, country_code: str = "US") -> Flow:
        """
        Ask for the price in detail (해외주식 현재가상세) of a `symbol` like "AAPL" of "US", "HK", "JP", "CN" or "VN".

        One request an exchange, in KIS's order, until one knows the symbol: each answers `rt_cd` "0" (observed).

        Raises:
            ValueError: no exchange of the country knows the symbol.
        """
        exchanges, symbol = _lookup("country_code", country_code, _EXCHANGES), _symbol(symbol)
        for exchange in exchanges.split():
            query = {"AUTH": "", "EXCD": exchange, "SYMB": symbol}
            call = Call("GET", "/uapi/overseas-price/v1/quotations/price-detail", "HHDFS76200200", query)
            answer: Payload = (yield call).payload
            if answer.get("rt_cd") not in ("0", "7") or _output(answer).get("rsym"):
                return answer
        raise ValueError(f"no exchange of {country_code} ({exchanges}) knows the symbol {symbol!r}")

    @_each_request
    def fetch_stock_info(self, symbol: str, country_code: str = "KR") -> Flow:
        """
        Ask for the product information (상품기본조회) of a symbol of "KR", "KRX", "US", "JP", "HK", "CN" or "VN".

        One request a product type, in KIS's order, until one does not answer `rt_cd` "7" (no data).
        """
        product_types, symbol = _lookup("country_code", country_code, _PRODUCT_TYPES), _symbol(symbol)
        for product_type in product_types.split():
            query = {"PDNO": symbol, "PRDT_TYPE_CD": product_type}
            answer: Payload = (yield Call("GET", f"{_QUOTATIONS}/search-info", "CTPF1604R", query)).payload
            if answer.get("rt_cd") != "7":
                break
        return answer

    @_each_request
    def fetch_search_stock_info(self, symbol: str, country_code: str = "KR") -> Flow:
        """Ask for the details of a domestic stock (주식기본조회); "KR" is the one country."""
        _lookup("country_code", country_code, {"KR": ()})
        query = {"PDNO": _symbol(symbol), "PRDT_TYPE_CD": "300"}
        return (yield Call("GET", f"{_QUOTATIONS}/search-stock-info", "CTPF1002R", query)).payload

    @_each_request
    def fetch_ipo_schedule(self, from_date: str | None = None, to_date: str | None = None, symbol: str = "") -> Flow:
        """
        Ask for the schedule of public offerings (예탁원정보 공모주청약일정), from day to day (YYYYMMDD).

        Left out, the first is today in Seoul, and the last 30 days from today, or from a later `from_date`.

        Raises:
            ValueError: a date is malformed, or the first is after the last.
        """
        today = datetime.now(SEOUL).replace(tzinfo=None)
        first = _date("from_date", from_date) if from_date else today
        last = _date("to_date", to_date) if to_date else max(today, first) + timedelta(days=30)
        if first.date() > last.date():
            raise ValueError(f"from_date {first:%Y%m%d} is after to_date {last:%Y%m%d}")
        query = {"SHT_CD": symbol, "CTS": "", "F_DT": f"{first:%Y%m%d}", "T_DT": f"{last:%Y%m%d}"}
        return (yield Call("GET", _PUBLIC_OFFERS, "HHKDB669108C0", query, {"custtype": "P"})).payload

    @_each_request
    def fetch_price(self, symbol: str, country_code: str = "KR") -> Flow:
        """Ask for the price of a stock or ETF of "KR", whichever it is, or of a symbol of "US"."""
        if _lookup("country_code", country_code, {"KR": "KR", "US": "US"}) == "US":
            return (yield from unwrap(Endpoints.fetch_price_detail_oversea)(self, symbol, country_code))
        found = yield from unwrap(Endpoints.fetch_stock_info)(self, symbol, country_code)
        if found.get("rt_cd") not in ("0", "7"):
            return found
        kind = "ETF" if _output(found).get("prdt_clsf_name") == "ETF" else "Stock"
        return (yield from unwrap(Endpoints.fetch_domestic_price)(self, symbol, kind))

    @_each_request
    def _pages(self, call: Call, number: int) -> Flow:
        answer = yield call
        if answer.payload.get("rt_cd") not in ("0", "7"):
            raise PageError(f"page {number} of {call.path} was refused", page=number, answer=answer.payload)
        return answer


def checked(method: str, path: object, tr_id: object, params: Any, headers: Any, *, body: bytes | None = None) -> Call:
    """Make a call of what a user gives; parameters that are None are left out."""
    place = "/" + _match("path", path, _PATH, "a path below the host, without a query, like '/uapi/…'").lstrip("/")
    transaction = _match("tr_id", tr_id, _TRANSACTION, "letters and digits like 'FHKST01010100'")
    query = {name: str(value) for name, value in (params or {}).items() if value is not None}
    further = {str(name).lower(): str(value) for name, value in (headers or {}).items()}
    unusable = [name for name, value in further.items() if not _HEADER.fullmatch(f"{name}:{value}")]
    if unusable:  # the values may be secret
        raise ValueError(f"headers {unusable}: it takes printable ASCII, and none that a client sends itself")
    return Call(method, place, transaction, query, further, body)


def following(call: Call, answer: Answer, seen: list[Any]) -> Call | None:
    """
    Make the request for the page (연속조회) after this one, judged from its header and its body; None after the last.

    `seen` is empty at first, and gets the cursors of the pages, or the pages themselves where they have none.

    Raises:
        PageError: the page leads back to an earlier one.
    """
    payload, tr_cont = answer
    if (tr_cont or "").strip().upper() not in ("F", "M"):
        return None
    cursor = _cursor_of(payload)
    seen.append(cursor or payload)  # without a cursor KIS keeps the place, and has lost it where a page comes again
    if seen[-1] in (_cursor_of(call.query), *seen[:-1]):
        what = f"page {len(seen) + 1} of {call.path} cannot be asked for: page {len(seen)} leads back to an earlier one"
        raise PageError(what, page=len(seen) + 1, answer=payload)
    query = {name: value for name, value in call.query.items() if name.upper() not in cursor}
    return call._replace(query={**query, **cursor}, headers={"tr_cont": "N"})


def _cursor_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Give the cursor among `fields` under the names that the query takes; empty where all of it is blank."""
    found = {name.upper(): value for name, value in fields.items() if _CURSOR.fullmatch(name)}
    return found if any(str(value or "").strip() for value in found.values()) else {}


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


def _date(name: str, given: object) -> datetime:
    return datetime.strptime(_match(name, given, _DATE, "a date as YYYYMMDD"), "%Y%m%d")
