"""The table of environment variables is the code's: names, defaults, ranges and units."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import kis_retry
from kis_retry import Credentials, RetryPolicy
from kis_retry.policy import variable_of
from kis_retry.settings import CREDENTIAL_VARIABLES
from kis_retry.stores.from_env import STORE_VARIABLE, store_from_env, store_named
from pages import LANGUAGES, TEXTS, Row, environment_of

PACKAGE = Path(kis_retry.__path__[0])

every_table = pytest.mark.parametrize(
    "rows",
    [environment_of(TEXTS[f"docs/{language}/environment.md"]) for language in LANGUAGES],
    ids=LANGUAGES,
)


@every_table
def test_it_has_every_variable_that_is_read(rows: list[Row]) -> None:
    listed = [variable for row in rows for variable in row.variables]
    source = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    in_source = set(re.findall(r"\bKIS_[A-Z_]*[A-Z]\b(?!_)", source)) - {"KIS_RETRY"}
    assert len(listed) == len(set(listed))
    assert set(listed) == in_source | {variable_of(spec.name) for spec in fields(RetryPolicy)}


@every_table
def test_it_has_the_defaults_of_the_code(rows: list[Row]) -> None:
    defaults = {variable: row.default for row in rows for variable in row.variables}
    for spec in fields(RetryPolicy):
        assert defaults[variable_of(spec.name)] == as_written(spec.default)
    assert defaults["KIS_PAPER"] == as_written(Credentials("key", "secret").paper)
    assert repr(store_named(defaults[STORE_VARIABLE])) == repr(store_from_env())
    assert "`KIS_PAPER`" in defaults["KIS_BASE_URL"]
    assert [defaults[ours] for ours, _ in CREDENTIAL_VARIABLES.values()] == ["", "", ""]


def as_written(value: object) -> str:
    """A value as one writes it into the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else f"{value:g}"


@every_table
def test_it_has_the_ranges_and_units_of_the_code(rows: list[Row]) -> None:
    takes = {variable: row.takes for row in rows for variable in row.variables}
    for spec in fields(RetryPolicy):
        if isinstance(spec.default, (bool, tuple)):
            continue
        said = takes[variable_of(spec.name)]
        numbers = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", said)]
        assert {float(spec.metadata["low"]), float(spec.metadata["high"])} <= set(numbers)
        assert bool(re.search(r"\bseconds\b|초", said)) == (spec.name != "max_retries")


@every_table
def test_it_has_the_names_that_people_have_set_already(rows: list[Row]) -> None:
    takes = {variable: row.takes for row in rows for variable in row.variables}
    for ours, theirs in CREDENTIAL_VARIABLES.values():
        assert f"`{theirs}`" in takes[ours]


@every_table
def test_every_value_that_it_gives_for_the_store_is_taken(rows: list[Row]) -> None:
    (said,) = [row.takes for row in rows if STORE_VARIABLE in row.variables]
    values = [value for value in re.findall(r"`([^`]+)`", said) if len(value) > 1]
    assert {"file", "memory"} < set(values)
    for value in values:
        store_named(value.replace("…", "127.0.0.1:6379/0"))
