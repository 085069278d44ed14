"""Answers in pages: each row once and in order, whatever happens on the way, and never a part that looks whole."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from kis_retry import KisClient, MemoryTokenStore, PageError, RefreshEvent, RetryPolicy, TokenManager
from kis_retry.client.paging import answers_of, cursor_of, has_next, next_query
from kis_retry.testing import KisGateway

BALANCE = "/uapi/domestic-stock/v1/trading/inquire-balance"
ROWS = [str(number) for number in range(1, 41)]


@pytest.fixture
def client(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[KisClient]:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    with KisClient(tokens=tokens) as made:
        yield made


def rows(pages: Iterator[dict[str, Any]]) -> list[str]:
    return [row["row"] for page in pages for row in page["output1"]]


@pytest.mark.parametrize("cursor", ["100", "200"])
@pytest.mark.parametrize("last", ["D", "E", ""])
def test_each_row_comes_once_and_in_order(gateway: KisGateway, client: KisClient, cursor: Any, last: Any) -> None:
    gateway.list_pages(BALANCE, pages=4, rows=10, cursor=cursor, last=last)
    assert rows(client.pages(BALANCE, "TTTC8434R", {"CANO": "12345678"})) == ROWS
    assert gateway.counts.calls == 4


@pytest.mark.parametrize(("params", "query"), [({"CANO": "12345678"}, "?CANO=12345678"), ({}, ""), (None, "")])
def test_the_first_page_is_asked_for_with_the_query_that_was_given(
    params: dict[str, str] | None, query: str, gateway: KisGateway, client: KisClient
) -> None:
    gateway.list_pages(BALANCE, pages=1, rows=10)
    with requests.Session() as session:
        asked: list[Any] = []
        session.hooks["response"].append(lambda response, **_: asked.append(response.request.url))
        given = KisClient(tokens=client.tokens, session=session)
        assert len(rows(given.pages(BALANCE, "TTTC8434R", params))) == 10
    assert asked == [f"{gateway.url}{BALANCE}{query}"]


@pytest.mark.parametrize("page", [1, 2, 3, 4])
@pytest.mark.parametrize("fault", ["expired", "refused", "dropped", "failing"])
def test_a_page_that_failed_is_asked_again_and_no_other(
    gateway: KisGateway, client: KisClient, events: list[RefreshEvent], page: int, fault: str
) -> None:
    gateway.list_pages(BALANCE, pages=4, rows=10)
    client.access_token  # noqa: B018  # the first token
    found: list[str] = []
    pages = client.pages(BALANCE, "TTTC8434R", {})
    for number in itertools.count(1):
        if number == page:
            {
                "expired": gateway.expire,
                "refused": lambda: gateway.refuse_calls("EGW00201", 1),
                "dropped": lambda: gateway.drop("calls", 1),
                "failing": lambda: gateway.fail(503, 1),
            }[fault]()
        try:
            found += [row["row"] for row in next(pages)["output1"]]
        except StopIteration:
            break
    assert found == ROWS
    assert gateway.counts.calls == 5
    assert {event.callable for event in events if event.name == "call_recovered"} == {"KisClient.pages"}


def test_a_page_that_cannot_be_had_is_an_error_with_the_answer_of_kis(gateway: KisGateway, client: KisClient) -> None:
    gateway.list_pages(BALANCE, pages=4, rows=10)
    pages = client.pages(BALANCE, "TTTC8434R", {})
    assert len(rows(itertools.islice(pages, 2))) == 20
    gateway.refuse_calls("EGW00206")
    with pytest.raises(PageError, match=r"page 3 of .* was refused \(EGW00206\)") as caught:
        next(pages)
    assert (caught.value.page, caught.value.answer["msg_cd"]) == (3, "EGW00206")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.page, copy.answer) == (str(caught.value), 3, caught.value.answer)


def test_a_cursor_that_comes_round_again_is_an_error_and_no_loop(gateway: KisGateway, client: KisClient) -> None:
    gateway.list_pages(BALANCE, pages=9, rows=10, repeat_from=3)
    with pytest.raises(PageError, match="cursor of an earlier page"):
        list(client.pages(BALANCE, "TTTC8434R", {}))
    assert gateway.counts.calls <= 9


# -- what comes next, with pages that a test makes up


def page(number: int, tr_cont: str | None, **cursor: str) -> tuple[dict[str, Any], str | None]:
    return {"rt_cd": "0", "number": number, **cursor}, tr_cont


def answers(*script: tuple[dict[str, Any], str | None]) -> tuple[Iterator[dict[str, Any]], list[tuple[Any, Any]]]:
    """The answers of so many pages, and what they were asked with."""
    left = iter(script)
    asked: list[tuple[Any, Any]] = []

    def ask(query: Any, headers: Any) -> Any:
        asked.append((dict(query), dict(headers)))
        return next(left)

    return answers_of("/uapi/x", {"CANO": "1", "CTX_AREA_FK100": "", "CTX_AREA_NK100": ""}, ask), asked


def test_each_page_is_asked_for_with_the_cursor_of_the_one_before_and_the_word_next() -> None:
    given, asked = answers(
        page(1, "F", ctx_area_fk100="f1 ", ctx_area_nk100="n1"),
        page(2, "M", ctx_area_fk100="f1 ", ctx_area_nk100="n2"),
        page(3, "D", ctx_area_fk100="", ctx_area_nk100=""),
    )
    assert [answer["number"] for answer in given] == [1, 2, 3]
    assert asked == [
        ({"CANO": "1", "CTX_AREA_FK100": "", "CTX_AREA_NK100": ""}, {}),
        ({"CANO": "1", "CTX_AREA_FK100": "f1 ", "CTX_AREA_NK100": "n1"}, {"tr_cont": "N"}),
        ({"CANO": "1", "CTX_AREA_FK100": "f1 ", "CTX_AREA_NK100": "n2"}, {"tr_cont": "N"}),
    ]


@pytest.mark.parametrize(
    ("cursor", "why"),
    [
        ({}, "page 2 of /uapi/x has no cursor, though more follow"),
        ({"ctx_area_fk100": " ", "ctx_area_nk100": ""}, "page 2 of /uapi/x has no cursor, though more follow"),
        ({"ctx_area_fk100": "f"}, "page 2 of /uapi/x comes with the cursor of an earlier page"),
        ({"ctx_area_fk100": " f "}, "page 2 of /uapi/x comes with the cursor of an earlier page"),
    ],
)
def test_a_page_after_which_nobody_knows_where_to_go_on_is_an_error_and_not_given(
    cursor: dict[str, str], why: str
) -> None:
    given, _ = answers(page(1, "F", ctx_area_fk100="f"), page(2, "M", **cursor))
    assert next(given)["number"] == 1
    with pytest.raises(PageError, match=f"^{why}") as caught:
        next(given)
    assert (caught.value.page, caught.value.answer["number"]) == (2, 2)


def test_the_cursor_of_the_last_page_may_be_any() -> None:
    for cursor in ({}, {"ctx_area_fk100": "f"}):
        given, asked = answers(page(1, "F", ctx_area_fk100="f"), page(2, "E", **cursor))
        assert [answer["number"] for answer in given] == [1, 2]
        assert len(asked) == 2


@pytest.mark.parametrize("rt_cd", ["1", "", "8", None])
def test_what_is_neither_a_success_nor_no_such_data_is_a_refusal(rt_cd: str | None) -> None:
    given, _ = answers(({"rt_cd": rt_cd}, None))
    with pytest.raises(PageError, match=r"^page 1 of /uapi/x was refused"):
        next(given)


@pytest.mark.parametrize(
    ("answer", "cursor"),
    [
        ({"ctx_area_fk100": "f", "ctx_area_nk100": "n"}, {"CTX_AREA_FK100": "f", "CTX_AREA_NK100": "n"}),
        ({"CTX_AREA_FK200": "f", "CTX_AREA_NK200": ""}, {"CTX_AREA_FK200": "f", "CTX_AREA_NK200": ""}),
        ({"ctx_area_fk100": "  ", "ctx_area_nk100": ""}, {}),
        ({"ctx_area_fk100": None, "ctx_area_nk100": 7}, {}),
        ({"ctx_area_fk300": "f", "my_ctx_area_fk100": "f", "msg1": "f"}, {}),
    ],
)
def test_a_cursor_is_the_texts_under_its_four_names_alone(answer: dict[str, Any], cursor: dict[str, str]) -> None:
    assert cursor_of(answer) == cursor


# -- the parts


def test_no_such_data_is_the_whole_answer(client: KisClient) -> None:
    query = {"PDNO": "NONE1", "PRDT_TYPE_CD": "300"}
    path = "/uapi/domestic-stock/v1/quotations/search-info"
    assert [page["rt_cd"] for page in client.pages(path, "CTPF1604R", query)] == ["7"]


@pytest.mark.parametrize(
    ("tr_cont", "more"),
    [("F", True), ("M", True), ("m ", True), ("D", False), ("E", False), ("", False), (None, False), ("N", False)],
)
def test_the_header_says_whether_more_follow(tr_cont: str | None, more: bool) -> None:
    assert has_next(tr_cont) is more


@given(st.sampled_from(["fk100", "nk100", "fk200", "nk200"]), st.text(min_size=1, max_size=20))
def test_the_cursor_replaces_the_one_of_the_query_in_whatever_case(area: str, value: str) -> None:
    query = {"CANO": "1", f"ctx_area_{area}": "old", f"CTX_AREA_{area.upper()}": "old"}
    cursor = cursor_of({f"ctx_area_{area}": value, "output1": []})
    expected = {"CANO": "1"} | ({f"CTX_AREA_{area.upper()}": value} if value.strip() else {})
    assert next_query(query, cursor) == expected
