"""
KIS's codes and what they mean for a repeat: one table.

The table is KIS's error table where that has the code, and what was observed where it has not.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["CODES", "EXPIRED_CODES", "LIMIT_CODE", "ONCE_A_MINUTE", "UNCERTAIN_CODES", "Meaning"]


class Meaning(Enum):
    """
    What a refusal says about calling again.

    EXPIRED: the token is dead, a new one cures it. RATE_LIMITED: too many calls in this second. TRANSIENT: passes by
    itself. UNCERTAIN: the request may have been acted upon ("check your last order"). FINAL: calling again never helps.
    """

    EXPIRED = "expired"
    RATE_LIMITED = "rate_limited"
    TRANSIENT = "transient"
    UNCERTAIN = "uncertain"
    FINAL = "final"


CODES: dict[str, Meaning] = {
    "EGW00121": Meaning.EXPIRED,  # 유효하지 않은 token 입니다.
    "EGW00122": Meaning.EXPIRED,  # token을 찾을 수 없습니다.
    "EGW00123": Meaning.EXPIRED,  # 기간이 만료된 token 입니다.
    "EGW00201": Meaning.RATE_LIMITED,  # 초당 거래건수를 초과하였습니다.
    "EGW00215": Meaning.RATE_LIMITED,  # 원장에서 허용 가능한 초당 거래건수를 초과하였습니다.
    "EGW00316": Meaning.TRANSIENT,  # 재 조회 수행 부탁드립니다
    "EGW00001": Meaning.TRANSIENT,
    "EGW00002": Meaning.TRANSIENT,
    "EGW00202": Meaning.TRANSIENT,
    "EGW00203": Meaning.TRANSIENT,
    "EGW00300": Meaning.TRANSIENT,
    "OPSQ0003": Meaning.TRANSIENT,
    "OPSQ0010": Meaning.TRANSIENT,
    "OPSQ0011": Meaning.TRANSIENT,
    "OPSQ1002": Meaning.TRANSIENT,  # SESSION FULL
    "EGW00301": Meaning.UNCERTAIN,  # 연결 시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.
    "EGW00302": Meaning.UNCERTAIN,  # 거래시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.
    "EGW00103": Meaning.FINAL,  # 유효하지 않은 AppKey입니다.
    "EGW00105": Meaning.FINAL,  # 유효하지 않은 AppSecret입니다.
    "EGW00120": Meaning.FINAL,  # 기간이 만료된 code 입니다.
    "EGW00124": Meaning.FINAL,  # 유효하지 않은 session_key 입니다.
    "EGW00125": Meaning.FINAL,  # session_key를 찾을 수 없습니다.
    "EGW00126": Meaning.FINAL,  # 기간이 만료된 session_key 입니다.
    "EGW00133": Meaning.FINAL,  # 접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회); of the token endpoint alone
    "EGW00206": Meaning.FINAL,  # API 사용 권한이 없습니다.
    "EGW00207": Meaning.FINAL,  # IP 주소가 없거나 유효하지 않습니다.
    "EGW00303": Meaning.FINAL,  # 허용되지 않은 IP 입니다.
}
"""A code that is not here is a verdict like any other: final, unless its message says otherwise."""

EXPIRED_CODES = tuple(code for code, meaning in CODES.items() if meaning is Meaning.EXPIRED)
UNCERTAIN_CODES = tuple(code for code, meaning in CODES.items() if meaning is Meaning.UNCERTAIN)

LIMIT_CODE = "EGW00201"
"""Calls a second, said by the gateway before the call reaches the trading system: the one refusal that is not of the
token and after which an order may be sent again."""

ONCE_A_MINUTE = "EGW00133"
"""The token endpoint issues one token a minute for an app key (observed since 2023-10-27)."""
