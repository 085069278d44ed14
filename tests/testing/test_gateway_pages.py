"""Answers in pages (연속조회), as the gateway for tests gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kis_retry.testing import KisGateway
from kis_retry.testing.wire import Request, WireResponse

BALANCE = "/uapi/domestic-stock/v1/trading/inquire-balance"


class Reader:
    """Somebody who turns pages, as the official samples do."""

    def __init__(self, **listing: Any) -> None:
        self.gateway = KisGateway()
        self.gateway.list_pages(BALANCE, **listing)
        self.token = self.gateway.issue_elsewhere()["access_token"]
        self.size = listing.get("cursor", "100")

    def page(self, after: dict[str, Any] | None = None, tr_cont: str | None = None) -> tuple[dict[str, Any], str]:
        """The body, and the response header `tr_cont`."""
        cursors = {f"ctx_area_{part}{self.size}": "" for part in ("fk", "nk")}
        cursors = {name.upper(): (after or cursors)[name] for name in cursors}
        headers = {"authorization": f"Bearer {self.token}"}
        if tr_cont is None:
            tr_cont = "N" if after else ""
        response = self.gateway.receive(Request("GET", BALANCE, cursors, {**headers, "tr_cont": tr_cont}))
        assert isinstance(response, WireResponse)
        assert response.status == 200
        return json.loads(response.body), response.headers["tr_cont"]


@pytest.mark.parametrize("cursor", ["100", "200"])
def test_each_row_comes_once_and_in_order(cursor: str) -> None:
    reader = Reader(pages=4, rows=3, cursor=cursor)
    rows, marks = [], []
    body, mark = reader.page()
    while True:
        rows += [row["row"] for row in body["output1"]]
        marks.append(mark)
        assert len(body[f"ctx_area_nk{cursor}"]) == int(cursor)
        if mark not in {"F", "M"}:
            break
        body, mark = reader.page(body)
    assert rows == [str(number) for number in range(1, 13)]
    assert marks == ["F", "M", "M", "D"]


@pytest.mark.parametrize("last", ["D", "E", ""])
def test_a_single_page_says_that_it_is_the_last(last: str) -> None:
    body, mark = Reader(pages=1, rows=0, last=last, output="output").page()
    assert (body["rt_cd"], body["output"], mark) == ("0", [], last)
    assert body["ctx_area_nk100"].strip() == ""


@pytest.mark.parametrize("tr_cont", ["", " ", "F", "M", "Y", "n"])
def test_without_the_request_header_it_is_the_first_page_again(tr_cont: str) -> None:
    reader = Reader(pages=3, rows=2)
    first, _ = reader.page()
    assert reader.page(first, tr_cont) == reader.page()


def test_a_cursor_may_be_sent_back_without_its_blanks() -> None:
    reader = Reader(pages=2, rows=2)
    first, _ = reader.page()
    stripped = {name: value.strip() for name, value in first.items() if name.startswith("ctx")}
    assert reader.page(stripped) == reader.page(first)


def test_a_cursor_that_was_never_handed_out_finds_nothing() -> None:
    reader = Reader(pages=2, rows=2)
    numbers = ("9", "0", "02", "0000002", "9" * 5000, "", "x", "²", "٢")
    for cursor in ("nonsense", "", "xPAGE2", *(f"PAGE{number}" for number in numbers)):
        body, mark = reader.page({"ctx_area_fk100": "LIST", "ctx_area_nk100": cursor})
        assert (body["rt_cd"], mark) == ("7", "")


def test_a_repeated_cursor_is_a_loop() -> None:
    reader = Reader(pages=3, rows=2, repeat_from=2)
    first, _ = reader.page()
    second, mark = reader.page(first)
    again, mark_again = reader.page(second)
    assert second != first
    assert (again, mark_again) == (second, mark)
    assert mark == "M"
    last = {**second, "ctx_area_nk100": "PAGE3"}
    assert reader.page(last) == reader.page(reader.page(last)[0]), "those after it are loops of their own"
    assert reader.page(last)[1] == "M"


def test_a_first_page_may_be_a_loop_already() -> None:
    reader = Reader(pages=3, rows=1, repeat_from=1)
    first = reader.page()
    assert first[1] == "F"
    assert reader.page(first[0]) == first


@pytest.mark.parametrize(("pages", "last"), [(300, "PAGE300"), (999_999, "PAGE999999")])
def test_the_last_of_many_pages_is_the_last(pages: int, last: str) -> None:
    body, mark = Reader(pages=pages, rows=1).page({"ctx_area_fk100": "LIST", "ctx_area_nk100": last})
    assert (body["output1"], mark) == ([{"row": str(pages), "pdno": f"{pages:06}"}], "D")
    assert body["ctx_area_nk100"] == " " * 100


def test_a_page_is_the_rows_the_cursors_and_the_words_of_kis() -> None:
    body, mark = Reader(pages=2, rows=2).page()
    assert (body, mark) == (
        {
            "rt_cd": "0",
            "msg_cd": "MCA00000",
            "msg1": "정상처리 되었습니다.",
            "output1": [{"row": "1", "pdno": "000001"}, {"row": "2", "pdno": "000002"}],
            "ctx_area_fk100": "LIST".ljust(100),
            "ctx_area_nk100": "PAGE2".ljust(100),
        },
        "F",
    )


def test_there_are_three_pages_of_ten_rows_where_nothing_else_is_said() -> None:
    reader = Reader()
    answers = [reader.page()]
    while answers[-1][1] != "D":
        answers.append(reader.page(answers[-1][0]))
    assert [len(body["output1"]) for body, _ in answers] == [10, 10, 10]


def test_pages_meet_the_faults_of_any_call() -> None:
    reader = Reader(pages=2, rows=2)
    reader.gateway.expire()
    headers = {"authorization": f"Bearer {reader.token}"}
    response = reader.gateway.receive(Request("GET", BALANCE, {}, headers))
    assert isinstance(response, WireResponse)
    assert json.loads(response.body)["msg_cd"] == "EGW00123"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"pages": 0}, "pages=0"),
        ({"pages": 1_000_000}, "pages=1000000"),
        ({"rows": -1}, "rows=-1"),
        ({"cursor": "300"}, "cursor='300'"),
        ({"last": "M"}, "last='M'"),
        ({"pages": 2, "repeat_from": 3}, "repeat_from=3"),
        ({"pages": 2, "repeat_from": 0}, "repeat_from=0"),
    ],
)
def test_an_unusable_listing_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} is not usable: it takes"):
        Reader(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"pages": 1}, {"pages": 999_999}, {"rows": 0}, {"pages": 2, "repeat_from": 1}, {"pages": 2, "repeat_from": 2}],
)
def test_a_listing_at_the_edge_is_usable(arguments: dict[str, Any]) -> None:
    Reader(**arguments)
