"""
Judge what an answer of KIS, or an error, says about calling again: the one table of codes, and the predicates.

Nothing here does I/O, logs or raises, whatever comes in. The table is KIS's error table where that has the code, and
what was observed where it has not; where the code does not say, the message does. The HTTP status decides nothing that
KIS has spoken about: refusals come as 500 and as 200 (observed). Errors of the network are known by the names of their
package and class, so that none of the HTTP libraries is imported here.
"""

from __future__ import annotations

import errno
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, NamedTuple

from .context import attribute_of, behind

__all__ = ["CODES", "EXPIRED_CODES", "PASSING", "Meaning", "Verdict", "judge", "judge_answer"]
__all__ += ["is_rate_limited_response", "is_token_expired_error", "is_token_expired_response", "judge_error"]
__all__ += ["is_transient_error", "is_transient_response"]


class Meaning(Enum):
    """What an answer or an error says about sending the same request again."""

    GOOD = "good"  # success, "no such data", or nothing that speaks of a failure
    EXPIRED = "expired"  # the token is dead, a new one helps
    LIMITED = "limited"  # refused by the gateway before it acted, so an order may be sent again too
    TRANSIENT = "transient"  # passes by itself; a read may be repeated, an order may not
    NEVER_LEFT = "never_left"  # nothing was sent
    UNCERTAIN = "uncertain"  # it may have been acted upon ("check your last order")
    FINAL = "final"  # sending it again does not help


CODES: dict[str, Meaning] = {
    "EGW00121": Meaning.EXPIRED,  # 유효하지 않은 token 입니다.
    "EGW00122": Meaning.EXPIRED,  # token을 찾을 수 없습니다.
    "EGW00123": Meaning.EXPIRED,  # 기간이 만료된 token 입니다.
    "EGW00201": Meaning.LIMITED,  # 초당 거래건수를 초과하였습니다.
    "EGW00215": Meaning.TRANSIENT,  # 원장에서 허용 가능한 초당 거래건수를 초과하였습니다.
    "EGW00316": Meaning.TRANSIENT,  # 재 조회 수행 부탁드립니다
    **dict.fromkeys(("EGW00001", "EGW00002", "EGW00202", "EGW00203", "EGW00300"), Meaning.TRANSIENT),  # of the gateway
    **dict.fromkeys(("OPSQ0003", "OPSQ0010", "OPSQ0011", "OPSQ1002"), Meaning.TRANSIENT),  # busy; 1002: SESSION FULL
    "EGW00301": Meaning.UNCERTAIN,  # 연결 시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.
    "EGW00302": Meaning.UNCERTAIN,  # 거래시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.
    **dict.fromkeys(("EGW00103", "EGW00105"), Meaning.FINAL),  # 유효하지 않은 AppKey, AppSecret
    "EGW00120": Meaning.FINAL,  # 기간이 만료된 code 입니다.
    **dict.fromkeys(("EGW00124", "EGW00125", "EGW00126"), Meaning.FINAL),  # … session_key …
    "EGW00133": Meaning.FINAL,  # 접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회); of the token endpoint alone
    **dict.fromkeys(("EGW00206", "EGW00207", "EGW00303"), Meaning.FINAL),  # rights, IP address
    **dict.fromkeys(("EGW02004", "EGW02006"), Meaning.FINAL),  # 실전투자, 모의투자 TR 이 아닙니다.
}
"""A code that is not here is a verdict like any other: final, unless its message says otherwise."""

EXPIRED_CODES = tuple(code for code, meaning in CODES.items() if meaning is Meaning.EXPIRED)

PASSING = {Meaning.LIMITED, Meaning.TRANSIENT, Meaning.NEVER_LEFT}
_VERDICT = ("rt_cd", "msg_cd", "msg1", "error_code", "error_description")  # the latter two of the token endpoint


def _names(**packages: str) -> set[str]:
    return {f"{package}.{name}" for package, names in packages.items() for name in names.split()}


