"""What KIS says: its words, its listings and its pages, and what carries them. Pure; no prices of a real day."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

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
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Read the JSON object in the body; give an empty one where there is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):  # the second: brackets nested thousands deep
            return {}
        return value if isinstance(value, dict) else {}


class Response(NamedTuple):
    """Status, body and headers, to which the server adds the length."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def json_response(status: int, body: Mapping[str, Any]) -> Response:
    """Make a response with `body` as JSON, Korean left as it is."""
    content_type = {"Content-Type": "application/json; charset=utf-8"}
    return Response(status, json.dumps(body, ensure_ascii=False).encode(), content_type)


def success(output: Any, key: str = "output") -> dict[str, Any]:
    """Make the body of an API call that went well."""
    return {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다.", key: output}


def failure(msg_cd: str) -> dict[str, Any]:
    """Make the body of an API call that failed."""
    return {"rt_cd": "1", "msg_cd": msg_cd, "msg1": TEXTS.get(msg_cd, "")}


def error_body(code: str) -> dict[str, Any]:
    """Make the body of a refused token request."""
    return {"error_description": TEXTS.get(code, ""), "error_code": code}


def require(usable: bool, name: str, value: object, takes: str) -> None:
    """Refuse an argument that is not usable."""
    if not usable:
        raise ValueError(f"{name}={value!r} is not usable: it takes {takes}")


# -- listings and pages

Query = Mapping[str, str]
Body = dict[str, Any]

_HOMES = dict.fromkeys(("AAPL", "MSFT", "TSLA", "NVDA", "GOOGL", "AMZN"), "NAS")
_HOMES |= {**dict.fromkeys(("KO", "JPM", "IBM", "DIS"), "NYS"), **dict.fromkeys(("SPY", "GLD", "VOO"), "AMS")}
_FIRST_EXCHANGES = ("KRX", "NYS", "HKS", "TSE", "SHS", "HSX")  # of each country

_NO_DATA = {"rt_cd": "7", "msg_cd": "KIOK0560", "msg1": "조회할 자료가 없습니다"}

_ETFS = ("069500", "102110", "114800", "122630", "133690", "229200", "252670", "305720")
_ETF_PRICE = "FHPST02400000"  # a stock's is FHKST01010100 (KIS pages 주식현재가, ETF 현재가)

_EXCHANGE_OF = {"300": "KRX", "513": "NYS", "512": "NAS", "529": "AMS"}  # by product type (KIS page 상품기본조회)
_EXCHANGE_OF |= {"501": "HKS", "515": "TSE", "551": "SHS", "508": "HSX"}


def listing(path: str, query: Query, tr_id: str) -> Body:
    """Answer a GET; a path without an answer of its own echoes the query."""
    answer = _ANSWERS.get(path.rpartition("/")[2])
    # The libraries of the field write KIS's parameter names in both cases.
    return success(dict(query)) if answer is None else answer({name.upper(): query[name] for name in query}, tr_id)


def _is_listed(symbol: str, exchange: str | None) -> bool:
    """Say so of "AMS001" at AMS, of others without a home at every first exchange, of "NONE…" nowhere."""
    home = symbol[:3] if symbol[3:].isdigit() and symbol[:3] in _EXCHANGE_OF.values() else _HOMES.get(symbol)
    if home is not None:
        return exchange == home
    return exchange in _FIRST_EXCHANGES and symbol[:4] not in {"", "NONE"}


def _price(symbol: str) -> int:
    return 1_000 + zlib.crc32(symbol.encode()) % 9_000


def _domestic_price(query: Query, tr_id: str) -> Body:
    symbol, is_etf = query.get("FID_INPUT_ISCD", ""), tr_id == _ETF_PRICE
    price = 0 if is_etf and symbol not in _ETFS else _price(symbol) * 10  # that transaction knows ETFs alone
    opened = max(0, price - 100)
    numbers = {"stck_prpr": price, "stck_hgpr": price + 200, "stck_lwpr": max(0, price - 200), "stck_oprc": opened}
    numbers |= {"stck_sdpr": opened, "prdy_vrss": 100, "prdy_vrss_sign": 2}
    numbers |= {"acml_vol": price * 7, "acml_tr_pbmn": price * price * 7}
    market = {"nav": f"{price}.00", "etf_rprs_bstp_kor_isnm": "KOSPI200"} if is_etf else {}
    names = {"rprs_mrkt_kor_name": "KOSPI200", "stck_shrn_iscd": symbol, "prdy_ctrt": "0.50", **market}
    return success({**names, **{name: str(value) for name, value in numbers.items()}})


def _overseas_price(query: Query, _: str) -> Body:
    exchange, symbol = query.get("EXCD", ""), query.get("SYMB", "")
    price = f"{_price(symbol) / 100:.4f}"
    output = {"rsym": f"D{exchange}{symbol}", "base": price, "last": price, "pvol": "1000000"}
    return success(output if _is_listed(symbol, exchange) else dict.fromkeys(output, ""))


def _product(query: Query, _: str) -> Body:
    symbol, product_type = query.get("PDNO", ""), query.get("PRDT_TYPE_CD", "")
    if not _is_listed(symbol, _EXCHANGE_OF.get(product_type)):
        return _NO_DATA
    kind, name, group = ("101340", "ETF", "EF") if symbol in _ETFS else ("101310", "주권", "ST")
    output = {"pdno": symbol, "prdt_type_cd": product_type, "prdt_name": f"종목 {symbol}", "shtn_pdno": symbol}
    output |= {"prdt_clsf_cd": kind, "prdt_clsf_name": name, "scty_grp_id_cd": group}
    return success({**output, "mket_id_cd": "STK", "lstg_stqt": "1000000", "papr": "100"})


def _public_offers(query: Query, _: str) -> Body:
    dates = {"record_date": query.get("F_DT", ""), "list_dt": query.get("T_DT", "")}
    return success([{**dates, "sht_cd": query.get("SHT_CD") or "999999", "isin_name": "공모 종목"}], "output1")


_ANSWERS = {
    "inquire-price": _domestic_price,
    "price-detail": _overseas_price,
    "price": _overseas_price,
    "search-info": _product,
    "search-stock-info": _product,
    "pub-offer": _public_offers,
}


class Pages:
    """Rows that are answered in pages (연속조회); the arguments are those of `KisGateway.list_pages`."""

    def __init__(self, pages: int, rows: int, cursor: str) -> None:
        self._pages, self._rows, self._names = pages, rows, cursor.split()
        self._width = 200 if "200" in cursor else 100 if "100" in cursor else 0  # to which KIS fills it with blanks
        self._given: dict[tuple[object, ...], int] = {}  # the last page by who asked for what, where there is no cursor

    def answer(self, query: Query, caller: str, tr_cont: str) -> tuple[Body, str]:
        """Give the page that a request asks for, and its response header `tr_cont`; `caller` is an app key."""
        who = (caller, *sorted(query.items()))
        number = self._asked_for(query, who) if tr_cont.strip() == "N" else 1
        if not 1 <= number <= self._pages:
            return _NO_DATA, ""
        self._given[who] = number
        more = number < self._pages
        numbers = range((number - 1) * self._rows + 1, number * self._rows + 1)
        texts = (f"PAGE{number + 1}" if more else "", "LIST")
        cursor = {name: text.ljust(self._width) for name, text in zip(self._names, texts, strict=False)}
        body = success([{"row": str(row), "pdno": f"{row:06d}"} for row in numbers], "output1") | cursor
        return body, ("F" if number == 1 else "M") if more else "D"

    def _asked_for(self, query: Query, who: tuple[object, ...]) -> int:
        if not self._names:
            return self._given.get(who, 0) + 1
        named = {name.lower(): value.strip() for name, value in query.items()}
        found = re.fullmatch(r"PAGE([1-9][0-9]{0,5})", named.get(self._names[0], ""))
        return int(found[1]) if found else 0
