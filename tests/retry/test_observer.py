"""What is noted of a request and of its answer, and what the pace is told of it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from answers import EXPIRED, GOOD, PRICE
from calls import HOST, KnownTokens, Slots, refreshing, seen
from kis_retry.context import Sighting
from kis_retry.retry import observer
from kis_retry.retry.call import ProtectedCall

LIMITED = json.loads('{"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}')
"""As it comes over the wire: equal to what is known, and no object of this program's."""
BUSY = {"rt_cd": "1", "msg_cd": "EGW00316", "msg1": "재 조회 수행 부탁드립니다"}
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
def call(slots: Slots) -> ProtectedCall:
    """One of a source whose account is known, paced by `slots`."""
    made: ProtectedCall = refreshing(KnownTokens(), repeats=True, limiter=slots)
    return made


def answer(call: ProtectedCall, sighting: Sighting, said: Any, body: bytes | None = None) -> Sighting:
    call.observe_sent(sighting)
    observer.answered(call, sighting, said, json.dumps(said).encode() if body is None else body)
    return sighting


# Which bodies are read.


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (None, True),
        ("application/json", True),
        (" Application/JSON ;charset=UTF-8", True),
        ("application/problem+json", True),
        ("application/vnd.kis-x.1+json", True),
        ("text/html", True),
        ("text/x-log; charset=euc-kr", True),
        ("text/event-stream", False),
        ("text/event-stream; charset=utf-8", False),
        ("application/x-ndjson", False),
        ("application/jsonlines", False),
        ("application/octet-stream", False),
        ("image/png", False),
    ],
)
def test_of_the_api_every_text_is_read_that_comes_to_an_end(call: ProtectedCall, kind: str | None, read: bool) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert observer.is_to_be_read(call, seen(), headers) is read
    assert observer.is_to_be_read(call, seen(host="proxy.example"), headers) is read


@pytest.mark.parametrize(
    ("path", "headers", "read"),
    [
        ("/price", {"content-type": "application/json", "content-length": "12"}, True),
        ("/price", {"content-type": "Application/JSON;charset=UTF-8", "content-length": "0"}, True),
        ("/price", {"content-type": "application/json"}, False),
        ("/price", {"content-type": "application/json", "content-length": "-1"}, False),
        ("/price", {"content-type": "text/html", "content-length": "12"}, False),
        ("/price", {"content-length": "12"}, False),
        ("/oauth2/tokenP", {"content-type": "application/json", "content-length": "12"}, False),
    ],
)
def test_of_another_host_it_is_json_of_a_known_length(
    call: ProtectedCall, path: str, headers: dict[str, str], read: bool
) -> None:
    assert observer.is_to_be_read(call, seen(host="proxy.example", path=path), headers) is read


# What an answer comes to.


@pytest.mark.parametrize(
    "body",
    [
        b'{"rt_cd":"0"}',
        b'{"rt_cd" : "7" , "msg1": ""}',
        b'{"msg1": "", "rt_cd": 0}',
        b'{"rt_cd"\n:\t"0"\n}',
    ],
)
def test_a_success_and_no_such_data_are_answers(call: ProtectedCall, slots: Slots, body: bytes) -> None:
    call.observe_failed(seen(), not_acted_upon=False)
    answer(call, seen(), json.loads(body), body)
    assert (call.last_failed, slots.reports) == (None, ["answered"])


@pytest.mark.parametrize(
    ("said", "report", "refused", "acted_upon"),
    [
        (EXPIRED, "answered", True, False),
        (LIMITED, "refused", False, False),
        (BUSY, "answered", False, True),
        ({"rt_cd": "70", "msg_cd": "X"}, "answered", False, True),
        ({"rt_cd": "1", "msg_cd": "OPSQ1002"}, "answered", False, True),
        (SimpleNamespace(status_code=503), "failed", False, True),
        (SimpleNamespace(status_code=404), "answered", False, True),
    ],
)
def test_what_kis_says_is_noted_and_told_to_the_pace(
    call: ProtectedCall, slots: Slots, said: Any, report: str, refused: bool, acted_upon: bool
) -> None:
    body = json.dumps(said).encode() if isinstance(said, dict) else b"<html>"
    order = answer(call, seen(method="POST", path=ORDER), said, body)
    assert (call.failed, call.last_failed, order.response) == (order, order, said)
    assert slots.reports == [report]
    assert call.refused() == ([order] if refused else [])
    assert list(call.orders) == ([order] if acted_upon else [])


