"""The judgement on an answer: KIS's error table, looser words for it, and whatever else a function may hand back."""

from __future__ import annotations

import asyncio
import builtins
import gc
import io
import json
import socket
import sys
import urllib.error
import urllib.request
import warnings
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kis_retry import (
    is_rate_limited_response,
    is_token_expired_error,
    is_token_expired_response,
    is_transient_error,
    is_transient_response,
)
from kis_retry.answer import text_of

quick = settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

CURABLE = {
    "EGW00121": "유효하지 않은 token 입니다.",
    "EGW00122": "token을 찾을 수 없습니다.",
    "EGW00123": "기간이 만료된 token 입니다.",
}
INCURABLE = {
    "EGW00103": "유효하지 않은 AppKey입니다.",
    "EGW00105": "유효하지 않은 AppSecret입니다.",
    "EGW00120": "기간이 만료된 code 입니다.",
    "EGW00124": "유효하지 않은 session_key 입니다.",
    "EGW00125": "session_key를 찾을 수 없습니다.",
    "EGW00126": "기간이 만료된 session_key 입니다.",
    "EGW00133": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)",
    "EGW00201": "초당 거래건수를 초과하였습니다.",
    "EGW00206": "API 사용 권한이 없습니다.",
    "EGW00207": "IP 주소가 없거나 유효하지 않습니다.",
    "EGW00301": "연결 시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.",
    "EGW00302": "거래시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.",
    "EGW00303": "허용되지 않은 IP 입니다.",
}
SPEAKING_OF_A_DEAD_TOKEN = [
    *CURABLE.values(),
    *(message.rstrip(".") for message in CURABLE.values()),
    "token이 만료되었습니다",
    "token이 만료되었습니다.",
    "Token 만료",
    "만료된 TOKEN입니다",
    "만료된 TOKEN입니다.",
    "접근토큰이 만료되었습니다.",
    "  기간이   만료된\ttoken\n입니다 . ",
    "기간이 만료된 ＴＯＫＥＮ 입니다.",
]
SPEAKING_OF_SOMETHING_ELSE = [
    *INCURABLE.values(),
    "세션이 만료되었습니다",
    "세션이 만료되었습니다.",
    "session_key가 만료되었습니다",
    "기간이 만료되었습니다.",
    "token",
    "token을 발급하였습니다.",
    "조회할 자료가 없습니다",
    "정상처리 되었습니다.",
    "",
]

Form = Callable[[Any], Any]
Make = Callable[[], Any]


def refusal(
    code: object = "EGW00123", message: object = "기간이 만료된 token 입니다.", rt_cd: object = "1"
) -> dict[str, Any]:
    return {"rt_cd": rt_cd, "msg_cd": code, "msg1": message}


def _requests_response(body: Any, status: int) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.raw = io.BytesIO(json.dumps(body, ensure_ascii=False).encode())
    return response


def _httpx_response(body: Any, status: int) -> httpx.Response:
    return httpx.Response(status, json=body, request=httpx.Request("GET", "http://127.0.0.1/"))


