"""Settings from the environment and from `.env`: which file counts, what it may say, what becomes of a bad value."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kis_retry import ConfigurationError, Credentials, RetryPolicy
from kis_retry.credentials import REAL_URL
from kis_retry.settings import Environment, boolean, without_password

KEY, SECRET, PASSWORD = "PSappkey0123", "c2VjcmV0LXNlY3JldA", "hunter2hunter2"
STRANGER = 65_501
EVIL = "https://evil.example"
KEYS = f"KIS_APP_KEY={KEY}\nKIS_APP_SECRET={SECRET}\n"
LINES = f"{KEYS}KIS_BASE_URL={EVIL}\nKIS_RETRY_WAIT=7\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner")


@pytest.fixture
def above() -> Path:
    """A folder above the working directory, empty as the environment is."""
    return Path.cwd()


@pytest.fixture
def below(above: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    folder = above / "batch" / "daily"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


# -- where a setting comes from


def test_the_nearest_dotenv_file_is_read_and_the_environment_wins_and_stays_as_it_is(
    above: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (above / ".env").write_text(f"{KEYS}KIS_RETRY_WAIT=7\nKIS_RETRY_MAX_RETRIES=2\n")
    monkeypatch.setenv("KIS_RETRY_WAIT", "3")
    before = dict(os.environ)
    assert Credentials.from_env() == Credentials(KEY, SECRET)
    assert RetryPolicy.from_env() == RetryPolicy(wait=3, max_retries=2)
    (below / ".env").write_text("KIS_RETRY_ISSUE_WAIT=8\n")
    assert RetryPolicy.from_env() == RetryPolicy(wait=3, issue_wait=8), "the nearest alone"
    assert dict(os.environ) == before


def test_a_blank_counts_as_unset_and_hides_a_line_of_the_dotenv_file(
    above: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (above / ".env").write_text("KIS_RETRY_WAIT=7\nKIS_RETRY_ISSUE_WAIT=\nKIS_RETRY_MAX_RETRIES\nKIS_PAPER=''\n")
    monkeypatch.setenv("KIS_RETRY_WAIT", "  ")
    assert RetryPolicy.from_env() == RetryPolicy()
    assert Environment().find("KIS_PAPER") is None


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', ' "{}" ', "' {} '"])
def test_quotes_around_a_value_are_taken_off(quoted: str, above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", quoted.format(KEY))  # as Docker's --env-file leaves them
    (above / ".env").write_text(f"KIS_APP_SECRET={quoted.format(SECRET)}\n")
    assert Credentials.from_env() == Credentials(KEY, SECRET)


@pytest.mark.parametrize("text", ['x"y', "'x", 'x"', "it's"])
def test_a_lone_or_inner_quote_belongs_to_the_value(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", text)
    assert Environment().read(str, "", "KIS_APP_KEY") == text


@pytest.mark.parametrize(("line", "wait"), [("x=1", "7.0"), ("KIS_RETRY_WAIT=1", "1.0")])
def test_a_script_that_cron_starts_finds_the_dotenv_file_beside_it(
    line: str, wait: str, above: Path, tmp_path: Path
) -> None:
    script = tmp_path / "jobs" / "daily" / "batch.py"
    script.parent.mkdir(parents=True)
    script.write_text("from kis_retry import RetryPolicy; print(RetryPolicy.from_env().wait)")
    (tmp_path / "jobs" / ".env").write_text("KIS_RETRY_WAIT=7\n")
    if line != "x=1":  # the working directory's goes first
        (above / ".env").write_text(line)
    assert subprocess.check_output([sys.executable, script], text=True, timeout=60).split() == [wait]


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_nothing_in_a_dotenv_file_is_expanded(quote: str, above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOREA_INVESTMENT_API_KEY", "the-users-own-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-users-own-secret")
    (above / ".env").write_text(
        f"KIS_APP_KEY={quote}${{KOREA_INVESTMENT_API_KEY}}{quote}\n"
        f"KIS_APP_SECRET={quote}a${{AWS_SECRET_ACCESS_KEY}}$HOME{quote}\nKIS_BASE_URL=http://127.0.0.1:9\n"
    )
    credentials = Credentials.from_env()
    assert credentials.app_key == "${KOREA_INVESTMENT_API_KEY}"
    assert credentials.app_secret == "a${AWS_SECRET_ACCESS_KEY}$HOME", "a secret may hold such a text"


# -- which file counts


def planted(path: Path, *, mode: int | None = None, folder: int | None = None) -> None:
    path.write_text(LINES)
    if mode is not None:
        path.chmod(mode)
    if folder is not None:
        path.parent.chmod(folder)


def a_strangers(path: Path) -> None:
    planted(path)
    os.chown(path, STRANGER, STRANGER)


def in_a_strangers_folder(path: Path) -> None:
    planted(path)
    os.chown(path.parent, STRANGER, STRANGER)


def a_strangers_link(path: Path) -> None:
    planted(path.parent / "real")
    path.symlink_to("real")
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def in_a_groups_folder(path: Path) -> None:
    os.chown(path.parent, -1, STRANGER)
    planted(path, folder=0o775)


def a_link_into_an_open_folder(path: Path) -> None:
    (path.parent / "open").mkdir()
    planted(path.parent / "open" / "real", folder=0o1777)
    path.symlink_to("open/real")


PLANTED: list[Any] = [
    pytest.param(a_strangers, "another user", marks=needs_root),
    pytest.param(in_a_strangers_folder, "others may write to its folder", marks=needs_root),
    pytest.param(a_strangers_link, "another user", marks=needs_root),
    pytest.param(in_a_groups_folder, "others may write to its folder", marks=needs_root),
    (a_link_into_an_open_folder, "others may write to its folder"),
    (lambda path: planted(path, folder=0o1777), "others may write to its folder"),
    (lambda path: planted(path, mode=0o666), "others may write it"),
    (os.mkfifo, "no regular file"),
    (Path.mkdir, "no regular file"),
    (lambda path: path.symlink_to(path), "a link to nothing"),
]


@pytest.mark.parametrize(("plant", "reason"), PLANTED)
def test_a_planted_file_counts_for_nothing_and_is_one_warning_with_path_and_reason(
    above: Path, below: Path, plant: Callable[[Path], None], reason: str, monkeypatch: Any, caplog: Any
) -> None:
    plant(above / ".env")
    monkeypatch.setenv("KIS_APP_KEY", KEY)
    monkeypatch.setenv("KIS_APP_SECRET", SECRET)
    assert Credentials.from_env() == Credentials(KEY, SECRET, base_url=REAL_URL)
    assert RetryPolicy.from_env() == RetryPolicy()
    (message,) = caplog.messages
    assert message.startswith(f"kis_retry.env_file_ignored path={above / '.env'} ")
    assert reason in message


def test_a_file_that_does_not_count_hides_none_further_up_and_a_link_to_an_own_one_counts(
    above: Path, below: Path
) -> None:
    (above / "real").write_text("KIS_RETRY_WAIT=7\n")
    (above / ".env").symlink_to("real")
    (below / ".env").mkdir()
    assert RetryPolicy.from_env().wait == 7
    environment = Environment()
    assert environment.env_file == above / ".env"
    assert [path for path, _ in environment.ignored] == [below / ".env"]


@needs_root
def test_a_file_of_root_counts_for_another_user(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (below / ".env").write_text("KIS_RETRY_WAIT=7\n")
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert Environment().env_file == below / ".env"


@pytest.mark.parametrize(
    ("name", "members", "primary", "counts"),
    [
        ("me", [], True, True),
        ("me", ["me", "other"], True, False),
        ("staff", [], True, False),
        ("me", [], False, False),
        (None, [], True, False),
    ],
)
@needs_root
def test_a_group_of_this_user_alone_is_no_stranger(
    *, below: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, members: list[str], primary: bool, counts: bool
) -> None:
    (below / ".env").write_text("KIS_RETRY_WAIT=7\n")
    os.chown(below, -1, 4321)
    below.chmod(0o775)

    def group(gid: int) -> grp.struct_group:
        if name is None:
            raise KeyError(gid)
        return grp.struct_group((name, "x", gid, members))

    monkeypatch.setattr(grp, "getgrgid", group)
    me = pwd.struct_passwd(("me", "x", os.geteuid(), 4321 if primary else 1, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: me)
    assert (Environment().env_file == below / ".env") is counts


# -- a host and a store count only beside their own key and secret


@pytest.mark.parametrize(
    ("environment", "file", "together"),
    [
        ({}, KEYS, True),
        ({"KIS_APP_KEY": KEY, "KIS_APP_SECRET": SECRET}, "", False),
        ({"KIS_APP_KEY": KEY}, f"KIS_APP_SECRET={SECRET}\n", False),
        ({"KIS_APP_KEY": KEY, "KIS_APP_SECRET": SECRET}, "KIS_APP_KEY=other\nKIS_APP_SECRET=other\n", False),
    ],
)
def test_host_and_store_count_only_beside_the_key_and_secret_in_force(
    *, below: Path, monkeypatch: Any, environment: dict[str, str], file: str, together: bool, caplog: Any
) -> None:
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    (below / ".env").write_text(f"{file}KIS_BASE_URL={EVIL}\nKIS_TOKEN_STORE=memory\nKIS_RETRY_WAIT=7\n")
    assert Credentials.from_env() == Credentials(KEY, SECRET, base_url=EVIL if together else REAL_URL)
    found = Environment()
    assert (found.find("KIS_TOKEN_STORE") is not None) is together
    assert found.find("KIS_TOKEN_STORE", "KIS_RETRY_WAIT") is not None, "the rest counts all the same"
    said = " ".join(caplog.messages)
    assert (EVIL in said, KEY in said, SECRET in said) == (False, False, False)
    assert all((name in said and str(below) in said) is not together for name in ("KIS_BASE_URL", "KIS_TOKEN_STORE"))


# -- errors


def test_a_file_that_is_no_text_is_an_error_that_names_it_and_shows_nothing_of_it(below: Path) -> None:
    (below / ".env").write_bytes(b"KIS_APP_SECRET=" + SECRET.encode() + b"\xff\xfe\n")
    with pytest.raises(ConfigurationError, match=rf"^the \.env file {below / '.env'} cannot be read") as caught:
        RetryPolicy.from_env()
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_bad_value_is_named_with_what_it_takes_and_keeps_no_text(above: Path) -> None:
    (above / ".env").write_text(f"{KEYS}KIS_BASE_URL=ftp://somebody:{PASSWORD}@proxy.example/\n")
    with pytest.raises(ConfigurationError, match=r"^KIS_BASE_URL='ftp://\*\*\*@proxy.example/' .*http://") as caught:
        Credentials.from_env()
    assert caught.value.__context__ is None


def test_what_is_not_set_says_where_it_was_looked_for(above: Path, below: Path) -> None:
    assert Environment().where() == f"neither in the environment nor in a .env file at or above {below}"
    (below / ".env").mkdir()
    assert Environment().where().endswith(f"; {below / '.env'} is ignored: it is no regular file")
    (above / ".env").write_text("x=1\n")
    assert Environment().where().startswith(f"neither in the environment nor in {above / '.env'}")


def test_variables_that_nobody_knows_are_named(above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KIS_RETRY_WAIT", "KIS_RETRY_MAXRETRIES", "KIS_APP_KEYS", "MY_KIS_RETRY_X"):
        monkeypatch.setenv(name, "1")
    (above / ".env").write_text("KIS_RETRY_WAITS=1\nKIS_RETRY_MAXRETRIES=1\n")
    assert Environment().unknown(["KIS_RETRY_WAIT"]) == ["KIS_RETRY_MAXRETRIES", "KIS_RETRY_WAITS"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:{}@h/0", "redis://***@h/0"),
        ("redis://u:a@{}@h/0?ssl=1&password={}", "redis://***@h/0?***"),
        ("redis+sentinel://h/0?password={}", "redis+sentinel://h/0?***"),
        ("redis://h/0?password=a@{}", "redis://***"),
        ("h?password=a:{}", "h?***"),
        ("redis:u:{}@h//x?{}", "***@h//x?***"),
        ("7", "7"),
    ],
)
def test_an_address_is_shown_without_its_password(text: str, shown: str) -> None:
    found = without_password(text.replace("{}", PASSWORD))
    assert found == shown
    assert PASSWORD not in found


def test_a_boolean_is_one_of_twelve_words() -> None:
    for text, value in (("1 true t yes y on", True), ("0 false f no n off", False)):
        assert {boolean(word.upper()) for word in text.split()} == {value}
    with pytest.raises(ValueError, match="not a boolean"):
        boolean("maybe")
