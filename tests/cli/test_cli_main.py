"""What may be asked of `kis-retry`, how it speaks, and which exit status an outcome has."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
import requests

from kis_retry import AccessToken, ConfigurationError, FileTokenStore, KisRetryError, TokenIssueError
from kis_retry.cli import main
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway

COMMANDS = ("run", "demo", "token", "config", "gateway")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kis_retry", *words], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        *([], ["unknown"], ["run", "--unknown", "python"], ["config", "extra"], ["token", "--refresh", "--revoke"]),
        *(["demo", "--symbols", "0"], ["demo", "--threads", "2.0"], ["gateway", "--port", "a"]),
    ],
    ids=" ".join,
)
def test_wrong_use_is_status_2_and_says_so_on_stderr(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "error:" in said.err


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)], ids=" ".join)
def test_help_is_status_0_and_fits_into_80_columns(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: kis-retry")
    assert max(map(len, said.splitlines())) <= 80
    assert words or all(f"\n    {command} " in said for command in COMMANDS)


@pytest.mark.one_python
def test_the_module_exits_with_the_status_of_the_command() -> None:
    assert run("--version").stdout.startswith("kis-retry ")
    refused = run("token")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "KIS_APP_KEY and KIS_APP_SECRET are not set" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.one_python
def test_a_command_and_what_it_needs_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys; from kis_retry.cli import main; main(['--help'])\n"
        "late = ['rich', 'dotenv', 'requests', 'tenacity', 'kis_retry.testing', 'kis_retry.cli.demo']\n"
        "sys.exit(str([name for name in late if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigurationError("KIS_PAPER is odd"), 2, "KIS_PAPER is odd"),
        (TokenIssueError("KIS says no", code="EGW00103"), 1, "KIS says no"),
        (KisRetryError("two\nlines"), 1, r"two\nlines"),
        (requests.ConnectTimeout("http://name:password@host"), 1, "KIS could not be reached (ConnectTimeout)"),
        (FileNotFoundError(2, "No such file", "/secret/place"), 1, "No such file (FileNotFoundError)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_wrong_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("kis_retry.cli.config.config", fail)
    assert main(["config"]) == status
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"kis-retry: {line}\n")


@pytest.mark.one_python
def test_a_reader_that_goes_away_causes_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "kis_retry", "config"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.one_python
def test_what_a_terminal_cannot_write_and_what_moves_its_cursor_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("KIS_RETRY_WAIT", "만료")
    monkeypatch.setenv("KIS_BASE_URL", "http://host\x1b[2J")
    done = run("config")
    assert done.returncode == 2
    assert r"KIS_RETRY_WAIT='\ub9cc\ub8cc' is not usable" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


# -- a key, a secret, an account, a password and a token are planted, and no command ever shows one

ACCOUNT, PASSWORD, TOKEN, FOLDER = "87654321-99", "planted-password", "planted-token-value", "./store"


@pytest.fixture
def planted(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> KisGateway:
    """The environment of a user whose store holds a token."""
    keys = gateway.credentials
    names = {"APP_KEY": keys.app_key, "APP_SECRET": keys.app_secret, "ACCOUNT_NO": ACCOUNT, "BASE_URL": gateway.url}
    for name, value in {**names, "RETRY_ISSUE_WAIT": "0"}.items():
        monkeypatch.setenv(f"KIS_{name}", value)
    FileTokenStore(FOLDER).save(key_of(keys), AccessToken(TOKEN, datetime.now(timezone.utc) + timedelta(hours=1)))
    return gateway


SHOWING = [["config"], ["config", "--json"], ["token"], ["token", "--refresh"], ["token", "--revoke"], ["run", "none"]]
STORES = {
    "a folder": FOLDER,
    "Redis that is away": f"redis://name:{PASSWORD}@127.0.0.1:1/0",
    "an option of Redis": f"redis://127.0.0.1:1/0?password={PASSWORD}",
}


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("words", SHOWING, ids=" ".join)
def test_no_command_shows_a_secret(
    words: list[str],
    store: str,
    planted: KisGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", store)
    main(words)
    said, keys = "".join(capsys.readouterr()), planted.credentials
    secrets = [keys.app_key, keys.app_secret, ACCOUNT, PASSWORD, TOKEN, planted.current_token or TOKEN]
    assert said
    assert [secret for secret in secrets if secret in said] == []