class Answering:
    """What another library may hand back: all that is known of it is `.json()`."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def json(self) -> Any:
        return self._body


FORMS: dict[str, Form] = {
    "dict": lambda body: body,
    "MappingProxyType": MappingProxyType,
    "UserDict": UserDict,
    "requests 500": lambda body: _requests_response(body, 500),
    "requests 200": lambda body: _requests_response(body, 200),
    "httpx 500": lambda body: _httpx_response(body, 500),
    "httpx 200": lambda body: _httpx_response(body, 200),
    "an object with .json()": Answering,
}


@pytest.fixture(params=FORMS.values(), ids=list(FORMS))
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


# -- KIS's table


def test_the_three_refusals_that_a_new_token_cures_are_recognised(form: Form) -> None:
    assert [row for row in CURABLE.items() if not is_token_expired_response(form(refusal(*row)))] == []


def test_every_other_code_of_the_table_is_left_alone(form: Form) -> None:
    assert [row for row in INCURABLE.items() if is_token_expired_response(form(refusal(*row)))] == []


@pytest.mark.parametrize("rt_cd", ["1", 1, "7", 7, -1, "2", "", None])
def test_any_rt_cd_but_zero_is_a_failure(rt_cd: object) -> None:
    assert is_token_expired_response(refusal(rt_cd=rt_cd))


def test_an_answer_without_rt_cd_may_be_a_refusal() -> None:
    assert is_token_expired_response({"msg_cd": "EGW00123"})
    assert is_token_expired_response({"msg1": "기간이 만료된 token 입니다."})


@pytest.mark.parametrize("rt_cd", ["0", 0, " 0 "])
def test_rt_cd_zero_is_success_whatever_else_is_said(rt_cd: object) -> None:
    assert [code for code in (*CURABLE, "", None) if is_token_expired_response(refusal(code, rt_cd=rt_cd))] == []


@pytest.mark.parametrize("code", [*CURABLE, " EGW00123 ", "egw00123"])
def test_msg_cd_is_believed_before_the_message(code: str) -> None:
    messages = ["", None, 7, "초당 거래건수를 초과하였습니다.", "세션이 만료되었습니다"]
    assert [message for message in messages if not is_token_expired_response(refusal(code, message))] == []


@pytest.mark.parametrize("code", INCURABLE)
def test_a_code_with_a_meaning_of_its_own_is_not_overruled_by_the_message(code: str) -> None:
    judged = {message: is_token_expired_response(refusal(code, message)) for message in SPEAKING_OF_A_DEAD_TOKEN}
    assert judged == dict.fromkeys(SPEAKING_OF_A_DEAD_TOKEN, False)


@pytest.mark.parametrize("message", SPEAKING_OF_A_DEAD_TOKEN)
def test_the_message_is_asked_where_the_code_does_not_say(message: str) -> None:
    codes = ["", " ", None, 0, 123, True, (), "APBK0919", "MCA00000"]
    assert [code for code in codes if not is_token_expired_response(refusal(code, message))] == []
    assert is_token_expired_response({"rt_cd": "1", "msg1": message})


@pytest.mark.parametrize("message", [*SPEAKING_OF_SOMETHING_ELSE, None, 123, ["token 만료"], {"token": "만료"}, True])
def test_a_message_that_does_not_speak_of_a_dead_token_is_no_refusal(message: object) -> None:
    assert not is_token_expired_response({"rt_cd": "1", "msg1": message})
    assert not is_token_expired_response(refusal("", message))


def test_a_refusal_inside_the_payload_is_not_the_answer() -> None:
    assert not is_token_expired_response({"rt_cd": "1", "msg_cd": "APBK0919", "msg1": "", "output": refusal()})


@pytest.mark.parametrize(
    "answer", [None, True, 1, 1.5, "기간이 만료된 token 입니다.", b"EGW00123", [refusal()], (refusal(),), {}]
)
def test_a_value_that_is_no_answer_is_no_refusal(answer: object) -> None:
    assert not is_token_expired_response(answer)


@pytest.mark.parametrize("document", [None, "EGW00123", [refusal()], 1])
def test_a_response_whose_json_is_no_object_is_no_refusal(document: object) -> None:
    assert not is_token_expired_response(Answering(document))
    assert not is_token_expired_response(_requests_response(document, 500))
    assert not is_token_expired_response(_httpx_response(document, 500))


def test_a_response_that_is_not_json_is_no_refusal() -> None:
    page = requests.Response()
    page.status_code = 500
    page.raw = io.BytesIO("<html>기간이 만료된 token 입니다. EGW00123</html>".encode())
    assert not is_token_expired_response(page)
    assert not is_token_expired_response(httpx.Response(500, text="EGW00123"))


def test_a_class_is_no_answer_even_if_it_could_answer() -> None:
    class Fixed:
        @staticmethod
        def json() -> dict[str, Any]:
            return refusal()

    assert is_token_expired_response(Fixed())
    assert not is_token_expired_response(Fixed)


# -- a policy's own codes


def test_codes_of_a_policy_are_added_to_the_table() -> None:
    assert is_token_expired_response(refusal("EGW00201", ""), codes=("EGW00123", "EGW00201"))
    assert not is_token_expired_response(refusal("EGW00201", ""))


@pytest.mark.parametrize(("code", "message"), CURABLE.items())
def test_a_code_that_a_policy_leaves_out_is_not_let_in_by_its_message(code: str, message: str) -> None:
    others = [other for other in CURABLE if other != code]
    assert not is_token_expired_response(refusal(code, message), codes=others)
    assert not is_token_expired_error(requests.HTTPError(response=_requests_response(refusal(code), 500)), codes=others)


# -- exceptions


@pytest.mark.parametrize("build", [_requests_response, _httpx_response])
def test_an_http_error_is_judged_by_the_answer_it_carries(build: Callable[[Any, int], Any]) -> None:
    for code, message in {**CURABLE, **INCURABLE}.items():
        with pytest.raises((requests.HTTPError, httpx.HTTPStatusError)) as caught:
            build(refusal(code, message), 500).raise_for_status()
        assert is_token_expired_error(caught.value) is (code in CURABLE), code


def test_an_error_whose_response_is_a_mapping_is_judged_too() -> None:
    error = RuntimeError("expired")
    error.response = refusal()  # type: ignore[attr-defined]  # as libraries do it
    assert is_token_expired_error(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("기간이 만료된 token 입니다. EGW00123"),
        requests.ConnectionError(),
        requests.HTTPError(),
        None,
        "x",
        refusal(),
    ],
)
def test_an_error_without_a_response_is_not_a_refusal(error: object) -> None:
    assert not is_token_expired_error(error)


# -- whatever comes in

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
KEYS = st.sampled_from(["rt_cd", "msg_cd", "msg1", "output"]) | st.text(max_size=8)
LEAVES = SCALARS | st.sampled_from([*CURABLE, *INCURABLE, *SPEAKING_OF_A_DEAD_TOKEN, *SPEAKING_OF_SOMETHING_ELSE])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
ANSWERS = st.dictionaries(KEYS, LEAVES | st.lists(LEAVES, max_size=2), max_size=5)
ERRORS = st.sampled_from(
    [ValueError, TypeError, AttributeError, KeyError, RuntimeError, RecursionError, UnicodeError, OSError]
)


class HostileText(str):
    """A text whose every method raises."""

    __slots__ = ("_error",)
    _error: type[Exception]

    def __str__(self) -> str:
        raise self._error

    def strip(self, *_: object) -> str:
        raise self._error

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise self._error


class HostileMapping(Mapping[str, Any]):
    """A mapping whose every method raises."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def __getitem__(self, key: str) -> Any:
        raise self._error

    def __iter__(self) -> Iterator[str]:
        raise self._error

    def __len__(self) -> int:
        raise self._error