_NEVER_LEFT = _names(
    aiohttp="ClientConnectorError ConnectionTimeoutError",
    builtins="ConnectionRefusedError",
    httpx="ConnectError ConnectTimeout PoolTimeout",
    requests="ConnectTimeout",
    socket="gaierror",
    urllib3="ConnectTimeoutError NewConnectionError",
)
_UNANSWERED = _NEVER_LEFT | _names(
    aiohttp="ClientConnectionError ClientPayloadError HttpProcessingError",
    asyncio="TimeoutError",
    builtins="ConnectionError TimeoutError Unreachable",
    concurrent="TimeoutError",
    http="BadStatusLine IncompleteRead",
    httpx="NetworkError ProxyError RemoteProtocolError TimeoutException",
    requests="ChunkedEncodingError ConnectionError Timeout",
    urllib3="ProtocolError ProxyError TimeoutError TooManyErrorResponses",
)
_WRAPPERS = _names(  # it is what they were made of that says when it failed
    aiohttp="ClientResponseError",
    requests="ConnectionError RetryError",
    urllib="URLError",
    urllib3="MaxRetryError ProxyError",
)
_TLS = _names(
    aiohttp="ClientSSLError ServerFingerprintMismatch", requests="SSLError", ssl="SSLError", urllib3="SSLError"
)
_DROPPED_TLS = _names(ssl="SSLEOFError SSLZeroReturnError SSLSyscallError")
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}
_TOO_MANY = r"too many (429|5(?!00)\d\d) error responses"  # urllib3's words for a status that it repeated


class Verdict(NamedTuple):
    """How an answer or an error was judged."""

    meaning: Meaning
    code: str | None = None  # KIS's (`msg_cd`, of the token endpoint `error_code`), if it is fit for an event
    error: str | None = None  # the type name of the exception, if it was one
    unanswered: bool = False  # nothing was heard of KIS: no answer, none with its words, or a body not yet read
    rate_limited: bool = False  # too many calls in this second, by the gateway's count or by the ledger's

    @property
    def reason(self) -> dict[str, Any]:
        """Return what an event says of this failure: KIS's code, else what was raised."""
        return {"msg_cd": self.code, "error": None if self.code is not None else self.error or "HTTPError"}


def judge_answer(
    status: int | None, body: bytes | Mapping[str, Any] | None, codes: Collection[str] = EXPIRED_CODES
) -> Verdict:
    """
    Judge an HTTP answer by its body, as bytes or a JSON object, and its status, if there is one. Never raises.

    Without a body that has been read HTTP 500 is no failure, since KIS itself answers with that.
    """
    try:
        answer = _json_object(body) if isinstance(body, bytes) else body
        if answer is not None and any(_text(answer.get(name)) for name in _VERDICT):
            return _judge_words(answer, codes)
    except Exception:  # a hostile mapping: what cannot be read says nothing
        return Verdict(Meaning.GOOD, unanswered=True)
    if _is_not_of_kis(status) or (status == 500 and body is not None):
        return Verdict(Meaning.TRANSIENT, unanswered=True)
    if status is not None and status >= 400 and body is not None:
        return Verdict(Meaning.FINAL, unanswered=True)
    return Verdict(Meaning.GOOD, unanswered=True)


def judge_error(error: object, codes: Collection[str] = EXPIRED_CODES) -> Verdict:
    """Judge an exception: by the answer that it carries as `.response`, else by its type. Never raises."""
    name = type(error).__name__
    final = Verdict(Meaning.FINAL, error=name, unanswered=True)
    if not isinstance(error, Exception):  # Ctrl-C, a cancelled task: no failure that passes
        return final
    try:
        response = attribute_of(error, "response")
        carried = judge(response, codes)
        if carried.meaning is not Meaning.GOOD:
            return carried._replace(error=name)
        return final._replace(meaning=_failure_of(error), unanswered=response is None or carried.unanswered)
    except Exception:  # of its own properties
        return final


def judge(value: object, codes: Collection[str] = EXPIRED_CODES) -> Verdict:
    """
    Judge whatever a function gave back: good, unless it can be read as an answer. Never raises.

    That is a mapping, an answer of `requests`, `httpx` or (once its body has been read) `aiohttp`, and anything else
    with a `.json()`, a `.status_code` or a `.status`.
    """
    status = None
    try:
        if isinstance(value, Mapping):
            return judge_answer(None, value, codes)
        kept = getattr(value, "verdict", None)
        if isinstance(kept, Verdict):  # judged already
            return kept
        status = _status_of(value)
        return judge_answer(status, _body_of(value), codes)
    except Exception as error:  # the body cannot be had: it broke off, or it has not been read
        if judge_error(error).meaning in PASSING:
            return Verdict(Meaning.TRANSIENT, unanswered=True)
        return judge_answer(status, None)


