"""`RetryPolicy`: its bounds, given directly and read from the environment."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import FrozenInstanceError, fields
from typing import Any, NamedTuple

import pytest

from kis_retry import ConfigurationError, Credentials, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.answers import CODES, EXPIRED_CODES, Meaning


class Bounds(NamedTuple):
    field: str
    default: float
    low: float
    high: float
    text: str

    @property
    def variable(self) -> str:
        return f"KIS_RETRY_{self.field.upper()}"


NUMBERS = [
    Bounds("max_retries", 1, 0, 5, "a whole number from 0 to 5"),
    Bounds("wait", 0, 0, 60, "a number of seconds from 0 to 60"),
    Bounds("refresh_margin", 600, 0, 43_200, "a number of seconds from 0 to 43,200"),
    Bounds("issue_timeout", 10, 0.1, 120, "a number of seconds from 0.1 to 120"),
    Bounds("issue_wait", 70, 0, 600, "a number of seconds from 0 to 600"),
    Bounds("issue_cooldown", 60, 0, 3_600, "a number of seconds from 0 to 3,600"),
    Bounds("transient_deadline", 60, 0, 86_400, "a number of seconds from 0 to 86,400"),
    Bounds("order_deadline", 5, 0, 3_600, "a number of seconds from 0 to 3,600"),
    Bounds("order_hold", 60, 0, 3_600, "a number of seconds from 0 to 3,600"),
]
NAMES = [spec.name for spec in fields(RetryPolicy)]
CODES_TEXT = "one or more KIS codes of the token like EGW00123"

numbers = pytest.mark.parametrize("bounds", NUMBERS, ids=[number.field for number in NUMBERS])


def policy_with(name: str, value: Any) -> RetryPolicy:
    given_fields: dict[str, Any] = {name: value}
    return RetryPolicy(**given_fields)


def from_env(prefix: str = "KIS_", **variables: str) -> RetryPolicy:
    with pytest.MonkeyPatch.context() as patch:
        for name, text in variables.items():
            patch.setenv(name, text)
        return RetryPolicy.from_env(prefix)


def assert_refused(field: str, text: str, takes: str) -> None:
    variable = f"KIS_RETRY_{field.upper()}"
    with pytest.raises(ConfigurationError) as caught:
        from_env(**{variable: text})
    assert str(caught.value).startswith(f"{variable}={text.strip()!r} ")
    assert takes in str(caught.value)


def test_the_defaults_are_those_of_the_table() -> None:
    policy = RetryPolicy()
    assert [getattr(policy, number.field) for number in NUMBERS] == [number.default for number in NUMBERS]
    assert (policy.enabled, policy.expired_codes) == (True, ("EGW00121", "EGW00122", "EGW00123"))
    assert {"enabled", "expired_codes", *(number.field for number in NUMBERS)} == set(NAMES)
    assert RetryPolicy.from_env() == policy


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
    bad: list[Any] = [math.nan, math.inf, 10**400, True, "1", None, b"1", [], 1j]
    for value in [*bad, 1.0] if bounds.field == "max_retries" else bad:
        with pytest.raises(ConfigurationError, match=f"^{bounds.field}=.*{re.escape(bounds.text)}"):
            policy_with(bounds.field, value)
    assert isinstance(RetryPolicy(wait=1).wait, float)


@pytest.mark.parametrize("value", [0, "true", None])
def test_enabled_is_a_boolean_and_nothing_like_one(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^enabled=.*true or false"):
        RetryPolicy(enabled=value)


@pytest.mark.parametrize("codes", [("EGW00123",), ["egw00123"], "EGW00123", " EGW00123 ", iter(["EGW00123"])])
def test_codes_are_kept_as_a_tuple_in_capitals(codes: Any) -> None:
    assert RetryPolicy(expired_codes=codes).expired_codes == ("EGW00123",)


@pytest.mark.parametrize("codes", [(), "", "EGW123", "EGW0012３", ("EGW00123", ""), None, 5])
def test_what_is_no_code_of_kis_is_refused(codes: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^expired_codes=.*{CODES_TEXT}"):
        RetryPolicy(expired_codes=codes)


def test_only_codes_of_the_token_count_as_expired_since_after_others_an_order_could_be_placed_twice() -> None:
    for code in [*CODES, "EGW00304", "EGW00999", "APBK0919", "OPSQ2000"]:
        if CODES.get(code) is not Meaning.EXPIRED:
            with pytest.raises(ConfigurationError, match="no code that may hide an order"):
                RetryPolicy(expired_codes=("EGW00123", code))
            assert_refused("expired_codes", f"EGW00123,{code.lower()}", "no code that may hide an order")
    assert RetryPolicy(expired_codes=(*EXPIRED_CODES, "EGW00199")).expired_codes == (*EXPIRED_CODES, "EGW00199")


def test_a_policy_is_a_frozen_value_whose_fields_are_given_by_name() -> None:
    policy = RetryPolicy(wait=2, expired_codes=("EGW00123",))
    assert policy == pickle.loads(pickle.dumps(policy)) != RetryPolicy()
    with pytest.raises(FrozenInstanceError):
        policy.wait = 1  # type: ignore[misc]  # the mistake this is about
    with pytest.raises(TypeError):
        RetryPolicy(True)  # type: ignore[call-arg]  # as above


# -- the environment


@numbers
def test_a_number_in_range_is_read_and_one_out_of_it_refused(bounds: Bounds) -> None:
    for edge in (bounds.low, bounds.high):
        assert from_env(**{bounds.variable: f" {edge}\n"}) == policy_with(bounds.field, edge)
    assert_refused(bounds.field, f"{bounds.high + 1}", bounds.text)


@numbers
def test_a_number_is_not_guessed(bounds: Bounds) -> None:
    for bad in ("1_0", "0x1", "1,0", "ten", "nan", "inf", "1" + "0" * 400):
        assert_refused(bounds.field, bad, bounds.text)
    assert_refused("max_retries", "1.0", "a whole number from 0 to 5")


def test_a_boolean_is_read_in_any_case_and_everything_else_refused() -> None:
    assert from_env(KIS_RETRY_ENABLED=" OFF ").enabled is False
    assert from_env(KIS_RETRY_ENABLED="True").enabled is True
    for text in ("01", "enabled", "예", "2"):
        assert_refused("enabled", text, "true or false")


def test_codes_are_read_separated_by_commas_and_a_bad_one_is_refused_with_name_value_and_form() -> None:
    assert from_env(KIS_RETRY_EXPIRED_CODES="egw00123, EGW00198").expired_codes == ("EGW00123", "EGW00198")
    for text in ("EGW00123,", "EGW00123;EGW00121", "123", ",", "EGW00123,만료"):
        assert_refused("expired_codes", text, CODES_TEXT)


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "''"])
def test_a_blank_variable_counts_as_unset(blank: str) -> None:
    assert from_env(**{f"KIS_RETRY_{name.upper()}": blank for name in NAMES}) == RetryPolicy()


def test_a_prefix_goes_before_the_usual_variables() -> None:
    variables = {"KIS_PAPER_RETRY_WAIT": "3", "KIS_RETRY_WAIT": "2", "KIS_RETRY_ISSUE_WAIT": "5"}
    assert from_env("KIS_PAPER_", **variables) == RetryPolicy(wait=3, issue_wait=5)
    assert from_env(**variables) == RetryPolicy(wait=2, issue_wait=5)


def test_the_environment_is_read_when_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KIS_RETRY_WAIT", "KIS_PAPER", "KIS_TOKEN_STORE", "KIS_BASE_URL"):
        monkeypatch.setenv(name, "soon")
    manager = TokenManager(Credentials("key", "secret"), store=MemoryTokenStore())
    with pytest.raises(ConfigurationError, match=r"^KIS_RETRY_WAIT='soon' is not usable: it takes a number of seconds"):
        _ = manager.policy
