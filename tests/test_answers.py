"""Answers of KIS and of others in every form: the table of codes, looser words, statuses, and hostile values."""

from __future__ import annotations

import gc
import io
import json
import warnings
from collections import UserDict
from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from kis_retry import is_rate_limited_response, is_token_expired_response, is_transient_error, is_transient_response
from kis_retry.answers import CODES, EXPIRED_CODES, Meaning, Verdict, judge, judge_answer

TABLE = {
    Meaning.EXPIRED: "EGW00121 EGW00122 EGW00123",
    Meaning.LIMITED: "EGW00201",
    Meaning.TRANSIENT: "EGW00001 EGW00002 EGW00202 EGW00203 EGW00215 EGW00300 EGW00316 "
    "OPSQ0003 OPSQ0010 OPSQ0011 OPSQ1002",
    Meaning.UNCERTAIN: "EGW00301 EGW00302",
    Meaning.FINAL: "EGW00103 EGW00105 EGW00120 EGW00124 EGW00125 EGW00126 EGW00133 EGW00206 EGW00207 EGW00303 "
    "EGW02004 EGW02006",
}
CURABLE = {
    "EGW00121": "유효하지 않은 token 입니다.",
    "EGW00122": "token을 찾을 수 없습니다.",
    "EGW00123": "기간이 만료된 token 입니다.",
}
LOOSE = {
    "EGW00201": "초당 거래건수를 초과하였습니다.",
    "EGW00215": "원장에서 허용 가능한 초당 거래건수를 초과하였습니다.",
    "EGW00316": "재 조회 수행 부탁드립니다",
    "OPSQ1002": "SESSION FULL",
}
MESSAGES = CURABLE | LOOSE
MESSAGES |= {
    "EGW00301": "연결 시간이 초과되었습니다. 직전 거래를 반드시 확인하세요.",
    "EGW00120": "기간이 만료된 code 입니다.",
    "EGW00125": "session_key를 찾을 수 없습니다.",
    "EGW00126": "기간이 만료된 session_key 입니다.",
}
ROWS = [(code, MESSAGES.get(code, ""), meaning) for meaning, codes in TABLE.items() for code in codes.split()]
RATE_LIMITS = ("EGW00201", "EGW00215")
SPEAKING_OF_A_DEAD_TOKEN = [
    *CURABLE.values(),
    *(message.rstrip(".") for message in CURABLE.values()),
    "token이 만료되었습니다",
    "Token 만료",
    "만료된 TOKEN입니다.",
    "접근토큰이 만료되었습니다.",
    "  기간이   만료된\ttoken\n입니다 . ",
    "기간이 만료된 ＴＯＫＥＮ 입니다.",
]
SPEAKING_OF_SOMETHING_ELSE = [
    *(message for _, message, meaning in ROWS if meaning is not Meaning.EXPIRED),
    "세션이 만료되었습니다.",
    "session_key가 만료되었습니다",
    "기간이 만료되었습니다.",
    "token을 발급하였습니다.",
    "조회할 자료가 없습니다",
]
PAGE = b"<html>Bad Gateway</html>"


def refusal(code: object = "EGW00123", message: object = "", rt_cd: object = "1") -> dict[str, Any]:
    return {"rt_cd": rt_cd, "msg_cd": code, "msg1": message}


def response_of_requests(body: object, status: int = 500) -> requests.Response:
    response = requests.Response()
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    response.status_code, response.raw = status, io.BytesIO(content)
    return response


FORMS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "MappingProxyType": MappingProxyType,
    "UserDict": UserDict,
    "requests 500": response_of_requests,
    "requests 200": lambda body: response_of_requests(body, 200),
    "httpx 500": lambda body: httpx.Response(500, json=body),
    "httpx 200": lambda body: httpx.Response(200, json=body),
    "an object with json()": lambda body: SimpleNamespace(json=lambda: body),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))


# -- KIS's table


def test_the_table_has_these_codes_and_no_others() -> None:
    assert {code: meaning for code, _, meaning in ROWS} == CODES
    assert set(EXPIRED_CODES) == set(CURABLE)


