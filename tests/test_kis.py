"""The one table of codes, row by row: what KIS's refusals say about calling again."""

from __future__ import annotations

import re

import pytest

from kis_retry import RetryPolicy
from kis_retry.kis import CODES, EXPIRED_CODES, LIMIT_CODE, ONCE_A_MINUTE, UNCERTAIN_CODES, Meaning

TABLE = {
    Meaning.EXPIRED: ["EGW00121", "EGW00122", "EGW00123"],
    Meaning.RATE_LIMITED: ["EGW00201", "EGW00215"],
    Meaning.TRANSIENT: [
        *("EGW00316", "EGW00300", "EGW00001", "EGW00002", "EGW00202", "EGW00203"),
        *("OPSQ1002", "OPSQ0003", "OPSQ0010", "OPSQ0011"),
    ],
    Meaning.UNCERTAIN: ["EGW00301", "EGW00302"],
    Meaning.FINAL: [
        *("EGW00103", "EGW00105", "EGW00120", "EGW00124", "EGW00125", "EGW00126"),
        *("EGW00133", "EGW00206", "EGW00207", "EGW00303"),
    ],
}


@pytest.mark.parametrize("meaning", Meaning)
def test_the_codes_of_a_meaning_are_those_of_the_table(meaning: Meaning) -> None:
    assert sorted(code for code, found in CODES.items() if found is meaning) == sorted(TABLE[meaning])


def test_every_code_is_written_as_kis_writes_it() -> None:
    assert [code for code in CODES if not re.fullmatch(r"(EGW|OPSQ)[0-9]{4,5}", code)] == []


def test_the_policy_takes_for_expired_what_the_table_does() -> None:
    assert set(EXPIRED_CODES) == set(TABLE[Meaning.EXPIRED])
    assert RetryPolicy().expired_codes == EXPIRED_CODES


def test_what_may_hide_an_order_is_never_the_code_after_which_one_is_sent_again() -> None:
    assert set(UNCERTAIN_CODES) == set(TABLE[Meaning.UNCERTAIN])
    assert LIMIT_CODE == "EGW00201"
    assert CODES[LIMIT_CODE] is Meaning.RATE_LIMITED


def test_once_a_minute_does_not_pass_by_asking_again_at_once() -> None:
    assert CODES[ONCE_A_MINUTE] is Meaning.FINAL
