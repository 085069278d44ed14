"""Answers in pages (연속조회), as the gateway for tests gives them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway_caller import Caller

BALANCE = "/uapi/domestic-stock/v1/trading/inquire-balance"
CURSORS = ["ctx_area_nk100 ctx_area_fk100", "ctx_area_nk200 ctx_area_fk200", "nk100 fk100", "nk200 fk200"]
CURSORS += ["keyb", "cts", ""]


def page(caller: Caller, query: dict[str, str], tr_cont: str = "", **rest: Any) -> tuple[dict[str, Any], str]:
    """The body, and the response header `tr_cont`."""
    answer = caller.get(BALANCE, params=query, headers={"tr_cont": tr_cont, **rest})
    assert answer.status_code == 200
    return answer.json(), answer.headers["tr_cont"]


def cursor_of(body: dict[str, Any]) -> dict[str, str]:
    return {name.upper(): value for name, value in body.items() if name in " ".join(CURSORS).split()}


def walk(caller: Caller) -> list[tuple[dict[str, Any], str]]:
    """Every page, as the official samples turn them."""
    pages = [page(caller, {})]
    while pages[-1][1] in {"F", "M"} and len(pages) < 20:
        pages.append(page(caller, cursor_of(pages[-1][0]), "N"))
    return pages


@pytest.mark.parametrize("cursor", CURSORS)
def test_each_row_comes_once_and_in_order(caller: Caller, cursor: str) -> None:
    caller.gateway.list_pages(BALANCE.lstrip("/"), pages=4, rows=3, cursor=cursor)
    for _ in range(2):  # whoever begins again begins with the first
        pages = walk(caller)
        rows = [row["row"] for body, _ in pages for row in body["output1"]]
        assert rows == [str(number) for number in range(1, 13)]
        assert [mark for _, mark in pages] == ["F", "M", "M", "D"]
        assert all(set(body) - {"rt_cd", "msg_cd", "msg1", "output1"} == set(cursor.split()) for body, _ in pages)


def test_a_page_is_the_rows_the_cursors_and_the_words_of_kis(caller: Caller) -> None:
    caller.gateway.list_pages(BALANCE, pages=2, rows=2)
    first = page(caller, {})
    rows = [{"row": "1", "pdno": "000001"}, {"row": "2", "pdno": "000002"}]
    words = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다."}
    cursor = {"ctx_area_fk100": "LIST".ljust(100), "ctx_area_nk100": "PAGE2".ljust(100)}
    assert first == ({**words, "output1": rows, **cursor}, "F")
    assert page(caller, cursor_of(first[0]), "M") == first, "only N asks for another page"


@pytest.mark.parametrize("cursor", ["nonsense", "", "PAGE0", "PAGE3", "PAGE" + "9" * 5000])
def test_a_cursor_that_was_never_handed_out_finds_nothing(caller: Caller, cursor: str) -> None:
    caller.gateway.list_pages(BALANCE, pages=2, rows=2)
    body, mark = page(caller, {"CTX_AREA_FK100": "LIST", "CTX_AREA_NK100": cursor}, "N")
    assert (body["rt_cd"], mark) == ("7", "")


def test_without_a_cursor_each_query_and_app_key_turns_its_own_pages(caller: Caller) -> None:
    caller.gateway.list_pages(BALANCE, pages=3, rows=1, cursor="")
    caller.gateway.accept("second", "secret")
    status, issued = caller.ask_token(appkey="second", appsecret="secret")
    assert status == 200
    second = {"appkey": "second", "authorization": f"Bearer {issued['access_token']}"}
    caller.gateway.issue_elsewhere()

    def row(query: dict[str, str], tr_cont: str = "N", **headers: str) -> str:
        body, _ = page(caller, query, tr_cont, **headers)
        return str(body["output1"][0]["row"]) if body["rt_cd"] == "0" else "none"

    one, other = {"CANO": "1"}, {"CANO": "2"}
    assert [row(one, ""), row(other, ""), row(one, "", **second)] == ["1", "1", "1"]
    assert [row(one), row(other), row(one, **second)] == ["2", "2", "2"]
    caller.gateway.expire()
    refused = caller.get(BALANCE, params=one, headers={"tr_cont": "N"}).json()
    assert refused["msg_cd"] == "EGW00123", "a page that was refused was not given"
    caller.gateway.issue_elsewhere()
    assert [row(one), row(one)] == ["3", "none"], "another token goes on where the first was, and there is no fourth"
