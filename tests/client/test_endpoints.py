"""What KIS takes, and how its answers are read: both sides of each bound."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from kis_retry.client.endpoints import (
    has_symbol,
    is_etf,
    is_unknown,
    lookup,
    offering_days,
    valid_path,
    valid_symbol,
    valid_transaction,
)

FOUND = {"rsym": "DNASAAPL"}
NOW = datetime(2026, 11, 23, 15, 30)


@pytest.mark.parametrize(
    ("output", "found"),
    [(FOUND, True), ({"rsym": ""}, False), ({}, False), (None, False), ([FOUND], False), ("rsym", False)],
)
def test_an_exchange_knows_a_symbol_that_it_names(output: Any, found: bool) -> None:
    assert has_symbol({"rt_cd": "0", "output": output}) is found


@pytest.mark.parametrize(
    ("answer", "unknown"),
    [
        ({"rt_cd": "7"}, True),
        ({"rt_cd": "7", "output": FOUND}, True),
        ({"rt_cd": "0"}, True),
        ({"rt_cd": "0", "output": {"rsym": ""}}, True),
        ({"rt_cd": "0", "output": FOUND}, False),
        ({"rt_cd": "1"}, False),
        ({"rt_cd": "1", "output": FOUND}, False),
        ({"rt_cd": "8"}, False),
        ({"rt_cd": "-1"}, False),
        ({}, False),
    ],
)
def test_no_such_data_is_said_by_7_or_by_a_success_without_a_symbol_alone(
    answer: dict[str, Any], unknown: bool
) -> None:
    assert is_unknown(answer) is unknown


@pytest.mark.parametrize(
    ("output", "etf"),
    [
        ({"prdt_clsf_name": "ETF"}, True),
        ({"prdt_clsf_name": "ETN"}, False),
        ({"prdt_clsf_name": "ELW"}, False),
        ({"prdt_clsf_name": "주권"}, False),
        ({}, False),
        ("ETF", False),
        (None, False),
    ],
)
def test_an_etf_is_what_its_product_class_calls_one(output: Any, etf: bool) -> None:
    assert is_etf({"rt_cd": "0", "output": output}) is etf


@pytest.mark.parametrize(
    ("from_date", "to_date", "days"),
    [
        (None, None, ("20261123", "20261223")),
        ("", "", ("20261123", "20261223")),
        ("20261120", None, ("20261120", "20261223")),
        ("20261201", None, ("20261201", "20261231")),
        (None, "20261123", ("20261123", "20261123")),
        (None, "20261124", ("20261123", "20261124")),
        ("20270101", "20270101", ("20270101", "20270101")),
    ],
)
def test_a_schedule_is_from_today_to_30_days_after_the_later_of_today_and_its_first_day(
    from_date: str | None, to_date: str | None, days: tuple[str, str]
) -> None:
    assert offering_days(from_date, to_date, NOW) == days


@pytest.mark.parametrize(
    ("from_date", "to_date", "why"),
    [
        (None, "20261122", "from_date 20261123 is after to_date 20261122"),
        ("20270102", "20270101", "from_date 20270102 is after to_date 20270101"),
        ("2026111", None, "from_date '2026111' is not a date: it takes YYYYMMDD"),
        (None, "202611230", "to_date '202611230' is not a date: it takes YYYYMMDD"),
        ("20260230", None, "from_date '20260230' is not a date: it takes YYYYMMDD"),
        (20261123, None, "from_date 20261123 is not a date: it takes YYYYMMDD"),
    ],
)
def test_a_day_that_is_none_or_before_the_first_is_refused(from_date: Any, to_date: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        offering_days(from_date, to_date, NOW)


@pytest.mark.parametrize(
    ("path", "taken"), [("/uapi/a-b_c", "/uapi/a-b_c"), ("uapi/x", "/uapi/x"), ("/한글", "/한글"), ("/a%20b", "/a%20b")]
)
def test_a_path_begins_with_one_slash(path: str, taken: str) -> None:
    assert valid_path(path) == taken


@pytest.mark.parametrize(
    "path", ["", "/", " / ", "//host/x", "/a//b", "https://host/x", "/a?b", "/a#b", "/a b", "/a\tb", "/a\\b", None, 7]
)
def test_what_leads_elsewhere_is_no_path(path: object) -> None:
    with pytest.raises(ValueError, match="it takes a path below the host, without a query"):
        valid_path(path)


def test_a_transaction_is_taken_as_it_is() -> None:
    assert valid_transaction("FHKST01010100") == "FHKST01010100"


@pytest.mark.parametrize("tr_id", ["", "FHK-1", "FHK 1", "FHK\r\nX: y", "거래1", None, 7])
def test_anything_but_letters_and_digits_is_no_transaction(tr_id: object) -> None:
    with pytest.raises(ValueError, match="it takes letters and digits"):
        valid_transaction(tr_id)


def test_a_symbol_is_taken_without_white_space_around_it() -> None:
    assert valid_symbol(" BRK/B\n") == "BRK/B"


@pytest.mark.parametrize("symbol", ["", " ", None, 5930])
def test_a_blank_symbol_is_none(symbol: object) -> None:
    with pytest.raises(ValueError, match="it takes a text like '005930' or 'AAPL'"):
        valid_symbol(symbol)


def test_a_choice_stands_for_its_value() -> None:
    assert lookup("country_code", "US", {"KR": 1, "US": 2}) == 2


@pytest.mark.parametrize("given", ["us", "", None, ["US"]])
def test_another_word_is_refused_with_the_choices(given: object) -> None:
    with pytest.raises(ValueError, match=r"^country_code .* is not known: it takes KR, US$"):
        lookup("country_code", given, {"KR": 1, "US": 2})
