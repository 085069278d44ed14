"""`RetryPolicy`: its bounds, given directly and read from the environment."""

from __future__ import annotations

import copy
import math
import os
import pickle
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kis_retry import ConfigurationError, RetryPolicy
from kis_retry.policy import variable_of

quick = settings(max_examples=40, deadline=None, database=None)
of_each_number = settings(quick, max_examples=15)  # the seven of them are read by the same code


class Bounds(NamedTuple):
    field: str
    default: float
    low: float
    high: float
    text: str


NUMBERS = [
    Bounds("max_retries", 1, 0, 5, "a whole number from 0 to 5"),
    Bounds("wait", 0, 0, 60, "a number of seconds from 0 to 60"),
    Bounds("refresh_margin", 600, 0, 43_200, "a number of seconds from 0 to 43,200"),
    Bounds("issue_timeout", 10, 0.1, 120, "a number of seconds from 0.1 to 120"),
    Bounds("issue_wait", 70, 0, 600, "a number of seconds from 0 to 600"),
    Bounds("issue_cooldown", 60, 0, 3_600, "a number of seconds from 0 to 3,600"),
    Bounds("transient_deadline", 60, 0, 86_400, "a number of seconds from 0 to 86,400"),
]
TRUE = ["1", "true", "t", "yes", "y", "on"]
FALSE = ["0", "false", "f", "no", "n", "off"]
CODES_TEXT = "one or more KIS codes like EGW00123"

numbers = pytest.mark.parametrize("bounds", NUMBERS, ids=[number.field for number in NUMBERS])


def policy_with(name: str, value: Any) -> RetryPolicy:
    fields_given: dict[str, Any] = {name: value}
    return RetryPolicy(**fields_given)


def from_env(**variables: str) -> RetryPolicy:
    with pytest.MonkeyPatch.context() as patch:
        for name, text in variables.items():
            patch.setenv(name, text)
        return RetryPolicy.from_env()


def assert_refused(field: str, text: str, takes: str) -> None:
    variable = variable_of(field)
    with pytest.raises(ConfigurationError) as caught:
        from_env(**{variable: text})
    message = str(caught.value)
    assert message.startswith(f"{variable}={text.strip()!r} ")
    assert takes in message


# -- defaults


def test_the_defaults_are_those_of_the_table() -> None:
    policy = RetryPolicy()
    assert [getattr(policy, number.field) for number in NUMBERS] == [number.default for number in NUMBERS]
    assert policy.enabled is True
    assert policy.expired_codes == ("EGW00121", "EGW00122", "EGW00123")


def test_an_environment_that_says_nothing_gives_the_defaults() -> None:
    assert RetryPolicy.from_env() == RetryPolicy()


def test_a_variable_is_named_after_its_field() -> None:
    assert [variable_of(spec.name) for spec in fields(RetryPolicy)] == [
        "KIS_RETRY_ENABLED",
        "KIS_RETRY_MAX_RETRIES",
        "KIS_RETRY_WAIT",
        "KIS_RETRY_REFRESH_MARGIN",
        "KIS_RETRY_ISSUE_TIMEOUT",
        "KIS_RETRY_ISSUE_WAIT",
        "KIS_RETRY_ISSUE_COOLDOWN",
        "KIS_RETRY_TRANSIENT_DEADLINE",
        "KIS_RETRY_EXPIRED_CODES",
    ]


# -- given directly


@numbers
def test_a_number_may_be_at_the_edge_and_not_one_tick_past_it(bounds: Bounds) -> None:
    for edge in (bounds.low, bounds.high):
        assert getattr(policy_with(bounds.field, edge), bounds.field) == edge
    whole = bounds.field == "max_retries"
    below = bounds.low - 1 if whole else math.nextafter(bounds.low, -math.inf)
    above = bounds.high + 1 if whole else math.nextafter(bounds.high, math.inf)
    for value in (below, above):
        with pytest.raises(ConfigurationError, match=re.escape(f"{bounds.field}={value!r} ")) as caught:
            policy_with(bounds.field, value)
        assert bounds.text in str(caught.value)


@numbers
def test_a_number_of_the_wrong_kind_is_refused(bounds: Bounds) -> None:
    bad: list[Any] = [math.nan, math.inf, -math.inf, True, False, "1", None, b"1", [], (1,), 1j]
    for value in bad:
        with pytest.raises(ConfigurationError, match=f"^{bounds.field}=.*{re.escape(bounds.text)}"):
            policy_with(bounds.field, value)


