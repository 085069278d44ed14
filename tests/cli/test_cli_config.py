"""`kis-retry config`: which value is in force, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kis_retry.cli import config, main, output
from kis_retry.credentials import PAPER_URL, REAL_URL
from kis_retry.token import fingerprint

VARIABLES = {
    "KIS_APP_KEY": None,
    "KIS_APP_SECRET": None,
    "KIS_ACCOUNT_NO": None,
    "KIS_PAPER": "false",
    "KIS_BASE_URL": REAL_URL,
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
    "KIS_RETRY_EXPIRED_CODES": "EGW00121,EGW00122,EGW00123",
}


def ask(capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, dict[str, Any]]:
    assert main(["config", "--json"]) == status
    (line,) = capsys.readouterr().out.splitlines()
    return {row["variable"]: row for row in json.loads(line)["settings"]}


def test_nothing_set_shows_every_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIS_RATE_LIMIT")
    rows = ask(capsys)
    assert {name: row["value"] for name, row in rows.items()} == VARIABLES
    assert {name: row["default"] for name, row in rows.items()} == VARIABLES
    assert {row["origin"] for row in rows.values()} == {"default"}


def test_the_env_file_in_force_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env_file"] is None
    Path(".env").write_text("KIS_RETRY_WAIT=7\n")
    assert main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env_file"] == str(Path.cwd() / ".env")
    assert main(["config"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f".env file: {Path.cwd() / '.env'}"


def test_what_does_not_count_of_an_env_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").mkdir()
    (Path.cwd().parent / ".env").write_text("KIS_BASE_URL=https://evil.example\n")
    assert main(["config", "--json"]) == 0
    document, said = capsys.readouterr()
    assert f"{Path.cwd() / '.env'} is ignored: it is no regular file" in said
    assert f"{Path.cwd().parent / '.env'} is ignored: KIS_BASE_URL counts only beside" in said
    assert "evil.example" not in document + said


def test_the_table_has_a_line_for_each_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["variable", "value", "default", "from"]
    assert [line.split()[0] for line in lines] == list(VARIABLES)
    assert lines[0].split() == ["KIS_APP_KEY", "not", "set", "-", "default"]
    assert lines[6].split() == ["KIS_RATE_LIMIT", "0", "18", "environment"]


@pytest.mark.parametrize(
    ("variable", "text", "shown"),
    [
        ("KIS_PAPER", "YES", "true"),
        ("KIS_BASE_URL", "http://127.0.0.1:1234/", "http://127.0.0.1:1234"),
        ("KIS_TOKEN_STORE", "memory", "memory"),
        ("KIS_RETRY_ENABLED", "off", "false"),
        ("KIS_RETRY_MAX_RETRIES", "5", "5"),
        ("KIS_RETRY_WAIT", "1.50", "1.5"),
        ("KIS_RETRY_TRANSIENT_DEADLINE", "7200", "7200"),
        ("KIS_RETRY_EXPIRED_CODES", "egw00123", "EGW00123"),
        ("KIS_RATE_LIMIT", "2.50", "2.5"),
    ],
)
def test_a_value_of_the_environment_is_shown_as_it_is_understood(
    variable: str, text: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    row = ask(capsys)[variable]
    assert (row["value"], row["origin"], row["read_from"]) == (shown, "environment", variable)
    assert row["default"] == VARIABLES[variable]


def test_a_dot_env_file_is_named_as_the_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text("KIS_RETRY_WAIT=3\nKIS_RETRY_MAX_RETRIES=4\n", "utf-8")
    monkeypatch.setenv("KIS_RETRY_MAX_RETRIES", "2")
    rows = ask(capsys)
    assert (rows["KIS_RETRY_WAIT"]["value"], rows["KIS_RETRY_WAIT"]["origin"]) == ("3", ".env")
    assert (rows["KIS_RETRY_MAX_RETRIES"]["value"], rows["KIS_RETRY_MAX_RETRIES"]["origin"]) == ("2", "environment")


def test_the_fallback_name_is_shown_where_it_was_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOREA_INVESTMENT_API_KEY", "another-key")
    row = ask(capsys)["KIS_APP_KEY"]
    assert (row["value"], row["read_from"]) == (fingerprint("another-key"), "KOREA_INVESTMENT_API_KEY")
    main(["config"])
    assert "environment, KOREA_INVESTMENT_API_KEY" in capsys.readouterr().out


def test_a_blank_value_counts_as_not_set(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", "  ")
    row = ask(capsys)["KIS_APP_KEY"]
    assert (row["value"], row["origin"]) == (None, "default")


def test_host_and_pace_follow_paper_trading(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_PAPER", "1")
    monkeypatch.delenv("KIS_RATE_LIMIT")
    rows = ask(capsys)
    host, rate = rows["KIS_BASE_URL"], rows["KIS_RATE_LIMIT"]
    assert (host["value"], host["origin"]) == (PAPER_URL, "default")
    assert (rate["value"], rate["origin"]) == ("1", "default")


def test_secrets_are_fingerprints_and_the_account_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_APP_KEY", "planted-key")
    monkeypatch.setenv("KIS_APP_SECRET", "planted-secret")
    monkeypatch.setenv("KIS_ACCOUNT_NO", "12345678-01")
    rows = ask(capsys)
    assert rows["KIS_APP_KEY"]["value"] == fingerprint("planted-key")
    assert rows["KIS_APP_SECRET"]["value"] == fingerprint("planted-secret")
    assert rows["KIS_ACCOUNT_NO"]["value"] == "***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://name:pass-word@127.0.0.1:1/0", "redis://***@127.0.0.1:1/0"),
        ("rediss://127.0.0.1:1/0?password=pass-word", "rediss://127.0.0.1:1/0?***"),
    ],
)
def test_the_password_of_a_store_is_not_shown(
    text: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", text)
    assert ask(capsys)["KIS_TOKEN_STORE"]["value"] == shown


@pytest.mark.parametrize("password", ["pass-word", "pass-word/", "@pass-word"])
def test_the_password_of_a_proxy_is_not_shown(
    password: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_BASE_URL", f"https://name:{password}@example.org")
    assert ask(capsys)["KIS_BASE_URL"]["value"] == "https://***@example.org"


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("KIS_PAPER", "maybe", "KIS_PAPER='maybe' is not usable: it takes true or false"),
        ("KIS_BASE_URL", "example", "KIS_BASE_URL: base_url must begin with http:// or https://"),
        ("KIS_TOKEN_STORE", "ftp://name:pass-word@host", "KIS_TOKEN_STORE='ftp://***@host' is not usable"),
        ("KIS_RETRY_ENABLED", "perhaps", "KIS_RETRY_ENABLED='perhaps' is not usable"),
        ("KIS_RETRY_MAX_RETRIES", "6", "it takes a whole number from 0 to 5"),
        ("KIS_RETRY_WAIT", "60.1", "it takes a number of seconds from 0 to 60"),
        ("KIS_RETRY_TRANSIENT_DEADLINE", "86401", "it takes a number of seconds from 0 to 86,400"),
        ("KIS_RETRY_EXPIRED_CODES", "EGW00301", "KIS_RETRY_EXPIRED_CODES='EGW00301' is not usable"),
        ("KIS_RATE_LIMIT", "fast", "KIS_RATE_LIMIT='fast' is not usable"),
        ("KIS_APP_KEY", "planted\tkey", "KIS_APP_KEY: app_key holds a line break"),
    ],
)
def test_a_bad_value_is_status_2_and_explained(
    variable: str, text: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert main(["config"]) == 2
    heard = capsys.readouterr()
    assert said in heard.err
    (row,) = [line for line in heard.out.splitlines() if line.startswith(variable)]
    assert "not usable" in row
    assert "planted" not in heard.out + heard.err
    assert "pass-word" not in heard.out + heard.err


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (1.5, "1.5"), (600.0, "600"), (3, "3"), (("A", "B"), "A,B")]
)
def test_a_value_is_shown_as_one_would_write_it_into_the_environment(value: object, text: str) -> None:
    assert config._text(value) == text


def test_every_bad_value_is_explained_and_the_rest_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_PAPER", "maybe")
    monkeypatch.setenv("KIS_RETRY_WAIT", "soon")
    rows = ask(capsys, status=2)
    assert [name for name, row in rows.items() if row["error"]] == ["KIS_PAPER", "KIS_RETRY_WAIT"]
    assert rows["KIS_RETRY_WAIT"]["value"] is None
    assert rows["KIS_RETRY_MAX_RETRIES"]["value"] == "1"


def test_an_unreadable_dot_env_file_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_bytes(b"KIS_RETRY_WAIT=\xff\xfe\n")
    assert main(["config"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ".env" in line


def test_a_terminal_gets_a_drawn_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "drawing", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["config"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if "KIS_" in line] == list(VARIABLES)
    assert all(line.strip() for line in said.strip().splitlines()), "a line a row, and none between them"
    assert "───" in said