def is_token_expired_response(value: object, codes: Collection[str] = EXPIRED_CODES) -> bool:
    """
    Say whether KIS refused this call because its access token is expired, unknown or missing. Never raises.

    The predicate for `tenacity.retry_if_result`. Recognised: `msg_cd` EGW00123 (기간이 만료된 token 입니다.), EGW00121
    (유효하지 않은 token 입니다.) and EGW00122 (token을 찾을 수 없습니다.); without a code of the table their messages
    and looser ones ("token이 만료되었습니다"). Not recognised: `rt_cd` "0", EGW00120 (code), EGW00124 to EGW00126
    (session_key), and every other failure (KIS error table; messages observed).

    Args:
        value: a mapping, a `requests.Response`, `httpx.Response` or `aiohttp.ClientResponse` (once its body has been
            read), or anything else with a `.json()`.
        codes: the `msg_cd` values that count; the decorator passes `RetryPolicy.expired_codes`.
    """
    return judge(value, codes).meaning is Meaning.EXPIRED


def is_token_expired_error(exc: object, codes: Collection[str] = EXPIRED_CODES) -> bool:
    """
    Say the same of an exception that carries an answer as `.response`. Never raises.

    For code that calls `raise_for_status()` before `.json()`: `requests.HTTPError` and `httpx.HTTPStatusError` keep
    the body, `aiohttp.ClientResponseError` does not (inside a decorated function its answer is seen all the same).
    """
    return judge_error(exc, codes).meaning is Meaning.EXPIRED


def is_rate_limited_response(value: object) -> bool:
    """
    Say whether KIS refused this call because there were too many in this second. Never raises.

    Recognised: EGW00201 (초당 거래건수를 초과하였습니다.), EGW00215 (원장에서 허용 가능한 초당 거래건수를 …, the
    ledger's own limit), and without a code their messages. KIS refuses calls within the limit too (observed).
    """
    return judge(value).rate_limited


def is_transient_response(value: object) -> bool:
    """
    Say whether this answer is a failure that passes by itself, so that a read may simply be sent again. Never raises.

    Recognised: every rate limit (`is_rate_limited_response`), EGW00316 (재 조회 수행 부탁드립니다), errors inside the
    gateway (EGW00001, EGW00002, EGW00202, EGW00203, EGW00300), the busy answers OPSQ1002 (SESSION FULL), OPSQ0003,
    OPSQ0010 and OPSQ0011, and HTTP 429 or 5xx without KIS's verdict. Not recognised: EGW00301 and EGW00302 ("check
    your last order"), anything else with a verdict, and HTTP 500 with a body that has not been read, since KIS itself
    answers with that status. It says nothing about orders, which may be sent again after EGW00201 alone.
    """
    return judge(value).meaning in PASSING


def is_transient_error(exc: object) -> bool:
    """
    Say whether this exception is a failure that passes by itself: nobody answered, or the answer says so. Never raises.

    Recognised: dropped and refused connections, time-outs and DNS failures of `requests`, `httpx`, `aiohttp`, `urllib3`
    and the standard library; an exception whose `.response` is a transient answer; one that keeps only a status
    (`aiohttp`, `urllib.error`) of 429 or 5xx, 500 excepted, since KIS's verdict may have come with that; a group of
    nothing else. Not recognised: a TLS certificate error, an invalid URL, and every other exception, one that was made
    `from` a transient failure included.
    """
    return judge_error(exc).meaning in PASSING


def _judge_words(answer: Mapping[str, Any], codes: Collection[str]) -> Verdict:
    rt_cd = _text(answer.get("rt_cd"))
    if rt_cd == "0":
        return Verdict(Meaning.GOOD)
    code = (_text(answer.get("msg_cd")) or _text(answer.get("error_code"))).upper()
    shown = code if re.fullmatch("[A-Z0-9]{1,16}", code) else None
    if code in codes:
        return Verdict(Meaning.EXPIRED, shown)
    if code in CODES:  # it has a meaning of its own, so the message is not asked, however it sounds
        meaning = CODES[code] if CODES[code] is not Meaning.EXPIRED else Meaning.FINAL
        return Verdict(meaning, shown, rate_limited=code in ("EGW00201", "EGW00215"))
    message = answer.get("msg1") or answer.get("error_description")
    text = "".join(unicodedata.normalize("NFKC", message).split()).casefold() if isinstance(message, str) else ""
    if re.search("token|토큰", text) and re.search("만료|유효하지않|찾을수없", text):
        return Verdict(Meaning.EXPIRED, shown)
    if "초과" in text.partition("초당거래건수")[2]:  # the gateway's or the ledger's, so an order is not sent again
        return Verdict(Meaning.TRANSIENT, shown, rate_limited=True)
    if "재조회수행" in text or "sessionfull" in text:
        return Verdict(Meaning.TRANSIENT, shown)
    return Verdict(Meaning.GOOD if rt_cd == "7" else Meaning.FINAL, shown)


