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
from .failures import is_transient_failure
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
_SPACE = re.compile(r"\s+")

_VERDICT = ("rt_cd", "msg_cd", "msg1", "error_code", "error_description")  # the latter two of the token endpoint
_PASSING = (Meaning.RATE_LIMITED, Meaning.TRANSIENT)


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
        return _meaning_of(value) is Meaning.RATE_LIMITED
    except Exception:  # as above
        return False


def is_transient_response(value: object) -> bool:
    """
    Say whether this answer is a failure that passes by itself, so that a read may simply be asked again.

    Recognised: every rate limit (`is_rate_limited_response`), EGW00316 (재 조회 수행 부탁드립니다), errors inside the
    gateway (EGW00001, EGW00002, EGW00202, EGW00203, EGW00300), the busy answers OPSQ1002 (SESSION FULL), OPSQ0003,
    OPSQ0010 and OPSQ0011, and HTTP 429 or 5xx without KIS's verdict. Not recognised: EGW00301 and EGW00302 ("check
    your last order"), anything else with a verdict, and HTTP 500 with a body that has not been read: KIS itself
    answers with that status. It says nothing about orders, which may be sent again after EGW00201 alone. Never raises.

    Args:
        value: as in `is_token_expired_response`.
    """
    try:
        return _meaning_of(value) in _PASSING
    except Exception:  # as above
        return False


def is_transient_error(exc: object) -> bool:
    """
    Say whether this exception is a failure that passes by itself: nobody answered, or the answer it carries says so.

    Recognised, without importing any of them: dropped and refused connections, time-outs and DNS failures of
    `requests`, `httpx`, `aiohttp`, `urllib3` and the standard library; an exception whose `.response` is a transient
    answer; one that keeps nothing of its answer but a status (`aiohttp`, `urllib.error`) of 429 or 5xx, 500 excepted,
    since KIS's verdict may have come with that; an exception group of nothing else. Not recognised: a TLS certificate
    error, an invalid URL, and every other exception, one that was made `from` a transient failure included. Never
    raises.

    Args:
        exc: the exception.
    """
    try:
        return _is_passing(exc)
    except Exception:  # a property that raises
        return False


def _is_passing(exc: object) -> bool:
    if not isinstance(exc, Exception):
        return False
    parts = getattr(exc, "exceptions", None) if type(exc).__name__ == "ExceptionGroup" else None
    if parts is not None:
        return bool(parts) and all(_is_passing(part) for part in parts)
    meaning = _meaning_of(_response_of(exc))
    if meaning is not None:
        return meaning in _PASSING
    return _is_not_of_kis(status_of(exc)) or is_transient_failure(exc)


def _response_of(exc: Exception) -> object:
    try:
        return getattr(exc, "response", None)
    except Exception:  # a property that raises; the type of the exception may still say enough
        return None


def _meaning_of(value: object) -> Meaning | None:
    """What KIS says, or else what the HTTP status does; None where neither speaks of a failure."""
    status, unread = status_of(value), False
    try:
        answer = answer_of(value)
        unread = answer is None and not callable(getattr(value, "json", None))
    except (ValueError, RecursionError):  # a proxy's page, or half an object
        answer = None
    except Exception as error:  # the body cannot be had
        if is_transient_failure(error):
            return Meaning.TRANSIENT
        answer, unread = None, True
    if answer is not None and any(text_of(answer.get(name)) for name in _VERDICT):
        return _meaning_of_verdict(answer)
    return Meaning.TRANSIENT if _is_not_of_kis(status) or (status == 500 and not unread) else None


def _is_not_of_kis(status: int | None) -> bool:
    """Whether KIS does not answer with this status itself, so that nothing in the body needs to be known."""
    return status is not None and (status == 429 or 500 < status <= 599)


def _meaning_of_verdict(answer: Mapping[str, Any]) -> Meaning | None:
    if text_of(answer.get("rt_cd")) == "0":
        return None
    known = CODES.get((text_of(answer.get("msg_cd")) or text_of(answer.get("error_code"))).upper())
    if known is not None:
        return known
    text = _folded(answer.get("msg1") or answer.get("error_description"))
    if _says_dead_token(text):
        return Meaning.EXPIRED
    if "초과" in text.partition("초당거래건수")[2]:
        return Meaning.RATE_LIMITED
    return Meaning.TRANSIENT if "재조회수행" in text or "sessionfull" in text else Meaning.FINAL


def _says_expired(answer: Mapping[str, Any], codes: Collection[str]) -> bool:
    if text_of(answer.get("rt_cd")) == "0":
        return False
    code = text_of(answer.get("msg_cd")).upper()
    if code in codes:
        return True
    # A code with a meaning of its own: the message is not asked, however much it sounds like an expired token.
    return code not in CODES and _says_dead_token(_folded(answer.get("msg1")))


def _says_dead_token(text: str) -> bool:
    return bool(_TOKEN.search(text) and _DEAD.search(text))


def _folded(message: object) -> str:
    if not isinstance(message, str):
        return ""
    return _SPACE.sub("", unicodedata.normalize("NFKC", message)).casefold()
