"""The judgement on an answer: KIS's error table, looser words for it, and whatever else a function may hand back."""

from __future__ import annotations

import gc
import io
import json
import warnings
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import httpx
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kis_retry import is_token_expired_error, is_token_expired_response
from kis_retry.answer import code_of

quick = settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

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


@pytest.mark.parametrize(("code", "message"), CURABLE.items())
def test_the_three_refusals_that_a_new_token_cures_are_recognised(form: Form, code: str, message: str) -> None:
    assert is_token_expired_response(form(refusal(code, message)))


@pytest.mark.parametrize(("code", "message"), INCURABLE.items())
def test_every_other_code_of_the_table_is_left_alone(form: Form, code: str, message: str) -> None:
    assert not is_token_expired_response(form(refusal(code, message)))


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


@pytest.mark.parametrize(("code", "message"), [*CURABLE.items(), *INCURABLE.items()])
@pytest.mark.parametrize("build", [_requests_response, _httpx_response])
def test_an_http_error_is_judged_by_the_answer_it_carries(
    build: Callable[[Any, int], Any], code: str, message: str
) -> None:
    with pytest.raises((requests.HTTPError, httpx.HTTPStatusError)) as caught:
        build(refusal(code, message), 500).raise_for_status()
    assert is_token_expired_error(caught.value) is (code in CURABLE)


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
JSON = st.recursive(
    SCALARS | st.sampled_from([*CURABLE, *INCURABLE, *SPEAKING_OF_A_DEAD_TOKEN, *SPEAKING_OF_SOMETHING_ELSE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
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
        code_of(value)
    assert not warned


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
    gaps = draw(st.lists(st.text(" \t\r\n\u00a0\u3000", max_size=2), min_size=len(message), max_size=len(message)))
    return message, draw(ASCII_CASE)("".join(gap + letter for gap, letter in zip(gaps, message, strict=True)))


@quick
@given(spaced_and_cased(), st.sampled_from(["", None, "APBK0919", *CURABLE, *INCURABLE]))
def test_white_space_and_case_of_the_message_change_nothing(pair: tuple[str, str], code: str | None) -> None:
    message, other = pair
    assert is_token_expired_response(refusal(code, message)) is is_token_expired_response(refusal(code, other))


# -- the code for an event


def test_the_code_of_an_answer_is_its_msg_cd(form: Form) -> None:
    assert code_of(form(refusal("EGW00123"))) == "EGW00123"


@pytest.mark.parametrize(
    "code", [None, "", 123, "EGW 00123", "x" * 17, "EGW00123\n", "토큰", ["EGW00123"], "eyJ0eXAi.eyJzdWIi.c2ln"]
)
def test_what_does_not_look_like_a_code_stays_out_of_events(code: object) -> None:
    assert code_of(refusal(code)) is None