def _failure_of(error: BaseException) -> Meaning:
    """Tell a failure of the network from every other exception, and whether there was a connection on which to send."""
    if type(error).__name__ == "ExceptionGroup":
        passing = all(is_transient_error(part) for part in getattr(error, "exceptions", ()))
        return Meaning.TRANSIENT if passing else Meaning.FINAL
    if _is_not_of_kis(_status_of(error)):
        return Meaning.TRANSIENT
    # Its context may be another request's failure, or a step of a TLS handshake.
    chain = [_names_of(each) for each in behind(error, context=False)]
    own, every = chain[0], set().union(*chain)
    if not own & (_UNANSWERED | _TLS | _WRAPPERS):
        return Meaning.FINAL
    if every & _DROPPED_TLS:  # requests and urllib say "no connection" of a drop after the handshake too
        return Meaning.TRANSIENT
    if every & _TLS or not every & _UNANSWERED:  # a handshake that failed fails again
        return Meaning.FINAL
    if own & _NEVER_LEFT or (own & _WRAPPERS and every & _NEVER_LEFT):
        return Meaning.NEVER_LEFT
    # urllib raises it while it connects; an answer's time-out comes as it is.
    connecting = "urllib.URLError" in own and every & {"builtins.TimeoutError", "builtins.Unreachable"}
    return Meaning.NEVER_LEFT if connecting else Meaning.TRANSIENT


def _names_of(error: BaseException) -> set[str]:
    """Return its classes as "package.Class": where in its package a class lives differs between versions."""
    packages = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__)
    names = {f"{'httpx' if package == 'httpx2' else package}.{name}" for package, name in packages}
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        names.add("builtins.Unreachable")
    if "urllib3.ResponseError" in names and re.fullmatch(_TOO_MANY, str(error)):
        names.add("urllib3.TooManyErrorResponses")
    return names


def _is_not_of_kis(status: int | None) -> bool:
    """Say whether KIS itself does not answer with this status, so that nothing in the body needs to be known."""
    return status is not None and (status == 429 or 500 < status <= 599)


def _status_of(value: object) -> int | None:
    """Return the HTTP status of a response or an error: `status_code` as requests has it, or `status` as aiohttp."""
    found = (getattr(value, name, None) for name in ("status_code", "status"))
    return next((status for status in found if isinstance(status, int) and not isinstance(status, bool)), None)


def _body_of(value: Any) -> bytes | Mapping[str, Any] | None:
    """Return the JSON object of an answer, b"" for any other document, None if the body has not been read."""
    headers = getattr(value, "headers", None)
    kind = str(headers.get("content-type")) if isinstance(headers, Mapping) else ""
    is_stream = re.match(r"(?i)\s*(text/event-stream|application/(x-ndjson|json-seq))", kind)  # it goes on and on
    if is_stream or isinstance(value, type) or not callable(getattr(value, "json", None)):
        return None
    try:
        answer = value.json()
    except (ValueError, RecursionError):  # a proxy's page, or half an object
        return b""
    if hasattr(answer, "__await__"):
        getattr(answer, "close", bool)()  # a coroutine that nobody awaits would warn
        body = getattr(value, "_body", None)  # aiohttp keeps it there once it has been read, and has no other way in
        return body if isinstance(body, bytes) else None
    return answer if isinstance(answer, Mapping) else b""


def _json_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        answer = json.loads(body.decode(json.detect_encoding(body), "replace"))
    except (ValueError, RecursionError):  # as above
        return None
    return answer if isinstance(answer, Mapping) else None


def _text(value: object) -> str:
    """Return `rt_cd` or `msg_cd` as text, whether KIS's or a library's number; anything else is no verdict."""
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
