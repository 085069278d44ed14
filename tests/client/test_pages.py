"""Answers in pages: each once and in order, whatever happens on the way, and never a part that looks whole."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from clients import Asking
from kis_retry import PageError, RefreshEvent
from kis_retry.testing import KisGateway
from loopback import Loopback, Reply

BALANCE = "/uapi/domestic-stock/v1/trading/inquire-balance"
ROWS = [str(number) for number in range(1, 41)]


def rows(pages: list[dict[str, Any]]) -> list[str]:
    return [row["row"] for page in pages for row in page["output1"]]


@pytest.mark.parametrize("page", [1, 4])
@pytest.mark.parametrize("fault", ["expired", "refused", "dropped", "failing"])
def test_a_page_that_failed_is_asked_for_again_and_no_other(
    gateway: KisGateway, client: Asking, events: list[RefreshEvent], page: int, fault: str
) -> None:
    gateway.list_pages(BALANCE, pages=4, rows=10)
    client.fetch_domestic_price("005930")
    gateway.reset_counts()
    pages, found = client.pages(BALANCE, "TTTC8434R", {}), []
    for number in range(1, 5):
        if number == page:
            {
                "expired": gateway.expire,
                "refused": lambda: gateway.refuse_calls("EGW00201", 1),
                "dropped": lambda: gateway.drop("calls", 1),
                "failing": lambda: gateway.fail(503, 1),
            }[fault]()
        found.append(client.next_page(pages))
    with pytest.raises((StopIteration, StopAsyncIteration)):
        client.next_page(pages)
    assert rows(found) == ROWS
    assert gateway.counts.calls == 5
    assert {event.callable for event in events if event.name == "call_recovered"} == {"KisClient.pages"}


def test_a_page_that_is_refused_is_an_error_with_the_answer_of_kis(gateway: KisGateway, client: Asking) -> None:
    gateway.list_pages(BALANCE, pages=4, rows=10)
    pages = client.pages(BALANCE, "TTTC8434R", {})
    assert rows([client.next_page(pages), client.next_page(pages)]) == ROWS[:20]
    gateway.refuse_calls("EGW00206")
    with pytest.raises(PageError, match=r"^page 3 of .* was refused \(EGW00206\)$") as caught:
        client.next_page(pages)
    assert (caught.value.page, caught.value.answer["msg_cd"]) == (3, "EGW00206")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.page, copy.answer) == (str(caught.value), 3, caught.value.answer)


# -- every kind of cursor, with pages that a test makes up


def page(number: int, tr_cont: str, **cursor: Any) -> Reply:
    return Reply({"rt_cd": "0", "number": number, **cursor}, {"tr_cont": tr_cont} if tr_cont else {})


def asked_with(host: Loopback) -> list[tuple[dict[str, str], str | None]]:
    return [(sent.query, sent.headers.get("tr_cont")) for sent in host.sent]


CURSORS = ["ctx_area_fk100 ctx_area_nk100", "CTX_AREA_FK200 CTX_AREA_NK200", "fk100 nk100", "keyb", "cts"]


@pytest.mark.parametrize("names", CURSORS)
def test_the_next_page_is_asked_for_with_the_cursor_of_the_one_before(
    names: str, at_host: Callable[..., Asking], host: Loopback
) -> None:
    body, query = names.split(), names.upper().split()
    host.replies = [
        page(1, "F", **dict.fromkeys(body, "p2 ")),
        page(2, "M", **dict.fromkeys(body, "p3")),
        page(3, "D", **dict.fromkeys(body, "")),
    ]
    first = {"CANO": "1", **dict.fromkeys(query, "")}
    assert [answer["number"] for answer in at_host().all_pages(BALANCE, "TTTC8434R", first)] == [1, 2, 3]
    assert asked_with(host) == [
        (first, None),
        ({"CANO": "1", **dict.fromkeys(query, "p2 ")}, "N"),
        ({"CANO": "1", **dict.fromkeys(query, "p3")}, "N"),
    ]


@pytest.mark.parametrize("blank", [{}, {"ctx_area_fk100": " ", "ctx_area_nk100": ""}, {"cts": None}])
def test_without_a_cursor_the_word_next_is_enough(
    blank: dict[str, Any], at_host: Callable[..., Asking], host: Loopback
) -> None:
    host.replies = [page(1, "F", **blank), page(2, "m ", **blank), page(3, "")]
    assert [answer["number"] for answer in at_host().all_pages(BALANCE, "HHDFS76240000", {"CANO": "1"})] == [1, 2, 3]
    assert asked_with(host) == [({"CANO": "1"}, None), ({"CANO": "1"}, "N"), ({"CANO": "1"}, "N")]


@pytest.mark.parametrize(
    "cursors",
    [
        [{"cts": "a"}, {"cts": "a"}],
        [{"cts": "a"}, {"cts": "b"}, {"cts": "a"}],
        [{"cts": "start"}],
        [{"number": 1}, {"number": 1}],  # without a cursor
    ],
)
def test_a_page_that_leads_back_is_given_and_then_an_error_ends_it(
    cursors: list[dict[str, Any]], at_host: Callable[..., Asking], host: Loopback
) -> None:
    host.replies = [Reply({"rt_cd": "0", **cursor}, {"tr_cont": "M"}) for cursor in cursors]
    client = at_host()
    pages = client.pages(BALANCE, "TTTC8434R", {"CTS": "start"} if "start" in str(cursors) else {})
    for _ in cursors:
        assert client.next_page(pages)["rt_cd"] == "0"
    last = len(cursors)
    with pytest.raises(PageError, match=f"^page {last + 1} of .* page {last} leads back to an earlier one$") as caught:
        client.next_page(pages)
    assert (caught.value.page, caught.value.answer) == (last + 1, {"rt_cd": "0", **cursors[-1]})
    assert len(host.sent) == last