class HostileMethods:
    """An answer whose `.json()`, and an exception whose `.response`, raises."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def json(self) -> Any:
        raise self._error

    @property
    def response(self) -> Any:
        raise self._error


class HostileProperties:
    """An object of which nothing at all can be read."""

    def __init__(self, error: type[Exception]) -> None:
        object.__setattr__(self, "_error", error)

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "_error")


class AsyncAnswer:
    """As aiohttp's and httpx's asynchronous responses: `.json()` must be awaited."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def json(self) -> Any:
        return self._body


class OddlyAwaitable:
    """Something to await that cannot be closed."""

    def __await__(self) -> Iterator[None]:
        yield


def _hostile(error: type[Exception]) -> list[Make]:
    text = HostileText("EGW00123")
    text._error = error
    return [
        lambda: HostileMapping(error),
        lambda: HostileMethods(error),
        lambda: HostileProperties(error),
        lambda: Answering(HostileMapping(error)),
        lambda: Answering(HostileProperties(error)),
        lambda: {"rt_cd": text},
        lambda: {"rt_cd": "1", "msg_cd": text},
        lambda: {"rt_cd": "1", "msg1": text},
        lambda: refusal(error, error, error),
    ]


# Made inside the test, since hypothesis looks at what it draws, and some of these do not bear that.
ANYTHING: st.SearchStrategy[Make] = (
    JSON.map(lambda value: lambda: value)
    | JSON.map(lambda value: lambda: Answering(value))
    | JSON.map(lambda value: lambda: AsyncAnswer(value))
    | JSON.map(lambda value: lambda: Exception(value))
    | ERRORS.flatmap(lambda error: st.sampled_from(_hostile(error)))
    | st.sampled_from([lambda: Answering(OddlyAwaitable()), lambda: b"EGW00123", lambda: {1}, lambda: ValueError])
)


