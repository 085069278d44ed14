"""What passes between KIS and its callers, and KIS's own words. Pure."""

from __future__ import annotations

import json
import threading
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


class Dropped(NamedTuple):
    """The connection is to be closed without an answer."""


class Hung(NamedTuple):
    """
    No answer for `seconds`, or until `released` is set; then `response`.

    Where that is None, the request has not reached KIS yet and is judged when the waiting is over.
    """

    seconds: float
    released: threading.Event
    response: WireResponse | None = None


Response = WireResponse | Dropped | Hung


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
