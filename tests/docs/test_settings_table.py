"""The table of environment variables is the code's: names, defaults, ranges and units."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from kis_retry import RetryPolicy
from kis_retry.cli import main
from kis_retry.policy import variable_of
from kis_retry.settings import credential_variables
from kis_retry.stores.entry import STORE_VARIABLE, store_named
from pages import LANGUAGES, TEXTS, Row, environment_of

every_table = pytest.mark.parametrize(
    "rows", [environment_of(TEXTS[f"docs/{language}/environment.md"]) for language in LANGUAGES], ids=LANGUAGES
)


@every_table
def test_it_has_the_variables_and_defaults_that_the_program_shows(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {variable: row.default for row in rows for variable in row.variables}
    monkeypatch.chdir(tmp_path)
    for name in (*listed, "KOREA_INVESTMENT_API_KEY", "KOREA_INVESTMENT_API_SECRET", "KOREA_INVESTMENT_ACCOUNT_NO"):
        monkeypatch.delenv(name, raising=False)
    assert main(["config", "--json"]) == 0
    shown = {row["variable"]: row["value"] or "" for row in json.loads(capsys.readouterr().out)["settings"]}
    assert listed.keys() == shown.keys()
    assert "`KIS_PAPER`" in listed.pop("KIS_BASE_URL")
    for variable, default in listed.items():
        assert shown[variable] == default or f"`{shown[variable]}`," in default


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
def test_it_has_other_names_of_the_credentials_and_values_that_the_store_takes(rows: list[Row]) -> None:
    takes = {variable: row.takes for row in rows for variable in row.variables}
    assert all(f"`{theirs}`" in takes[ours] for ours, theirs in credential_variables().values())
    values = [value for value in re.findall(r"`([^`]+)`", takes[STORE_VARIABLE]) if len(value) > 1]
    assert {"file", "memory"} < set(values)
    for value in values:
        store_named(value.replace("…", "127.0.0.1:6379/0"))
