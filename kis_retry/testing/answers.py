"""What KIS says: its words, its listings and its pages, and what carries them. Pure; no prices of a real day."""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Environment = Literal["real", "paper"]
"""Real or paper trading: two hosts that do not know each other's tokens."""

TEXTS = {
    "EGW00001": "일시적 오류가 발생했습니다.",
    "EGW00002": "서버 에러가 발생했습니다.",
    "EGW00103": "유효하지 않은 AppKey입니다.",
    "EGW00105": "유효하지 않은 AppSecret입니다.",
    "EGW00115": "유효하지 않은 grant_type입니다.",
    "EGW00120": "기간이 만료된 code 입니다.",
    "EGW00121": "유효하지 않은 token 입니다.",
    "EGW00122": "token을 찾을 수 없습니다.",
    "EGW00123": "기간이 만료된 token 입니다.",
    "EGW00124": "유효하지 않은 session_key 입니다.",
    "EGW00125": "session_key를 찾을 수 없습니다.",
    "EGW00126": "기간이 만료된 session_key 입니다.",
    "EGW00133": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)",
    "EGW00201": "초당 거래건수를 초과하였습니다.",
    "EGW00202": "GW라우팅 중 오류가 발생했습니다.",
    "EGW00203": "OPS라우팅 중 오류가 발생했습니다.",
    "EGW00206": "API 사용 권한이 없습니다.",
    "EGW00207": "IP 주소가 없거나 유효하지 않습니다.",
    "EGW00215": "원장에서 허용 가능한 초당 거래건수를 초과하였습니다.",
    "EGW00300": "Gateway 라우팅 오류가 발생했습니다.",
    "EGW00301": "연결 시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.",
    "EGW00302": "거래시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.",
    "EGW00303": "법인고객에게 허용되지 않은 IP접근입니다.",
    "EGW00304": "고객식별키(법인 personalSeckey, 개인 appSecret)가 유효하지 않습니다.",
    "EGW00316": "조회 처리 중 오류 발생하였습니다. 재 조회 수행 부탁드립니다.",
    "EGW02004": "실전투자 TR 이 아닙니다.",
    "EGW02006": "모의투자 TR 이 아닙니다.",
    "OPSQ0002": "없는 서비스 코드 입니다.",
    "OPSQ0003": "호출 오류 입니다.",
    "OPSQ0010": "호출 결과처리(리소스 부족) 오류 입니다.",
    "OPSQ0011": "호출 결과처리(리소스 부족) 오류 입니다.",
    "OPSQ1002": "SESSION FULL",
}
"""KIS's words for its codes (KIS error table; EGW00133, 215, 316, 02004, 02006 and OPSQ1002 as observed)."""


class Request(NamedTuple):
    """One request as KIS reads it: header names in lower case, the path without the query."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """Read the JSON object in the body; give an empty one where there is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):  # the second: brackets nested thousands deep
            return {}
        return value if isinstance(value, dict) else {}


