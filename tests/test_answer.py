"""Reading an answer out of whatever a call hands back."""

from __future__ import annotations

import io
import json
from collections import UserDict
from collections.abc import Callable
from http import HTTPStatus
from types import MappingProxyType, SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from kis_retry.answer import UnreadError, answer_of, code_of, status_of, text_of

ANSWER = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}


def response_of_requests(body: Any, status: int = 500) -> requests.Response:
    response = requests.Response()
    response.status_code, response.raw = status, io.BytesIO(json.dumps(body).encode())
    return response


FORMS: list[Callable[[Any], Any]] = [
    dict,
    MappingProxyType,
    UserDict,
    response_of_requests,
    lambda body: httpx.Response(500, json=body),
    lambda body: SimpleNamespace(json=lambda: body),
]
every_form = pytest.mark.parametrize("form", FORMS)


@every_form
def test_the_json_object_is_found_in_every_form(form: Callable[[Any], Any]) -> None:
    found = answer_of(form(ANSWER))
    assert found is not None
    assert dict(found) == ANSWER


@every_form
def test_an_answer_can_be_read_again(form: Callable[[Any], Any]) -> None:
    value = form(ANSWER)
    assert answer_of(value) == answer_of(value)
    if isinstance(value, requests.Response):
        assert value.json() == ANSWER
        assert b"".join(value.iter_content(7)) == json.dumps(ANSWER).encode()


@pytest.mark.parametrize(
    "value", [None, "{}", b"{}", 1, 1.5, True, [ANSWER], (ANSWER,), {1}, object(), dict, ValueError()]
)
def test_what_is_no_answer_is_none(value: object) -> None:
    assert answer_of(value) is None


@pytest.mark.parametrize("document", [None, [], "text", 1])
def test_another_document_than_an_object_is_none(document: object) -> None:
    assert answer_of(response_of_requests(document)) is None


def test_a_body_that_is_no_json_is_an_error_of_the_value() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        answer_of(httpx.Response(502, text="<html>"))


def test_a_body_that_must_be_awaited_is_closed_and_unread() -> None:
    closed: list[object] = []

    class Awaitable:
        def __await__(self) -> Any:
            pytest.fail("awaited")

    class Closable(Awaitable):
        def close(self) -> None:
            closed.append(self)

    for body in (Awaitable(), Closable()):
        with pytest.raises(UnreadError):
            answer_of(SimpleNamespace(json=lambda body=body: body))
    assert len(closed) == 1


async def test_the_body_of_an_answer_of_aiohttp_is_unread_until_it_has_been_read(
    listen: Callable[..., str],
) -> None:
    body = json.dumps(ANSWER, ensure_ascii=False).encode()

    def answer(connection: Any) -> None:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 500 X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async with aiohttp.ClientSession() as session, session.get(f"http://{listen(answer)}/") as response:
        with pytest.raises(UnreadError):
            answer_of(response)
        assert (code_of(response), status_of(response)) == (None, 500)
        await response.read()
        assert answer_of(response) == ANSWER
        assert code_of(response) == "EGW00201"


# -- the code for an event


@every_form
def test_the_code_of_an_answer_is_its_msg_cd(form: Callable[[Any], Any]) -> None:
    assert code_of(form(ANSWER)) == "EGW00201"


@pytest.mark.parametrize(
    "code", [None, "", 123, "EGW 00123", "x" * 17, "EGW00123\n", "토큰", ["EGW00123"], "eyJ0eXAi.eyJzdWIi.c2ln"]
)
def test_what_does_not_look_like_a_code_stays_out_of_events(code: object) -> None:
    assert code_of({"rt_cd": "1", "msg_cd": code}) is None


# -- the status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (response_of_requests({}, 503), 503),
        (httpx.Response(429), 429),
        (SimpleNamespace(status=502), 502),
        (SimpleNamespace(status=HTTPStatus.BAD_GATEWAY), 502),
        (SimpleNamespace(status_code=None, status=504), 504),
        (SimpleNamespace(status="503"), None),
        (SimpleNamespace(status=True), None),
        (ANSWER, None),
        (None, None),
    ],
)
def test_the_status_is_the_number_that_a_response_has(value: object, status: int | None) -> None:
    assert status_of(value) == status


# -- a field as text


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0"), (" 0 ", "0"), (0, "0"), (-1, "-1"), ("", ""), (None, ""), (True, ""), (0.0, ""), ([], ""), (b"0", "")],
)
def test_a_code_is_text_or_a_whole_number(value: object, text: str) -> None:
    assert text_of(value) == text


@settings(max_examples=100, deadline=None, database=None)
@given(st.text() | st.integers(-(10**9), 10**9))
def test_a_text_has_no_space_around_it_and_is_the_same_the_second_time(value: object) -> None:
    assert text_of(value) == text_of(text_of(value)) == str(value).strip()
