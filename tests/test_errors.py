"""What this package raises: its fields, what its texts say, and that it arrives whole from another process."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from kis_retry import ConfigurationError, KisRetryError, PageError, ResponseError, TokenIssueError, TokenIssueLimited

REFUSED = {"rt_cd": "1", "msg_cd": "EGW00206", "msg1": "API 사용 권한이 없습니다."}

ERRORS: list[tuple[KisRetryError, dict[str, Any]]] = [
    (ConfigurationError("KIS_PAPER is not usable"), {}),
    (ResponseError("no JSON", status=502), {"status": 502}),
    (PageError("page 3 was refused", page=3, answer=REFUSED), {"page": 3, "answer": REFUSED}),
    (TokenIssueError("away"), {"code": None, "retryable": False}),
    (TokenIssueError("a wrong secret", code="EGW00105"), {"code": "EGW00105", "retryable": False}),
    (TokenIssueLimited("a minute", code="EGW00133", retryable=True), {"code": "EGW00133", "retryable": True}),
]


@pytest.mark.parametrize(("error", "fields"), ERRORS, ids=repr)
@pytest.mark.parametrize("travel", [lambda error: error, lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_an_error_travels_with_its_kind_its_text_and_its_fields(
    travel: Any, error: KisRetryError, fields: dict[str, Any]
) -> None:
    arrived = travel(error)
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), fields)
    assert isinstance(arrived, KisRetryError)


@pytest.mark.parametrize("rt_cd", ["0", "", "-1", None])
def test_the_error_of_a_page_names_the_code_of_an_answer_that_is_no_success(rt_cd: str | None) -> None:
    error = PageError("page 2 was refused", page=2, answer={"rt_cd": rt_cd, "msg_cd": "EGW00201"})
    assert str(error) == ("page 2 was refused" if rt_cd == "0" else "page 2 was refused (EGW00201)")