@every_form
@pytest.mark.parametrize(("code", "message", "meaning"), ROWS)
def test_a_code_is_judged_by_the_table_in_every_form(
    form: Callable[[Any], Any], code: str, message: str, meaning: Meaning
) -> None:
    value = form(refusal(code, message))
    limited = code in RATE_LIMITS
    assert judge(value) == judge(value) == Verdict(meaning, code, rate_limited=limited)
    assert is_token_expired_response(value) is (meaning is Meaning.EXPIRED)
    assert is_rate_limited_response(value) is limited
    assert is_transient_response(value) is (meaning in (Meaning.LIMITED, Meaning.TRANSIENT))


@pytest.mark.parametrize(("code", "message", "meaning"), ROWS)
def test_a_code_outweighs_the_message_and_the_token_endpoint_has_field_names_of_its_own(
    code: str, message: str, meaning: Meaning
) -> None:
    words = [*SPEAKING_OF_A_DEAD_TOKEN, *SPEAKING_OF_SOMETHING_ELSE, "", None, 7]
    assert {judge(refusal(code, word)).meaning for word in words} == {meaning}
    assert judge(refusal(f" {code.lower()}\n", message)).meaning is meaning
    assert judge({"error_code": code, "error_description": message}) == judge(refusal(code, message))


def test_rt_cd_zero_is_success_and_any_other_a_failure_where_the_code_says_so() -> None:
    for code, message, meaning in ROWS:
        assert {judge(refusal(code, message, rt_cd)).meaning for rt_cd in ("0", 0, " 0 ")} == {Meaning.GOOD}
        assert {judge(refusal(code, rt_cd=rt_cd)).meaning for rt_cd in ("1", -1, "7", "", None)} == {meaning}


def test_no_such_data_is_an_answer_and_every_unknown_verdict_is_final() -> None:
    assert judge(refusal("KIER2620", "조회할 자료가 없습니다", "7")) == Verdict(Meaning.GOOD, "KIER2620")
    assert judge(refusal("APBK0919", "장운영시간이 아닙니다")) == Verdict(Meaning.FINAL, "APBK0919")
    assert judge({"rt_cd": "1"}) == Verdict(Meaning.FINAL)


@pytest.mark.parametrize("message", SPEAKING_OF_A_DEAD_TOKEN)
def test_the_message_is_asked_where_the_code_does_not_say(message: str) -> None:
    for code in ("", " ", None, 0, 123, True, (), "APBK0919", "MCA00000"):
        assert is_token_expired_response(refusal(code, message)), code
    assert is_token_expired_response({"msg1": message})


@pytest.mark.parametrize("message", [*SPEAKING_OF_SOMETHING_ELSE, None, 123, ["token 만료"], {"token": "만료"}, True])
def test_a_message_that_does_not_speak_of_a_dead_token_is_no_refusal(message: object) -> None:
    assert not is_token_expired_response(refusal("", message))


@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.replace(" ", ""), " \n".join])
def test_looser_words_of_a_failure_that_passes_are_recognised(change: Callable[[str], str]) -> None:
    for code, message in LOOSE.items():
        found = judge(refusal("APBK0919", change(message)))
        assert (found.meaning, found.rate_limited) == (Meaning.TRANSIENT, code in RATE_LIMITS)


def test_a_policy_has_codes_of_its_own() -> None:
    assert is_token_expired_response(refusal("EGW00201"), codes=("EGW00123", "EGW00201"))
    for code, message in CURABLE.items():
        others = [other for other in CURABLE if other != code]
        assert judge(refusal(code, message), codes=others).meaning is Meaning.FINAL


@pytest.mark.parametrize("code", ["EGW 00123", "x" * 17, "토큰", ["EGW00123"], "eyJ0eXAi.eyJzdWIi.c2ln"])
def test_what_does_not_look_like_a_code_stays_out_of_events(code: object) -> None:
    assert judge(refusal(code)).code is None


# -- where KIS has not spoken, the status does

STATUSES = {200: False, 302: False, 403: False, 404: False, 428: False, 429: True, 430: False, 499: False}
STATUSES |= {500: True, 501: True, 503: True, 599: True, 600: False, 0: False}