class CarryingError(Exception):
    """An exception with any `response`."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response


@quick
@given(ANYTHING)
def test_no_value_makes_the_judgement_raise(make: Make) -> None:
    value = make()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert is_token_expired_response(value) in (True, False)
        assert is_token_expired_error(value) in (True, False)
        assert is_token_expired_error(CarryingError(value)) is is_token_expired_response(value)
        assert is_rate_limited_response(value) in (True, False)
        assert is_transient_response(value) in (True, False)
        assert is_transient_error(value) in (True, False)
        assert is_transient_error(CarryingError(value)) is is_transient_response(value)
        assert is_transient_response(value) or not is_rate_limited_response(value)
    assert not warned


@pytest.mark.parametrize("error", [RuntimeError, ValueError, RecursionError, OSError, TypeError])
def test_what_cannot_be_read_is_no_refusal_and_no_failure_that_passes(error: type[Exception]) -> None:
    for make in _hostile(error):
        for value in (make(), CarryingError(make())):
            assert passes(value) == (False, False)
            assert not is_token_expired_response(value)
            assert not is_token_expired_error(value)
            assert not is_transient_error(value)


def test_a_json_that_must_be_awaited_is_no_verdict_and_no_warning() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert not is_token_expired_response(AsyncAnswer(refusal()))
        gc.collect()
    assert not warned


MESSAGES = st.sampled_from(SPEAKING_OF_SOMETHING_ELSE) | st.text(st.characters(codec="ascii"), max_size=30)
ASCII_CASE = st.sampled_from([str.upper, str.lower, str.title, str.swapcase])


@st.composite
def spaced_and_cased(draw: st.DrawFn) -> tuple[str, str]:
    """A message, and the same with other white space and other case."""
    message = draw(st.sampled_from([*SPEAKING_OF_A_DEAD_TOKEN, *SPEAKING_OF_SOMETHING_ELSE]))
    gaps = draw(st.text(" \t\r\n\u00a0\u3000|", min_size=len(message), max_size=len(message)))  # "|" is none
    spaced = "".join(gap.strip("|") + letter for gap, letter in zip(gaps, message, strict=True))
    return message, draw(ASCII_CASE)(spaced)


@quick
@given(spaced_and_cased(), st.sampled_from(["", None, "APBK0919", *CURABLE, *INCURABLE]))
def test_white_space_and_case_of_the_message_change_nothing(pair: tuple[str, str], code: str | None) -> None:
    message, other = pair
    assert is_token_expired_response(refusal(code, message)) is is_token_expired_response(refusal(code, other))


# -- what passes by itself: the table, row by row

RATE_LIMITED = {
    "EGW00201": "초당 거래건수를 초과하였습니다.",
    "EGW00215": "원장에서 허용 가능한 초당 거래건수를 초과하였습니다.",
}
TRANSIENT = {
    "EGW00316": "재 조회 수행 부탁드립니다",
    "EGW00300": "",
    "EGW00001": "",
    "EGW00002": "",
    "EGW00202": "",
    "EGW00203": "",
    "OPSQ1002": "SESSION FULL",
    "OPSQ0003": "",
    "OPSQ0010": "",
    "OPSQ0011": "",
}
FINAL = {code: message for code, message in INCURABLE.items() if code not in RATE_LIMITED}
PASSING_MESSAGES = [*RATE_LIMITED.values(), TRANSIENT["EGW00316"], TRANSIENT["OPSQ1002"]]


def passes(value: object) -> tuple[bool, bool]:
    """What the two predicates on answers say."""
    return is_rate_limited_response(value), is_transient_response(value)


def test_a_rate_limit_is_recognised_by_code_and_by_message(form: Form) -> None:
    for code, message in RATE_LIMITED.items():
        assert passes(form(refusal(code, ""))) == (True, True)
        assert passes(form(refusal("", message))) == (True, True)
        assert passes(form(refusal("APBK0919", message))) == (True, True)


def test_what_passes_by_itself_is_recognised_by_code_and_where_it_has_words_by_message(form: Form) -> None:
    for code, message in TRANSIENT.items():
        assert passes(form(refusal(code, ""))) == (False, True), code
        assert not message or passes(form(refusal("", message))) == (False, True), code


def test_every_other_verdict_is_final_whatever_its_status(form: Form) -> None:
    for code, message in {**FINAL, **CURABLE}.items():
        for words in (message, *PASSING_MESSAGES):
            assert passes(form(refusal(code, words))) == (False, False), "the code is believed before the message"


@pytest.mark.parametrize("message", CURABLE.values())
def test_a_message_of_a_dead_token_is_no_failure_that_passes(message: str) -> None:
    assert passes(refusal("", message)) == (False, False)
    assert passes(refusal("", f"{message} {RATE_LIMITED['EGW00201']}")) == (False, False)


@pytest.mark.parametrize("change", [str.lower, " {} ".format, "{}\n".format])
def test_case_and_space_around_a_code_change_nothing(change: Callable[[str], str]) -> None:
    for code in (*RATE_LIMITED, *TRANSIENT):
        assert passes(refusal(change(code), "")) == (code in RATE_LIMITED, True), code


@pytest.mark.parametrize("rt_cd", ["0", 0, " 0 "])
def test_an_answer_that_succeeded_is_no_failure_whatever_else_it_says(form: Form, rt_cd: object) -> None:
    for code in (*RATE_LIMITED, *TRANSIENT):
        assert passes(form(refusal(code, RATE_LIMITED["EGW00201"], rt_cd=rt_cd))) == (False, False), code


@pytest.mark.parametrize("rt_cd", ["1", 1, -1, "7", "", None])
def test_rt_cd_may_be_a_number_or_missing(rt_cd: object) -> None:
    assert passes(refusal("EGW00201", rt_cd=rt_cd)) == (True, True)
    assert passes({"msg_cd": "EGW00201"}) == (True, True)


def test_no_such_data_is_an_answer() -> None:
    assert passes(refusal("KIER2620", "조회할 자료가 없습니다", rt_cd="7")) == (False, False)


@pytest.mark.parametrize("field", ["msg1", "error_description"])
def test_a_message_alone_is_a_verdict(form: Form, field: str) -> None:
    for message in PASSING_MESSAGES:
        assert passes(form({field: message})) == (message in RATE_LIMITED.values(), True), message
    assert passes(form({field: INCURABLE["EGW00301"]})) == (False, False)


def test_the_token_endpoints_refusals_are_judged_by_their_own_field_names(form: Form) -> None:
    said = {"error_code": "EGW00201", "error_description": RATE_LIMITED["EGW00201"]}
    assert passes(form(said)) == (True, True)
    for code in ("EGW00133", "EGW00103", "EGW00105"):
        assert passes(form({"error_code": code, "error_description": INCURABLE[code]})) == (False, False)


@quick
@given(spaced_and_cased(), st.sampled_from(["", None, "APBK0919"]))
def test_white_space_and_case_change_nothing_here_either(pair: tuple[str, str], code: str | None) -> None:
    message, other = pair
    assert passes(refusal(code, message)) == passes(refusal(code, other))


@pytest.mark.parametrize("message", PASSING_MESSAGES)
@pytest.mark.parametrize("change", [str.upper, lambda text: text.replace(" ", ""), " \n".join])
def test_looser_words_are_recognised(message: str, change: Callable[[str], str]) -> None:
    assert is_transient_response(refusal("", change(message)))


def test_a_message_without_end_is_judged_in_a_moment() -> None:
    assert passes(refusal("", "초당 거래건수" * 200_000)) == (False, False)


@quick
@given(ANSWERS)
def test_a_dead_token_is_never_a_failure_that_passes(answer: dict[str, Any]) -> None:
    assert not (is_token_expired_response(answer) and is_transient_response(answer))


@quick
@given(ANSWERS, st.sampled_from([200, 404, 429, 500, 503]))
def test_the_form_and_where_kis_spoke_the_status_change_nothing(answer: dict[str, Any], status: int) -> None:
    body = json.dumps(answer)
    judged = {passes(response) for response in _page(status, body)}
    assert len(judged) == 1
    if text_of(answer.get("msg_cd")):
        assert judged == {passes(answer)}


# -- nobody's verdict

PAGE = "<html>Bad Gateway</html>"
STATUSES = {200: False, 302: False, 400: False, 403: False, 404: False, 429: True, 500: True, 502: True, 503: True}
STATUSES |= {504: True, 520: True, 599: True, 600: False, 0: False, -1: False}
STATUSES |= {428: False, 430: False, 499: False, 501: True}


def _page(status: int, body: str) -> list[Any]:
    page = requests.Response()
    page.status_code, page.raw = status, io.BytesIO(body.encode())
    return [page, *([httpx.Response(status, text=body)] if status > 99 else [])]


@pytest.mark.parametrize(
    "body", [PAGE, "", "{", "[]", "null", "{}", '{"message": "away"}', '{"rt_cd": "", "msg_cd": null}']
)
def test_a_status_counts_where_kis_has_not_spoken(body: str) -> None:
    for status, expected in STATUSES.items():
        for response in _page(status, body):
            assert passes(response) == (False, expected), status


def test_a_body_that_never_ends_opening_is_a_page_like_any_other() -> None:
    for response in _page(502, "[" * 100_000):
        assert passes(response) == (False, True)


@pytest.mark.parametrize("answer", [{}, {"message": "away"}, None, PAGE, [], 503, True, {"status": 503}, b"{}"])
def test_what_has_no_status_and_no_verdict_is_no_failure(answer: object) -> None:
    assert passes(answer) == (False, False)


class Speechless:
    """A response whose body cannot be had as JSON, such as `http.client.HTTPResponse`."""

    def __init__(self, status: int) -> None:
        self.status = status


class MustBeAwaited(AsyncAnswer):
    status_code = 500


class Broken(Speechless):
    """A response that breaks off while its body is read."""

    def json(self) -> Any:
        raise requests.exceptions.ChunkedEncodingError


class NeverRead(Speechless):
    def json(self) -> Any:
        raise httpx.ResponseNotRead


@pytest.mark.parametrize("kind", [Speechless, NeverRead])
def test_a_status_of_500_is_not_judged_before_its_body_is_read(kind: Any) -> None:
    for status, expected in (STATUSES | {500: False}).items():
        assert passes(kind(status)) == (False, expected), status


def test_a_body_that_must_be_awaited_has_not_been_read() -> None:
    assert passes(MustBeAwaited(refusal("EGW00123"))) == (False, False)


def test_a_body_that_breaks_off_is_a_connection_that_was_dropped() -> None:
    assert passes(Broken(200)) == (False, True)


def test_a_streamed_answer_of_httpx_is_judged_once_it_has_been_read() -> None:
    body = json.dumps(refusal("EGW00201")).encode()
    response = httpx.Response(500, content=iter([body]))
    assert passes(response) == (False, False)
    response.read()
    assert passes(response) == (True, True)


@pytest.fixture
def answering(listen: Callable[[Callable[[socket.socket], object]], str]) -> Callable[[int, bytes], str]:
    """The URL of a server that gives this answer to whoever asks."""

    def url(status: int, body: bytes, kind: str = "application/json") -> str:
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )

        def answer(connection: socket.socket) -> None:
            connection.recv(65_536)
            connection.sendall(head.encode() + body)

        return f"http://{listen(answer)}/"

    return url


@pytest.mark.parametrize(
    ("status", "body", "unread", "read"),
    [
        (200, json.dumps(refusal("EGW00201")).encode(), False, True),
        (500, json.dumps(refusal("EGW00201")).encode(), False, True),
        (500, json.dumps(refusal("EGW00123")).encode(), False, False),
        (500, PAGE.encode(), False, True),
        (500, b"", False, True),
        (503, PAGE.encode(), True, True),
        (200, PAGE.encode(), False, False),
    ],
)
async def test_an_answer_of_aiohttp_is_judged_once_it_has_been_read(
    *, status: int, body: bytes, unread: bool, read: bool, answering: Callable[[int, bytes], str]
) -> None:
    async with aiohttp.ClientSession() as session, session.get(answering(status, body)) as response:
        assert is_transient_response(response) is unread
        await response.read()
        assert is_transient_response(response) is read
        assert is_rate_limited_response(response) is (b"EGW00201" in body)
        assert is_token_expired_response(response) is (b"EGW00123" in body)


# -- exceptions that carry an answer, or nothing of it but a status


@pytest.mark.parametrize("build", [_requests_response, _httpx_response])
def test_an_http_error_passes_if_its_answer_does(build: Callable[[Any, int], Any]) -> None:
    for code in (*RATE_LIMITED, *TRANSIENT, *FINAL):
        with pytest.raises((requests.HTTPError, httpx.HTTPStatusError)) as caught:
            build(refusal(code, ""), 500).raise_for_status()
        assert is_transient_error(caught.value) is (code not in FINAL), code


def test_an_http_error_of_a_page_passes_if_its_status_does() -> None:
    request = httpx.Request("GET", "http://x/")
    for status, expected in STATUSES.items():
        if status >= 400:
            for error in (
                requests.HTTPError(response=_page(status, PAGE)[0]),
                httpx.HTTPStatusError("", request=request, response=httpx.Response(status, text=PAGE)),
            ):
                assert is_transient_error(error) is expected, status


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
async def test_an_error_of_aiohttp_has_a_status_alone_which_500_does_not_settle(
    status: int, answering: Callable[..., str]
) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await session.get(answering(status, b"{}"), raise_for_status=True)
        async with session.get(answering(status, PAGE.encode(), "text/html")) as response:
            with pytest.raises(aiohttp.ContentTypeError) as mistyped:
                await response.json()
    assert [is_transient_error(caught.value) for caught in (raised, mistyped)] == [status in (429, 502, 503)] * 2


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
def test_an_error_of_urllib_has_a_status_alone_too(status: int, answering: Callable[..., str]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(answering(status, PAGE.encode(), "text/html"), timeout=5)
    with caught.value as error:
        assert is_transient_error(error) is (status in (429, 502, 503))
        assert error.read() == PAGE.encode(), "judging it has consumed nothing"


def test_the_answer_that_an_error_carries_outweighs_its_type() -> None:
    for code in ("EGW00301", "EGW00123", "APBK0919"):
        assert not is_transient_error(requests.ConnectionError(response=_requests_response(refusal(code, ""), 500)))
    assert is_transient_error(requests.ConnectionError(response=_requests_response({}, 200)))


def test_an_error_whose_response_cannot_be_had_is_judged_by_its_type() -> None:
    class Shy(requests.Timeout):
        @property
        def response(self) -> Any:
            raise RuntimeError

        @response.setter
        def response(self, value: Any) -> None:
            pass

    assert is_transient_error(Shy())


@pytest.mark.parametrize("value", [None, 503, "timed out", refusal("EGW00201"), Speechless(503), TimeoutError])
def test_what_is_no_exception_is_no_error_that_passes(value: object) -> None:
    assert not is_transient_error(value)


GROUP: Any = getattr(builtins, "ExceptionGroup", None)
with_groups = pytest.mark.skipif(GROUP is None, reason="exception groups came with Python 3.11")


@with_groups
def test_a_group_passes_if_every_exception_in_it_does() -> None:
    away, expired = requests.ConnectionError(), requests.HTTPError(response=_requests_response(refusal(), 500))
    assert is_transient_error(GROUP("", [away, httpx.ReadTimeout("")]))
    assert is_transient_error(GROUP("", [GROUP("", [away]), away]))
    assert not is_transient_error(GROUP("", [away, expired]))
    assert not is_transient_error(GROUP("", [away, GROUP("", [ValueError()])]))


@pytest.mark.parametrize("name", ["AllFailed", "ExceptionGroup2", "Several"])
def test_an_exception_that_merely_has_exceptions_is_no_group(name: str) -> None:
    kind: Any = type(name, (Exception,), {"exceptions": (requests.ConnectionError(),)})
    assert not is_transient_error(kind())
    assert is_transient_error(type(name, (requests.ConnectionError,), {"exceptions": (ValueError(),)})())


@with_groups
def test_a_group_within_groups_without_end_is_judged_all_the_same() -> None:
    group = GROUP("", [requests.ConnectionError()])
    for _ in range(sys.getrecursionlimit()):
        group = GROUP("", [group])
    assert is_transient_error(group) in (True, False)


@with_groups
async def test_a_task_group_that_met_dropped_connections_passes(listen: Callable[..., str]) -> None:
    url = f"http://{listen(lambda connection: connection.recv(65_536))}/"

    async def two_at_once() -> None:
        group: Any = vars(asyncio)["TaskGroup"]  # mypy looks at this as on Python 3.10
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client, group() as tasks:
            tasks.create_task(client.get(url))
            tasks.create_task(client.get(url))

    with pytest.raises(GROUP) as caught:
        await two_at_once()
    assert is_transient_error(caught.value)
