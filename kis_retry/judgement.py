"""
Pure judgement of what an answer of KIS, or an error, says about calling again.

No clock, no I/O, no log, and nothing raised, whatever comes in. The codes are those of `kis`; where `msg_cd` does not
say, the message does. The HTTP status decides nothing that KIS has spoken about: refusals come as 500 and as 200
(observed).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from .answer import answer_of, status_of, text_of
from .failures import is_transient_failure, status_of_error
from .kis import CODES, EXPIRED_CODES, Meaning

__all__ = [
    "is_rate_limited_response",
    "is_token_expired_error",
    "is_token_expired_response",
    "is_transient_error",
    "is_transient_response",
]

_TOKEN = re.compile("token|토큰")
_DEAD = re.compile("만료|유효하지않|찾을수없")
_RATE = re.compile("초당거래건수.*초과")
_PASSING = re.compile("재조회수행|sessionfull")
_SPACE = re.compile(r"\s+")

# Statuses with which KIS does not answer itself, so that nothing in the body needs to be known.
_NOT_OF_KIS = frozenset((429, 502, 503, 504))


def is_token_expired_response(value: object, codes: Collection[str] = EXPIRED_CODES) -> bool:
    """
    Say whether KIS refused this call because its access token is expired, unknown or missing.

    The predicate for `tenacity.retry_if_result`; useful by itself wherever an answer of KIS is looked at. Never raises.

    Recognised: `msg_cd` EGW00123 (기간이 만료된 token 입니다.), EGW00121 (유효하지 않은 token 입니다.) and EGW00122
    (token을 찾을 수 없습니다.); without such a code the same messages and looser ones ("token이 만료되었습니다"),
    whatever their case and white space. Not recognised: `rt_cd` "0", EGW00120 (code), EGW00124 to EGW00126
    (session_key), and every other failure (KIS error table; the messages were observed).

    Args:
        value: a mapping, a `requests.Response`, `httpx.Response` or `aiohttp.ClientResponse` (once its body has been
            read), or anything else with a `.json()`.
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
    the body, `aiohttp.ClientResponseError` does not (inside a decorated function its answer is seen all the same).
    Never raises.

    Args:
        exc: the exception.
        codes: as in `is_token_expired_response`.
    """
    try:
        return is_token_expired_response(getattr(exc, "response", None), codes)
    except Exception:  # a property that raises
        return False


def is_rate_limited_response(value: object) -> bool:
    """
    Say whether KIS refused this call because there were too many in this second.

    Recognised: EGW00201 (초당 거래건수를 초과하였습니다.), EGW00215 (원장에서 허용 가능한 초당 거래건수를 …, the
    ledger's own limit), and without a code their messages. KIS refuses calls within the limit too (observed), so a
    batch at any pace meets these. Never raises.

    Args:
        value: as in `is_token_expired_response`.
    """
    try:
        answer = answer_of(value)
        return answer is not None and _meaning_of(answer) is Meaning.RATE_LIMITED
    except Exception:  # as above
        return False


def is_transient_response(value: object) -> bool:
    """
    Say whether this answer is a failure that passes by itself, so that a read may simply be asked again.

    Recognised: every rate limit (`is_rate_limited_response`), EGW00316 (재 조회 수행 부탁드립니다), errors inside the
    gateway (EGW00001, EGW00002, EGW00202, EGW00203, EGW00300), the busy answers OPSQ1002 (SESSION FULL), OPSQ0003,
    OPSQ0010 and OPSQ0011, and HTTP 429 or 5xx without KIS's verdict. Not recognised: EGW00301 and EGW00302 ("check
    your last order"), and anything else with a verdict. It says nothing about orders, which may be sent again after
    EGW00201 alone. Never raises.

    Args:
        value: as in `is_token_expired_response`.
    """
    try:
        return _is_transient(value)
    except Exception:  # as above
        return False


def is_transient_error(exc: object) -> bool:
    """
    Say whether this exception is a failure that passes by itself: nobody answered, or the answer it carries says so.

    Recognised, without importing any of them: dropped and refused connections, time-outs and DNS failures of
    `requests`, `httpx`, `aiohttp`, `urllib3` and the standard library, and an exception whose `.response` is a
    transient answer. Not recognised: a TLS certificate error, an invalid URL, and every other exception. Never raises.

    Args:
        exc: the exception.
    """
    try:
        response = getattr(exc, "response", None)
        if response is not None:
            return _is_transient(response)
        return status_of_error(exc) in _NOT_OF_KIS or is_transient_failure(exc)
    except Exception:  # a property that raises
        return False


def _is_transient(value: object) -> bool:
    try:
        answer = answer_of(value)
    except (ValueError, RecursionError):  # a proxy's page, or half an object
        answer = None
    if answer is not None and any(name in answer for name in ("rt_cd", "msg_cd", "error_code")):
        return _meaning_of(answer) in (Meaning.RATE_LIMITED, Meaning.TRANSIENT)
    status = status_of(value)
    return status is not None and (status == 429 or 500 <= status <= 599) and not _is_unread(value)


def _is_unread(value: object) -> bool:
    """Whether KIS's verdict may stand in a body that nobody has read yet (`aiohttp`)."""
    return status_of(value) not in _NOT_OF_KIS and hasattr(value, "_body") and value._body is None  # noqa: SLF001  # as in `answer`


def _meaning_of(answer: Mapping[str, Any]) -> Meaning | None:
    if text_of(answer.get("rt_cd")) == "0":
        return None
    known = CODES.get(text_of(answer.get("msg_cd") or answer.get("error_code")).upper())
    if known is not None:
        return known
    text = _folded(answer.get("msg1"))
    if _RATE.search(text):
        return Meaning.RATE_LIMITED
    return Meaning.TRANSIENT if _PASSING.search(text) else Meaning.FINAL


def _says_expired(answer: Mapping[str, Any], codes: Collection[str]) -> bool:
    if text_of(answer.get("rt_cd")) == "0":
        return False
    code = text_of(answer.get("msg_cd")).upper()
    if code in codes:
        return True
    # A code with a meaning of its own: the message is not asked, however much it sounds like an expired token.
    return code not in CODES and _message_says_expired(answer.get("msg1"))


def _message_says_expired(message: object) -> bool:
    text = _folded(message)
    return bool(_TOKEN.search(text) and _DEAD.search(text))


def _folded(message: object) -> str:
    if not isinstance(message, str):
        return ""
    return _SPACE.sub("", unicodedata.normalize("NFKC", message)).casefold()