@pytest.mark.parametrize("value", [1.0, 0.5])
def test_repeats_come_in_whole_numbers(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_retries="):
        RetryPolicy(max_retries=value)


def test_seconds_are_kept_as_floats() -> None:
    assert [type(getattr(RetryPolicy(wait=1, issue_wait=2), name)) for name in ("wait", "issue_wait")] == [float, float]


@pytest.mark.parametrize("value", [0, 1, "true", "", None, []])
def test_enabled_is_a_boolean_and_nothing_like_one(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^enabled=.*true or false"):
        RetryPolicy(enabled=value)


@pytest.mark.parametrize("codes", [("EGW00123",), ["egw00123"], "EGW00123", " EGW00123 ", iter(["EGW00123"])])
def test_codes_are_kept_as_a_tuple_in_capitals(codes: Any) -> None:
    assert RetryPolicy(expired_codes=codes).expired_codes == ("EGW00123",)


@pytest.mark.parametrize("codes", [(), [], "", "EGW123", ("EGW00123", ""), ("EGW00123", None), None, 5, True, (123,)])
def test_what_is_no_code_of_kis_is_refused(codes: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^expired_codes=.*{CODES_TEXT}"):
        RetryPolicy(expired_codes=codes)


@pytest.mark.parametrize("code", ["EGW00301", "EGW00302", "egw00301", " EGW00302"])
def test_a_timeout_that_may_hide_an_order_can_never_count_as_expired(code: str) -> None:
    with pytest.raises(ConfigurationError, match="EGW00301 and EGW00302 excepted"):
        RetryPolicy(expired_codes=("EGW00123", code))
    assert_refused("expired_codes", f"EGW00123,{code.strip()}", "EGW00301 and EGW00302 excepted")


@pytest.mark.parametrize("name", [spec.name for spec in fields(RetryPolicy)])
def test_a_policy_is_frozen(name: str) -> None:
    policy = RetryPolicy()
    with pytest.raises(FrozenInstanceError):
        setattr(policy, name, getattr(policy, name))


def test_a_policy_is_a_value() -> None:
    policy = RetryPolicy(wait=2, expired_codes=("EGW00123",))
    assert policy == RetryPolicy(wait=2.0, expired_codes=["EGW00123"])  # type: ignore[arg-type]  # a list is taken too
    assert policy != RetryPolicy()
    assert hash(policy) == hash(copy.copy(policy))
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_a_policy_takes_its_fields_by_name_alone() -> None:
    with pytest.raises(TypeError):
        RetryPolicy(True)  # type: ignore[call-arg]  # the mistake this is about


# -- the environment


@numbers
@of_each_number
@given(data=st.data())
def test_a_number_in_range_is_read(bounds: Bounds, data: st.DataObject) -> None:
    if bounds.field == "max_retries":
        value: float = data.draw(st.integers(int(bounds.low), int(bounds.high)))
    else:
        value = data.draw(st.floats(bounds.low, bounds.high) | st.integers(math.ceil(bounds.low), int(bounds.high)))
    text = data.draw(st.sampled_from(["{}", " {}", "{} ", "\t{}\n", "+{}"])).format(value)
    assume(not text.startswith("+-"))
    assert from_env(**{variable_of(bounds.field): text}) == policy_with(bounds.field, value)


@numbers
@of_each_number
@given(data=st.data())
def test_a_number_out_of_range_is_refused_with_name_value_and_range(bounds: Bounds, data: st.DataObject) -> None:
    if bounds.field == "max_retries":
        value: float = data.draw(st.integers(-(10**9), -1) | st.integers(6, 10**9))
    else:
        value = data.draw(st.floats().filter(lambda number: not bounds.low <= number <= bounds.high))
    assert_refused(bounds.field, str(value), bounds.text)


@numbers
@of_each_number
@given(text=st.text(st.characters(exclude_categories=["Cs", "Nd"], exclude_characters="\0@"), min_size=1, max_size=12))
def test_a_text_that_is_no_number_is_refused_with_name_value_and_range(bounds: Bounds, text: str) -> None:
    assume(text.strip())
    assert_refused(bounds.field, text, bounds.text)


@numbers
def test_a_number_is_not_guessed(bounds: Bounds) -> None:
    for text in ("1_0", "0x1", "1,0", "1 0", "ten", "1s", "--1", "nan", "inf", "-inf", "true", "1e999"):
        assert_refused(bounds.field, text, bounds.text)


@pytest.mark.parametrize("text", ["1.0", "1.5", "1e0"])
def test_repeats_in_the_environment_are_whole_numbers(text: str) -> None:
    assert_refused("max_retries", text, "a whole number from 0 to 5")


@quick
@given(
    st.sampled_from(TRUE + FALSE), st.sampled_from([str.lower, str.upper, str.title]), st.sampled_from(["{}", " {} "])
)
def test_a_boolean_is_read_in_any_case(word: str, case: Any, around: str) -> None:
    assert from_env(KIS_RETRY_ENABLED=around.format(case(word))).enabled is (word in TRUE)


@quick
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0@"), min_size=1, max_size=8)
    | st.sampled_from(["2", "-1", "ja", "tru", "yes!", "enabled", "None", "01"])
)
def test_what_is_no_boolean_is_refused_with_name_value_and_choice(text: str) -> None:
    assume(text.strip() and text.strip().lower() not in TRUE + FALSE)
    assert_refused("enabled", text, "true or false")


CODES = st.from_regex(r"[A-Z]{3}[0-9]{5}", fullmatch=True).filter(lambda code: code not in ("EGW00301", "EGW00302"))


@quick
@given(
    st.lists(CODES, min_size=1, max_size=4), st.sampled_from([",", ", ", " ,"]), st.sampled_from([str.upper, str.lower])
)
def test_codes_are_read_separated_by_commas(codes: list[str], comma: str, case: Any) -> None:
    assert from_env(KIS_RETRY_EXPIRED_CODES=case(comma.join(codes))).expired_codes == tuple(codes)


@quick
@given(
    st.lists(CODES, max_size=2),
    st.text(st.characters(exclude_categories=["Cs", "Nd"], exclude_characters="\0@,"), max_size=9)
    | st.sampled_from(["EGW0012", "EGW001234", "00123", "EGW-00123", "EGW00123;EGW00121", "EGW00301"]),
    st.lists(CODES, max_size=2),
)
def test_a_bad_code_is_refused_with_name_value_and_form(before: list[str], bad: str, after: list[str]) -> None:
    text = ",".join([*before, bad, *after])
    assume(text.strip())
    assert_refused("expired_codes", text, CODES_TEXT)


@pytest.mark.parametrize("name", [spec.name for spec in fields(RetryPolicy)])
@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_variable_counts_as_unset(name: str, blank: str) -> None:
    assert from_env(**{variable_of(name): blank}) == RetryPolicy()


def test_all_variables_are_read_together() -> None:
    assert from_env(
        KIS_RETRY_ENABLED="no",
        KIS_RETRY_MAX_RETRIES="3",
        KIS_RETRY_WAIT="0.5",
        KIS_RETRY_REFRESH_MARGIN="43200",
        KIS_RETRY_ISSUE_TIMEOUT="0.1",
        KIS_RETRY_ISSUE_WAIT="0",
        KIS_RETRY_ISSUE_COOLDOWN="3600",
        KIS_RETRY_TRANSIENT_DEADLINE="7200",
        KIS_RETRY_EXPIRED_CODES="EGW00123,EGW00121",
    ) == RetryPolicy(
        enabled=False,
        max_retries=3,
        wait=0.5,
        refresh_margin=43_200,
        issue_timeout=0.1,
        issue_wait=0,
        issue_cooldown=3_600,
        transient_deadline=7_200,
        expired_codes=("EGW00123", "EGW00121"),
    )


READS_NOTHING = """
import sys
import kis_retry
from kis_retry import ConfigurationError, Credentials, MemoryTokenStore, TokenManager, refresh_on_expired_token
assert "environs" not in sys.modules
manager = TokenManager(Credentials("key", "secret"), store=MemoryTokenStore())
call = refresh_on_expired_token(tokens=manager)(lambda: None)
for first_need in (lambda: manager.policy, call):
    try:
        first_need()
    except ConfigurationError as error:
        print(error)
"""


@pytest.mark.one_python
def test_the_environment_is_read_when_first_needed_and_not_at_import(tmp_path: Path) -> None:
    bad = {"KIS_RETRY_WAIT": "soon", "KIS_PAPER": "maybe", "KIS_TOKEN_STORE": "cupboard", "KIS_BASE_URL": "nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", READS_NOTHING],
        env={**os.environ, **bad},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.splitlines()
        == ["KIS_RETRY_WAIT='soon' is not usable: it takes a number of seconds from 0 to 60"] * 2
    )


@pytest.mark.parametrize("name", ["max_retries", "wait"])
def test_a_number_too_big_for_a_float_is_refused_like_any_other(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        RetryPolicy(**{name: 10**400})  # type: ignore[arg-type]  # some parameters are no numbers


def test_a_number_too_big_for_a_float_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_MAX_RETRIES", "1" + "0" * 400)
    with pytest.raises(ConfigurationError, match=r"^KIS_RETRY_MAX_RETRIES="):
        RetryPolicy.from_env()


@pytest.mark.parametrize("code", ["EGW0012３", "EGW００３０１"])
def test_a_code_is_made_of_ascii_digits(code: str) -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(expired_codes=(code,))
