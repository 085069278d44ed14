"""`kis-retry config`: which value is in force, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kis_retry.cli import main
from kis_retry.token import fingerprint

REAL, PAPER = "https://openapi.koreainvestment.com:9443", "https://openapivts.koreainvestment.com:29443"

DEFAULTS = {
    "KIS_APP_KEY": None,
    "KIS_APP_SECRET": None,
    "KIS_ACCOUNT_NO": None,
    "KIS_PAPER": "false",
    "KIS_BASE_URL": REAL,
    "KIS_TOKEN_STORE": "file",
    "KIS_RATE_LIMIT": "18",
    "KIS_RETRY_ENABLED": "true",
    "KIS_RETRY_MAX_RETRIES": "1",
    "KIS_RETRY_WAIT": "0",
    "KIS_RETRY_REFRESH_MARGIN": "600",
    "KIS_RETRY_ISSUE_TIMEOUT": "10",
    "KIS_RETRY_ISSUE_WAIT": "70",
    "KIS_RETRY_ISSUE_COOLDOWN": "60",
    "KIS_RETRY_TRANSIENT_DEADLINE": "60",
    "KIS_RETRY_ORDER_DEADLINE": "5",
    "KIS_RETRY_ORDER_HOLD": "60",
    "KIS_RETRY_EXPIRED_CODES": "EGW00121,EGW00122,EGW00123",
}


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["config", "--json"]) == 0
    return {row["variable"]: row for row in json.loads(capsys.readouterr().out)["settings"]}


@pytest.fixture(autouse=True)
def no_rate_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIS_RATE_LIMIT")


def test_nothing_set_shows_every_default_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys)
    assert {name: row["value"] for name, row in found.items()} == DEFAULTS
    assert {row["origin"] for row in found.values()} == {"default"}
    assert main(["config"]) == 0
    heading, *lines, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["variable", "value", "from"]
    assert lines[0].split() == ["KIS_APP_KEY", "not", "set", "default"]
    assert last.startswith(".env file: none")
    assert str(Path.cwd()) in last, "where was looked"
    assert max(map(len, lines)) <= 80


def test_a_value_of_the_environment_is_shown_as_it_is_understood(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_PAPER", "YES")
    found = rows(capsys)
    assert [found[name]["value"] for name in ("KIS_PAPER", "KIS_BASE_URL", "KIS_RATE_LIMIT")] == ["true", PAPER, "1"]
    understood = {
        "KIS_BASE_URL": ("http://127.0.0.1:1234/", "http://127.0.0.1:1234"),
        "KIS_RETRY_EXPIRED_CODES": ("egw00123", "EGW00123"),
        "KIS_RATE_LIMIT": ("2.50", "2.5"),
    }
    for variable, (text, _) in understood.items():
        monkeypatch.setenv(variable, text)
    found = rows(capsys)
    for variable, (_, shown) in understood.items():
        assert (found[variable]["value"], found[variable]["origin"]) == (shown, "environment")


def test_the_place_where_a_value_was_found_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOREA_INVESTMENT_API_KEY", "another-key")
    Path(".env").write_text("KIS_RETRY_WAIT=3\nKIS_RETRY_MAX_RETRIES=4\n", "utf-8")
    monkeypatch.setenv("KIS_RETRY_MAX_RETRIES", "2")
    found = rows(capsys)
    assert (found["KIS_RETRY_WAIT"]["value"], found["KIS_RETRY_WAIT"]["origin"]) == ("3", ".env")
    assert (found["KIS_RETRY_MAX_RETRIES"]["value"], found["KIS_RETRY_MAX_RETRIES"]["origin"]) == ("2", "environment")
    assert found["KIS_APP_KEY"]["value"] == fingerprint("another-key")
    assert found["KIS_APP_KEY"]["origin"] == "environment, KOREA_INVESTMENT_API_KEY"
    main(["config"])
    assert capsys.readouterr().out.splitlines()[-1] == f".env file: {Path.cwd() / '.env'}"


def test_what_does_not_count_of_an_env_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").mkdir()
    (Path.cwd().parent / ".env").write_text("KIS_BASE_URL=https://evil.example\nKIS_RETRY_WAITS=4\n")
    assert main(["config", "--json"]) == 0
    shown, said = capsys.readouterr()
    assert json.loads(shown)["unknown"] == ["KIS_RETRY_WAITS"]
    assert "KIS_RETRY_WAITS is no variable of kis-retry" in said
    assert f"{Path.cwd() / '.env'} is ignored: it is no regular file" in said
    assert f"{Path.cwd().parent / '.env'} is ignored: KIS_BASE_URL counts only beside" in said
    assert "evil.example" not in shown + said


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("KIS_PAPER", "maybe", "KIS_PAPER='maybe' is not usable: it takes true or false"),
        ("KIS_BASE_URL", "example", "KIS_BASE_URL"),
        ("KIS_TOKEN_STORE", "ftp://name:pass-word@host", "KIS_TOKEN_STORE='ftp://"),
        ("KIS_ACCOUNT_NO", "planted", "KIS_ACCOUNT_NO"),
        ("KIS_RETRY_EXPIRED_CODES", "EGW00301", "KIS_RETRY_EXPIRED_CODES='EGW00301' is not usable"),
        ("KIS_RATE_LIMIT", "fast", "KIS_RATE_LIMIT='fast' is not usable"),
        ("KIS_APP_KEY", "planted\tkey", "KIS_APP_KEY"),
    ],
)
def test_a_bad_value_is_status_2_and_explained(
    variable: str, text: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert main(["config"]) == 2, "and the rest is shown"
    heard = capsys.readouterr()
    assert said in heard.err
    (row,) = [line for line in heard.out.splitlines() if line.startswith(variable)]
    assert "not usable" in row
    assert "planted" not in heard.out + heard.err
    assert "pass-word" not in heard.out + heard.err