@pytest.mark.parametrize(
    "body", [PAGE, b"", b"{", b"[]", b"null", b"{}", b'{"rt_cd": "", "msg_cd": null}', b"[" * 10_000]
)
@pytest.mark.parametrize("status", STATUSES)
def test_a_status_counts_where_kis_has_not_spoken(status: int, body: bytes) -> None:
    meaning = judge_answer(status, body).meaning
    assert (meaning is Meaning.TRANSIENT) is STATUSES[status]
    assert meaning is not Meaning.GOOD or status < 400
    assert judge(response_of_requests(body, status)).meaning is meaning
    assert status < 100 or judge(httpx.Response(status, content=body)).meaning is meaning


@pytest.mark.parametrize(("status", "meaning"), [(500, Meaning.GOOD), (200, Meaning.GOOD), (503, Meaning.TRANSIENT)])
def test_a_status_of_500_is_not_judged_before_its_body_is_read(status: int, meaning: Meaning) -> None:
    async def awaited() -> dict[str, str]:
        return refusal()

    def never_read() -> None:
        raise httpx.ResponseNotRead

    endless = response_of_requests(b"data: \n", status)
    endless.headers["Content-Type"] = "text/event-stream; charset=utf-8"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (
            SimpleNamespace(status=status),  # as http.client.HTTPResponse, or a stand-in without a body
            SimpleNamespace(status_code=status, json=awaited),
            SimpleNamespace(status_code=status, json=lambda: awaited()),
            SimpleNamespace(status_code=status, json=never_read),
            endless,
        ):
            assert judge(value) == Verdict(meaning, unanswered=True)
        gc.collect()


def test_a_streamed_answer_is_judged_once_it_has_been_read_and_can_be_read_again() -> None:
    body = json.dumps(refusal("EGW00201")).encode()
    streamed = httpx.Response(500, content=iter([body]))
    assert judge(streamed) == Verdict(Meaning.GOOD, unanswered=True)
    streamed.read()
    response = response_of_requests(body)
    assert judge(streamed).meaning is judge(response).meaning is Meaning.LIMITED
    assert b"".join(response.iter_content(7)) == body


def test_a_body_that_breaks_off_while_it_is_read_is_a_dropped_connection() -> None:
    def broken() -> None:
        raise requests.exceptions.ChunkedEncodingError

    assert judge(SimpleNamespace(status_code=200, json=broken)) == Verdict(Meaning.TRANSIENT, unanswered=True)


async def test_an_answer_of_aiohttp_is_judged_once_it_has_been_read(listen: Callable[..., str]) -> None:
    body = json.dumps(refusal("EGW00201")).encode()

    def answer(connection: Any) -> None:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 500 X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async with aiohttp.ClientSession() as session, session.get(f"http://{listen(answer)}/") as response:
        assert judge(response) == Verdict(Meaning.GOOD, unanswered=True)
        await response.read()
        assert judge(response).code == "EGW00201"


# -- whatever comes in


NOTHING: list[Any] = [None, True, 1.5, "EGW00123", b"EGW00123", [refusal()], {1}, dict, ValueError()]
NOTHING += [SimpleNamespace(), SimpleNamespace(json=None)]


@pytest.mark.parametrize("value", NOTHING)
def test_a_value_that_is_no_answer_is_good(value: object) -> None:
    assert judge(value).meaning is Meaning.GOOD
    assert judge(requests.Response()).meaning is Meaning.GOOD, "a stand-in without a body"


class HostileText(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __str__(self) -> str:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


class HostileMapping(UserDict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise OSError


class HostileProperties:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError


HOSTILE: list[Callable[[], Any]] = [
    HostileMapping,
    HostileProperties,
    lambda: {"rt_cd": HostileText("1")},
    lambda: refusal(HostileText("EGW00123")),
    lambda: refusal(RuntimeError, RuntimeError, RuntimeError),
    lambda: {"rt_cd": [], "msg_cd": {}, "msg1": 1.5},
]


class CarryingError(Exception):
    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response


@pytest.mark.parametrize("make", HOSTILE)
def test_no_value_makes_the_judgement_raise(make: Callable[[], Any]) -> None:
    for value in (make(), SimpleNamespace(json=make), SimpleNamespace(status_code=200, json=lambda: make())):
        expired, transient = is_token_expired_response(value), is_transient_response(value)
        assert not (expired and transient)
        assert transient or not is_rate_limited_response(value)
        assert is_transient_error(CarryingError(value)) is transient
    assert judge_answer(200, make()).meaning in Meaning
