"""
Pure judgement of whether an answer says that the access token is dead.

No clock, no I/O, no log, and nothing raised, whatever comes in. The rules are KIS's error table: EGW00121, EGW00122
and EGW00123 speak of the token, and where `msg_cd` does not say, the message does. The HTTP status says nothing: the
three come as 500 in most reports and as 200 in some (observed).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from .policy import EXPIRED_CODES

__all__ = ["answer_of", "code_of", "is_token_expired_error", "is_token_expired_response"]

# Codes that have a meaning of their own: the message is not asked, however much it sounds like an expired token.
_OTHER_CODES = frozenset(
    {
        *EXPIRED_CODES,  # listed for a policy that leaves one of the three out
        "EGW00103",
        "EGW00105",
        "EGW00120",
        "EGW00124",
        "EGW00125",
        "EGW00126",
        "EGW00133",
        "EGW00201",
        "EGW00206",
        "EGW00207",
        "EGW00301",
        "EGW00302",
        "EGW00303",
    }
)
_TOKEN = re.compile("token|토큰")
_DEAD = re.compile("만료|유효하지않|찾을수없")
_SPACE = re.compile(r"\s+")


def is_token_expired_response(value: object, codes: Collection[str] = EXPIRED_CODES) -> bool:
    """
    Say whether KIS refused this call because its access token is expired, unknown or missing.

    The predicate for `tenacity.retry_if_result`; useful by itself wherever an answer of KIS is looked at. Never raises.

    Recognised: `msg_cd` EGW00123 (기간이 만료된 token 입니다.), EGW00121 (유효하지 않은 token 입니다.) and EGW00122
    (token을 찾을 수 없습니다.); without such a code the same messages and looser ones ("token이 만료되었습니다"),
    whatever their case and white space. Not recognised: `rt_cd` "0", EGW00120 (code), EGW00124 to EGW00126
    (session_key), and every other failure (KIS error table; the messages were observed).

    Args:
        value: a mapping, a `requests.Response` or `httpx.Response`, or anything else with a `.json()`.
        codes: the `msg_cd` values that count; the decorator passes `RetryPolicy.expired_codes`.
    """
    try:
        answer = answer_of(value)
        return answer is not None and _says_expired(answer, codes)
    except Exception:  # a hostile mapping or `.json()`: what cannot be read does not say "expired"
        return False


def is_token_expired_error(exc: object, codes: Collection[str] = EXPIRED_CODES) -> bool:
    """
    Say the same of an exception that carries an answer as `.response`.

    For code that calls `raise_for_status()` before `.json()`: `requests.HTTPError` and `httpx.HTTPStatusError` keep
    the body, `aiohttp.ClientResponseError` does not (read the body before raising there). Never raises.

    Args:
        exc: the exception.
        codes: as in `is_token_expired_response`.
    """
    try:
        return is_token_expired_response(getattr(exc, "response", None), codes)
    except Exception:  # a property that raises
        return False


def answer_of(value: object) -> Mapping[str, Any] | None:
    """The JSON object in `value`, or None. May raise what the value's own methods raise."""
    if isinstance(value, Mapping):
        return value
    if value is None or isinstance(value, (str, bytes, int, float, list, tuple, set)):
        return None  # by far the most common other results; they have no `.json()`
    json = getattr(value, "json", None)
    if not callable(json) or isinstance(value, type):
        return None
    answer = json()
    if hasattr(answer, "__await__"):
        close = getattr(answer, "close", None)  # an unawaited coroutine would warn
        if callable(close):
            close()
        return None
    return answer if isinstance(answer, Mapping) else None


def code_of(value: object) -> str | None:
    """`msg_cd` of an answer, for an event; None where there is none. Never raises."""
    try:
        answer = answer_of(value)
        code = answer.get("msg_cd") if answer is not None else None
        return code if isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9]{1,16}", code) else None
    except Exception:  # as above
        return None


def _says_expired(answer: Mapping[str, Any], codes: Collection[str]) -> bool:
    if _text(answer.get("rt_cd")) == "0":
        return False
    code = _text(answer.get("msg_cd")).upper()
    if code in codes:
        return True
    return code not in _OTHER_CODES and _message_says_expired(answer.get("msg1"))


def _message_says_expired(message: object) -> bool:
    if not isinstance(message, str):
        return False
    text = _SPACE.sub("", unicodedata.normalize("NFKC", message)).casefold()
    return bool(_TOKEN.search(text) and _DEAD.search(text))


def _text(value: object) -> str:
    """`rt_cd` and `msg_cd` as text, whether KIS's or a library's number; anything else is no verdict."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return str(value).strip()