class WireResponse(NamedTuple):
    """Status, body and headers; the front ends add the length."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Hung(NamedTuple):
    """
    No answer for `seconds`, or until `released` is set; then `response`.

    Where that is None, the request has not reached KIS yet and is judged when the waiting is over.
    """

    seconds: float
    released: threading.Event
    response: WireResponse | None = None


Response = WireResponse | Hung | None
"""None closes the connection without an answer."""


def json_response(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> WireResponse:
    """Make a response with `body` as JSON, Korean left as it is."""
    return raw_response(status, json.dumps(body, ensure_ascii=False).encode(), headers)


def raw_response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> WireResponse:
    """Make a response with any bytes; those that begin with "<" are said to be HTML."""
    kind = "text/html" if body.lstrip().startswith(b"<") else "application/json; charset=utf-8"
    return WireResponse(status, body, {"Content-Type": kind, **(headers or {})})


def success(output: Any, key: str = "output") -> dict[str, Any]:
    """Make the body of an API call that went well."""
    return {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다.", key: output}


def failure(msg_cd: str, msg1: str | None = None, rt_cd: str = "1") -> dict[str, Any]:
    """Make the body of an API call that failed."""
    return {"rt_cd": rt_cd, "msg_cd": msg_cd, "msg1": TEXTS.get(msg_cd, "") if msg1 is None else msg1}


def no_data() -> dict[str, Any]:
    """Make the body of an API call that found nothing."""
    return failure("KIOK0560", "조회할 자료가 없습니다", rt_cd="7")


def error_body(code: str | None) -> dict[str, Any]:
    """Make the body of a refused token request; without a code, that of a server that failed."""
    if code is None:
        return {"message": "Internal Server Error"}
    return {"error_description": TEXTS.get(code, ""), "error_code": code}


def require(usable: bool, name: str, value: object, takes: str) -> None:
    """Refuse an argument that is not usable."""
    if not usable:
        raise ValueError(f"{name}={value!r} is not usable: it takes {takes}")


_EXCHANGES = ["KRX", "NYS", "NAS", "AMS", "BAY", "BAQ", "BAA", "HKS", "TSE", "SHS", "SZS", "HSX", "HNX"]
_TYPES = ["300", "513", "512", "529", "513", "512", "529", "501", "515", "551", "552", "508", "507"]
PRODUCT_TYPES = dict(zip(_EXCHANGES, _TYPES, strict=True))
"""Product type of search-info by exchange (KIS page 상품기본조회; BAY, BAQ and BAA are daytime trading in the US)."""

_HOMES = {
    **dict.fromkeys(("AAPL", "MSFT", "TSLA", "NVDA", "GOOGL", "AMZN"), "NAS"),
    **dict.fromkeys(("KO", "JPM", "IBM", "DIS"), "NYS"),
    **dict.fromkeys(("SPY", "GLD", "VOO"), "AMS"),
}
_FIRST_EXCHANGES = ("KRX", "NYS", "HKS", "TSE", "SHS", "HSX")
_CURRENCIES = {"HKS": "HKD", "TSE": "JPY", "SHS": "CNY", "SZS": "CNY", "HSX": "VND", "HNX": "VND"}
_ETFS = ("069500", "102110", "114800", "122630", "133690", "229200", "252670", "305720")

_ETF_PRICE = "FHPST02400000"  # a stock's is FHKST01010100 (KIS pages 주식현재가, ETF 현재가)
_DOMESTIC_PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"

Query = Mapping[str, str]
Body = dict[str, Any]


class Listings:
    """The listings; what nobody has listed is at the first exchange of every country, "NONE…" nowhere."""

    def __init__(self) -> None:
        self._homes = dict(_HOMES)
        self._etfs = set(_ETFS)
        self._answers = {
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
        require(exchange in PRODUCT_TYPES, "exchange", exchange, f"one of {' '.join(PRODUCT_TYPES)}")
        self._homes[symbol] = exchange

    def list_etf(self, symbol: str) -> None:
        """Make a symbol an ETF."""
        self._etfs.add(symbol)

    def answer(self, path: str, query: Query, tr_id: str = "") -> Body:
        """Answer a GET; a path without an answer of its own echoes the query."""
        answer = self._answers.get(path)
        if tr_id == _ETF_PRICE and path == _DOMESTIC_PRICE:
            answer = self._etf_price
        # The libraries of the field write KIS's parameter names in both cases.
        return success(dict(query)) if answer is None else answer({name.upper(): query[name] for name in query})

    def _is_listed(self, symbol: str, exchange: str) -> bool:
        home = self._homes.get(symbol)
        if home is not None:
            return home == exchange
        return bool(symbol) and not symbol.startswith("NONE") and exchange in _FIRST_EXCHANGES

    def _stock_price(self, query: Query) -> Body:
        symbol = query.get("FID_INPUT_ISCD", "")
        return success({**_quote(symbol, _price(symbol) * 10), "rprs_mrkt_kor_name": "KOSPI200"})

    def _etf_price(self, query: Query) -> Body:
        symbol = query.get("FID_INPUT_ISCD", "")
        price = _price(symbol) * 10 if symbol in self._etfs else 0  # it knows ETFs alone
        return success({**_quote(symbol, price), "nav": f"{price}.00", "etf_rprs_bstp_kor_isnm": "KOSPI200"})

    def _overseas_price(self, query: Query) -> Body:
        exchange, symbol = query.get("EXCD", ""), query.get("SYMB", "")
        price = f"{_price(symbol) / 100:.4f}"
        output = {"rsym": f"D{exchange}{symbol}", "base": price, "last": price, "pvol": "1000000"}
        output |= {"curr": _CURRENCIES.get(exchange, "USD"), "perx": "20.00", "pbrx": "3.00"}
        output |= {"epsx": "5.00", "bpsx": "30.00"}
        return success(output if self._is_listed(symbol, exchange) else dict.fromkeys(output, ""))

    def _product(self, query: Query) -> Body:
        symbol, product_type = query.get("PDNO", ""), query.get("PRDT_TYPE_CD", "")
        if not any(self._is_listed(symbol, place) for place, of in PRODUCT_TYPES.items() if of == product_type):
            return no_data()
        output = {"pdno": symbol, "prdt_type_cd": product_type, "prdt_name": f"종목 {symbol}", "shtn_pdno": symbol}
        kind, name = ("101340", "ETF") if symbol in self._etfs else ("101310", "주권")
        return success({**output, "prdt_clsf_cd": kind, "prdt_clsf_name": name})

    def _stock(self, query: Query) -> Body:
        symbol = query.get("PDNO", "")
        if query.get("PRDT_TYPE_CD") != "300" or not self._is_listed(symbol, "KRX"):
            return no_data()
        output = {"pdno": symbol, "prdt_type_cd": "300", "prdt_name": f"종목 {symbol}", "mket_id_cd": "STK"}
        output |= {"scty_grp_id_cd": "EF" if symbol in self._etfs else "ST", "lstg_stqt": "1000000", "papr": "100"}
        return success(output)


def _public_offers(query: Query) -> Body:
    first, last = (query.get(name, "") for name in ("F_DT", "T_DT"))
    offer = {"record_date": first, "sht_cd": query.get("SHT_CD") or "999999", "isin_name": "공모 종목"}
    offer |= {"fix_subscr_pri": "10000", "face_value": "500", "subscr_dt": f"{_dotted(first)}~{_dotted(last)}"}
    offer |= dict.fromkeys(("pay_dt", "refund_dt", "list_dt"), _dotted(last)) | {"lead_mgr": "한국투자증권"}
    return success([offer], "output1")


def _quote(symbol: str, price: int) -> dict[str, str]:
    numbers = {"stck_prpr": price, "prdy_vrss": 100, "prdy_vrss_sign": 2, "acml_vol": price * 7}
    numbers |= {"acml_tr_pbmn": price * price * 7, "stck_hgpr": price + 200, "stck_lwpr": max(0, price - 200)}
    numbers |= dict.fromkeys(("stck_oprc", "stck_sdpr"), max(0, price - 100))
    return {"stck_shrn_iscd": symbol, "prdy_ctrt": "0.50", **{name: str(value) for name, value in numbers.items()}}


def _dotted(date: str) -> str:
    return f"{date[:4]}.{date[4:6]}.{date[6:]}"


def _price(symbol: str) -> int:
    return 1_000 + zlib.crc32(symbol.encode()) % 9_000


Cursor = Literal["100", "200", "FK100", "FK200", "KEYB", "CTS", "none"]

_CURSOR_NAMES: dict[Cursor, tuple[str, ...]] = {
    "100": ("ctx_area_nk100", "ctx_area_fk100"),
    "200": ("ctx_area_nk200", "ctx_area_fk200"),
    "FK100": ("nk100", "fk100"),
    "FK200": ("nk200", "fk200"),
    "KEYB": ("keyb",),
    "CTS": ("cts",),
    "none": (),
}
_MARK = re.compile(r"PAGE([1-9][0-9]{0,5})")


class Pages:
    """Rows that are answered in pages (연속조회); the arguments are those of `KisGateway.list_pages`."""

    def __init__(
        self,
        pages: int,
        rows: int,
        *,
        cursor: Cursor,
        output: str,
        last: Literal["D", "E", ""],
        repeat_from: int | None,
    ) -> None:
        loops = repeat_from is None or 1 <= repeat_from <= pages
        require(1 <= pages <= 999_999, "pages", pages, "a whole number from 1 to 999,999")
        require(rows >= 0, "rows", rows, "a whole number from 0")
        require(cursor in _CURSOR_NAMES, "cursor", cursor, f"one of {', '.join(_CURSOR_NAMES)}")
        require(last in {"D", "E", ""}, "last", last, '"D", "E" or ""')
        require(loops, "repeat_from", repeat_from, f"a page from 1 to {pages}, or None")
        self._pages, self._rows, self._output, self._last = pages, rows, output, last
        self._names = _CURSOR_NAMES[cursor]
        self._repeat_from = repeat_from
        self._given: dict[tuple[object, ...], int] = {}  # the last page by who asked for what, where there is no cursor

    def answer(self, query: Query, caller: str, tr_cont: str) -> tuple[Body, str]:
        """Give the page that a request asks for, and its response header `tr_cont`; `caller` is an app key."""
        who = (caller, *sorted(query.items()))
        number = self._asked_for(query, who) if tr_cont.strip() == "N" else 1
        if number is None:
            return no_data(), ""
        self._given[who] = number
        repeats = self._repeat_from is not None and number >= self._repeat_from
        more = repeats or number < self._pages
        first = (number - 1) * self._rows + 1
        rows = [{"row": str(row), "pdno": f"{row:06d}"} for row in range(first, first + self._rows)]
        body = success(rows, self._output) | self._cursor(number if repeats else number + 1, more)
        return body, ("F" if number == 1 else "M") if more else self._last

    def _asked_for(self, query: Query, who: tuple[object, ...]) -> int | None:
        if not self._names:
            number = self._given.get(who, 0) + 1
            number = min(number, self._repeat_from or number)
        else:
            named = {name.lower(): value for name, value in query.items()}
            found = _MARK.fullmatch(named.get(self._names[0], "").strip())
            number = int(found[1]) if found else 0
        return number if 1 <= number <= self._pages else None

    def _cursor(self, following: int, more: bool) -> Body:
        texts = (f"PAGE{following}" if more else "", "LIST")
        # KIS fills the cursors that have a width in their names with blanks.
        width = int(self._names[0][-3:]) if len(self._names) == 2 else 0
        return {name: text.ljust(width) for name, text in zip(self._names, texts, strict=False)}
