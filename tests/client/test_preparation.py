"""What goes out for a read is, byte for byte, what `requests` would make of it."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from kis_retry import Credentials
from kis_retry.client.preparation import ApiRequest, Preparation

CREDENTIALS = Credentials("the-key", "the-secret", base_url="https://kis.invalid:9443/behind/a-proxy")
BEARER = "Bearer eyJ0eXAi"
PATH, TR_ID = "/uapi/domestic-stock/v1/quotations/inquire-price", "FHKST01010100"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
queries = st.one_of(
    st.none(),
    st.dictionaries(texts, texts, max_size=4),
    st.dictionaries(texts, st.one_of(texts, st.none(), st.integers(), st.lists(texts, max_size=2)), max_size=3),
)


def read(params: Any = None, *, path: str = PATH, headers: dict[str, str] | None = None) -> ApiRequest:
    return ApiRequest("GET", path, TR_ID, headers or {}, params)


def sent(prepared: requests.PreparedRequest) -> tuple[object, ...]:
    return prepared.method, prepared.url, list(prepared.headers.items()), prepared.body, prepared.hooks


def by_requests(preparation: Preparation, session: requests.Session, request: ApiRequest) -> tuple[object, ...]:
    headers = {**preparation.headers(request), "authorization": BEARER}
    url = preparation.url(request)
    return sent(session.prepare_request(requests.Request("GET", url, headers, params=request.params)))


@given(params=queries, path=st.sampled_from([PATH, "/한글", "/a%20b", "/a:b;c,d(e)*'!$&+=@~"]), extra=st.booleans())
def test_it_is_what_requests_prepares(params: Any, path: str, extra: bool) -> None:
    session, preparation = requests.Session(), Preparation(CREDENTIALS)
    request = read(params, path=path, headers={"tr_cont": "N"} if extra else None)
    expected = by_requests(preparation, session, request)
    assert sent(preparation.read(session, request, BEARER)) == expected
    assert sent(preparation.read(session, request, BEARER)) == expected, "from what was kept"


class Texts(dict[str, str]):
    """A query of the user's own kind, which may hand out others than it holds."""


@pytest.mark.parametrize(
    ("params", "taken_apart"),
    [
        (None, 0),
        ({}, 0),
        ({"A": "1"}, 0),
        ({"A": "1", "B": "삼성"}, 0),
        ({"A": 1}, 1),
        ({"A": "1", "B": None}, 1),
        (Texts(A="1"), 1),
    ],
)
def test_the_address_is_taken_apart_again_only_for_a_query_that_is_not_texts_by_name(
    params: Any, taken_apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, preparation = requests.Session(), Preparation(CREDENTIALS)
    preparation.read(session, read(), BEARER)
    expected = by_requests(preparation, session, read(params))
    taken: list[str] = []
    prepare_url = requests.PreparedRequest.prepare_url

    def note(prepared: requests.PreparedRequest, url: str, params: Any) -> None:
        taken.append(url)
        prepare_url(prepared, url, params)

    monkeypatch.setattr(requests.PreparedRequest, "prepare_url", note)
    assert sent(preparation.read(session, read(params), BEARER)) == expected
    assert len(taken) == taken_apart


def test_a_cookie_that_kis_set_is_sent_back_until_it_is_gone() -> None:
    session, preparation = requests.Session(), Preparation(CREDENTIALS)
    without = preparation.read(session, read(), BEARER)
    session.cookies.set("route", "7", domain="kis.invalid")
    assert preparation.read(session, read(), BEARER).headers["Cookie"] == "route=7"
    assert sent(preparation.read(session, read(), BEARER)) == by_requests(preparation, session, read())
    session.cookies.clear()
    assert sent(preparation.read(session, read(), BEARER)) == sent(without)


def test_a_cookie_of_the_first_request_is_not_kept_for_the_others() -> None:
    session, preparation = requests.Session(), Preparation(CREDENTIALS)
    session.cookies.set("route", "7", domain="kis.invalid")
    assert preparation.read(session, read(), BEARER).headers["Cookie"] == "route=7"
    session.cookies.clear()
    assert "Cookie" not in preparation.read(session, read(), BEARER).headers


def test_what_is_put_into_a_request_that_leaves_is_in_no_other() -> None:
    session, preparation = requests.Session(), Preparation(CREDENTIALS)
    first = preparation.read(session, read(), BEARER)
    first.headers["authorization"] = "Bearer another"
    first.headers["traceparent"] = "00-1-2-01"
    first.hooks["response"].append(print)
    second = preparation.read(session, read(), BEARER)
    assert second.headers["authorization"] == BEARER
    assert "traceparent" not in second.headers
    assert second.hooks == {"response": []}


def test_transactions_paths_and_headers_are_kept_apart() -> None:
    session, preparation = requests.Session(), Preparation(CREDENTIALS)
    requests_made = [
        read(),
        read(path="/uapi/another"),
        read(headers={"custtype": "P"}),
        ApiRequest("GET", PATH, "FHPST02400000", {}, None),
    ]
    first = [sent(preparation.read(session, request, BEARER)) for request in requests_made]
    assert [sent(preparation.read(session, request, BEARER)) for request in requests_made] == first
    assert all(first.count(one) == 1 for one in first)


def test_as_many_transactions_are_kept_as_kis_has_and_no_more() -> None:
    session, preparation = requests.Session(), Preparation(CREDENTIALS)
    prepared = 0
    prepare = session.prepare_request

    def count(request: requests.Request) -> requests.PreparedRequest:
        nonlocal prepared
        prepared += 1
        return prepare(request)

    session.prepare_request = count  # type: ignore[method-assign]  # to see what was made anew
    for number in [*range(256), *range(256)]:
        assert preparation.read(session, read(path=f"/uapi/{number}"), BEARER).url.endswith(f"/{number}")  # type: ignore[union-attr]  # it has one
    assert prepared == 256
    for number in (256, 256, 0):
        preparation.read(session, read(path=f"/uapi/{number}"), BEARER)
    assert prepared == 258, "all are forgotten for the one too many"


def test_a_token_that_no_header_can_carry_is_refused_as_requests_does() -> None:
    with pytest.raises(requests.exceptions.InvalidHeader):
        Preparation(CREDENTIALS).read(requests.Session(), read(), "Bearer a\r\nx: y")