def test_an_answer_of_the_token_endpoint_is_not_noted(call: ProtectedCall, slots: Slots) -> None:
    asked = seen(path="/oauth2/tokenP", method="POST")
    observer.answered(call, asked, EXPIRED, json.dumps(EXPIRED).encode())
    assert (asked.response, call.failed, slots.reports) == (None, None, [])


def test_of_another_host_an_answer_counts_if_it_is_kiss(call: ProtectedCall, slots: Slots) -> None:
    theirs, through_a_proxy = (seen(host="proxy.example", path="/price") for _ in range(2))
    observer.answered(call, theirs, {"price": 1}, b'{"price": 1}')
    assert (theirs.response, call.last_sent, slots.reports) == (None, None, [])
    observer.answered(call, through_a_proxy, GOOD, json.dumps(GOOD).encode())
    assert (through_a_proxy.response, call.last_sent, slots.reports) == (GOOD, through_a_proxy, ["answered"])


def test_an_answer_of_the_api_was_noted_when_its_request_left(call: ProtectedCall) -> None:
    order = answer(call, seen(method="POST", path=ORDER), GOOD)
    assert list(call.orders) == [order], "once"


def test_an_answer_whose_body_is_streamed_is_taken_for_a_good_one(call: ProtectedCall, slots: Slots) -> None:
    call.observe_failed(seen(), not_acted_upon=False)
    noted = []
    for sighting in (seen(host="proxy.example", path="/price"), seen()):
        observer.unread(call, sighting)
        noted.append(call.last_failed is None)
    assert (noted, slots.reports) == ([False, True], [])


@pytest.mark.parametrize(
    ("error", "reports"), [(requests.ConnectionError("dropped"), ["failed"]), (ValueError("not sent"), [])]
)
def test_a_request_without_an_answer_is_noted_with_its_error(
    call: ProtectedCall, slots: Slots, error: Exception, reports: list[str]
) -> None:
    order = seen(method="POST", path=ORDER)
    call.observe_sent(order)
    observer.failed(call, order, error)
    assert (call.failed, order.error, list(call.orders), slots.reports) == (order, error, [order], reports)


def test_one_that_is_none_of_kis_is_not(call: ProtectedCall, slots: Slots) -> None:
    theirs = seen(host="proxy.example", path="/price")
    observer.failed(call, theirs, requests.ConnectionError("dropped"))
    assert (call.failed, theirs.error, slots.reports) == (None, None, [])


# Before a request leaves.


@pytest.mark.parametrize(
    ("url", "paced"),
    [
        (f"https://{HOST}{PRICE}", True),
        (f"https://{HOST}/other", True),
        ("https://proxy.example/uapi/price", True),
        ("https://proxy.example/other", False),
        (f"https://{HOST}/oauth2/tokenP", False),
    ],
)
def test_requests_of_the_api_wait_for_their_slot(call: ProtectedCall, slots: Slots, url: str, paced: bool) -> None:
    observer.pace(call, "GET", url)
    assert len(slots.asked) == int(paced)
    asyncio.run(observer.pace_async(call, "GET", url))
    assert len(slots.asked) == 2 * int(paced)


def test_a_dead_token_is_swapped_in_the_headers_and_what_was_given_stays_known(call: ProtectedCall) -> None:
    assert call.source is not None
    call.source.token()
    call.source.replace("t1")
    headers = {"authorization": "Bearer t1"}
    sighting = seen("t1")
    assert observer.sent(call, sighting, headers) is sighting
    assert (headers, sighting.token, sighting.carried) == ({"authorization": "Bearer t2"}, "t2", "t1")
    assert call.last_sent is sighting


def test_what_is_none_of_kis_or_has_a_good_token_or_none_leaves_as_it_is(call: ProtectedCall) -> None:
    assert call.source is not None
    call.source.token()
    call.source.replace("t1")
    for sighting in (seen("t2"), seen(None), seen("t1", host="proxy.example", path="/price")):
        headers = {"authorization": f"Bearer {sighting.token}"}
        observer.sent(call, sighting, headers)
        assert headers == {"authorization": f"Bearer {sighting.carried}"}
        assert (call.last_sent is sighting) is (sighting.host == HOST)


def test_a_call_that_nobody_paces_tells_nobody() -> None:
    call = refreshing(KnownTokens())
    answer(call, seen(), LIMITED)
    assert call.failed is not None
