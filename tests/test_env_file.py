"""Which `.env` file counts, and what it may say."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kis_retry import ConfigurationError, Credentials, FileTokenStore, MemoryTokenStore, RetryPolicy
from kis_retry import settings as settings_module
from kis_retry.credentials import REAL_URL
from kis_retry.env_file import find_env_file
from kis_retry.stores.from_env import store_from_env

if TYPE_CHECKING:
    from collections.abc import Callable

KEY, SECRET = "PSappkey0123", "c2VjcmV0LXNlY3JldA"
STRANGER = 65_501
EVIL = "https://evil.example"
LINES = f"KIS_APP_KEY={KEY}\nKIS_APP_SECRET={SECRET}\nKIS_BASE_URL={EVIL}\nKIS_TOKEN_STORE=memory\nKIS_RETRY_WAIT=7\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner")


@pytest.fixture(autouse=True)
def _nothing_warned_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "_warned", set())


@pytest.fixture
def above() -> Path:
    """A folder above the working directory."""
    return Path.cwd()


@pytest.fixture
def below(above: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    folder = above / "batch" / "daily"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", KEY)
    monkeypatch.setenv("KIS_APP_SECRET", SECRET)


def plant_file_of_a_stranger(path: Path) -> None:
    path.write_text(LINES)
    os.chown(path, STRANGER, STRANGER)


def plant_folder_of_a_stranger(path: Path) -> None:
    path.write_text(LINES)
    os.chown(path.parent, STRANGER, STRANGER)


def plant_link_of_a_stranger(path: Path) -> None:
    (path.parent / "real").write_text(LINES)
    path.symlink_to("real")
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def plant_link_to_a_file_of_a_stranger(path: Path) -> None:
    plant_file_of_a_stranger(path.parent / "real")
    path.symlink_to("real")


def plant_link_into_an_open_folder(path: Path) -> None:
    real = path.parent / "open" / "real"
    real.parent.mkdir()
    real.parent.chmod(0o1777)
    real.write_text(LINES)
    path.symlink_to(real)


def plant_in_an_open_folder(path: Path) -> None:
    path.write_text(LINES)
    path.parent.chmod(0o777)


def plant_in_a_sticky_folder(path: Path) -> None:
    path.write_text(LINES)
    path.parent.chmod(0o1777)


def plant_in_a_folder_of_a_group(path: Path) -> None:
    path.write_text(LINES)
    os.chown(path.parent, -1, STRANGER)
    path.parent.chmod(0o775)


def plant_open_file(path: Path) -> None:
    path.write_text(LINES)
    path.chmod(0o666)


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.parent / "fifo")
    path.symlink_to("fifo")


def plant_folder(path: Path) -> None:
    path.mkdir()


def plant_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def plant_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def plant_loop(path: Path) -> None:
    path.symlink_to(path)


PLANTED = [
    pytest.param(plant_file_of_a_stranger, "another user", marks=needs_root),
    pytest.param(plant_folder_of_a_stranger, "others may write to its folder", marks=needs_root),
    pytest.param(plant_link_of_a_stranger, "another user", marks=needs_root),
    pytest.param(plant_link_to_a_file_of_a_stranger, "another user", marks=needs_root),
    pytest.param(plant_in_a_folder_of_a_group, "others may write to its folder", marks=needs_root),
    (plant_link_into_an_open_folder, "others may write to its folder"),
    (plant_in_an_open_folder, "others may write to its folder"),
    (plant_in_a_sticky_folder, "others may write to its folder"),
    (plant_open_file, "others may write it"),
    (plant_fifo, "no regular file"),
    (plant_link_to_a_fifo, "no regular file"),
    (plant_folder, "no regular file"),
    (plant_device_link, "no regular file"),
    (plant_loop, "a link to nothing"),
    (plant_link_to_nothing, "a link to nothing"),
]


@pytest.mark.parametrize(("plant", "reason"), PLANTED)
@pytest.mark.usefixtures("_keys")
def test_a_planted_file_counts_for_nothing_and_is_one_warning_with_path_and_reason(
    above: Path, below: Path, plant: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    plant(above / ".env")
    with caplog.at_level(logging.WARNING, "kis_retry"):
        assert Credentials.from_env() == Credentials(KEY, SECRET, base_url=REAL_URL)
        assert isinstance(store_from_env(), FileTokenStore)
        assert RetryPolicy.from_env() == RetryPolicy()
    (message,) = caplog.messages
    assert message.startswith(f"kis_retry.env_file_ignored path={above / '.env'} ")
    assert reason in message


def test_one_that_does_not_count_does_not_hide_one_further_up(above: Path, below: Path) -> None:
    (above / ".env").write_text("KIS_RETRY_WAIT=7\n")
    (below / ".env").mkdir()
    assert RetryPolicy.from_env().wait == 7


def test_a_link_to_an_own_file_counts(above: Path, below: Path) -> None:
    (above / "real").write_text("KIS_RETRY_WAIT=7\n")
    (below / ".env").symlink_to(above / "real")
    assert RetryPolicy.from_env().wait == 7
    assert find_env_file(below).path == below / ".env"


@needs_root
def test_a_file_of_root_counts_for_another_user(above: Path, below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (below / ".env").write_text("KIS_RETRY_WAIT=7\n")
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert find_env_file(below).path == below / ".env"


@pytest.mark.parametrize(
    ("name", "members", "primary", "counts"),
    [
        ("me", [], True, True),
        ("me", ["me"], True, True),
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
    assert (find_env_file(below).path == below / ".env") is counts


@pytest.mark.parametrize(
    ("environment", "file", "together"),
    [
        ({}, f"KIS_APP_KEY={KEY}\nKIS_APP_SECRET={SECRET}\n", True),
        ({}, f"KOREA_INVESTMENT_API_KEY={KEY}\nKOREA_INVESTMENT_API_SECRET={SECRET}\n", True),
        ({"KIS_APP_KEY": KEY, "KIS_APP_SECRET": SECRET}, "", False),
        ({"KIS_APP_KEY": KEY}, f"KIS_APP_SECRET={SECRET}\n", False),
        ({"KIS_APP_SECRET": SECRET}, f"KIS_APP_KEY={KEY}\n", False),
        ({"KIS_APP_KEY": KEY, "KIS_APP_SECRET": SECRET}, "KIS_APP_KEY=other\nKIS_APP_SECRET=other\n", False),
        ({"KOREA_INVESTMENT_API_SECRET": SECRET}, f"KIS_APP_KEY={KEY}\n", False),
    ],
)
def test_host_and_store_count_only_beside_the_key_and_secret_in_force(
    *,
    below: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    file: str,
    together: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    (below / ".env").write_text(f"{file}KIS_BASE_URL={EVIL}\nKIS_TOKEN_STORE=memory\nKIS_RETRY_WAIT=7\n")
    with caplog.at_level(logging.WARNING, "kis_retry"):
        assert Credentials.from_env() == Credentials(KEY, SECRET, base_url=EVIL if together else REAL_URL)
        assert isinstance(store_from_env(), MemoryTokenStore if together else FileTokenStore)
        store_from_env()
    assert RetryPolicy.from_env().wait == 7, "the rest counts all the same"
    said = " ".join(caplog.messages)
    assert len(caplog.messages) == (0 if together else 2)
    assert (EVIL in said, KEY in said, SECRET in said) == (False, False, False)
    assert all(name in said and str(below) in said for name in ("KIS_BASE_URL", "KIS_TOKEN_STORE") if not together)


def test_host_and_store_of_the_environment_need_nothing_beside_them(
    below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (below / ".env").write_text(f"KIS_APP_KEY={KEY}\nKIS_APP_SECRET={SECRET}\n")
    monkeypatch.setenv("KIS_BASE_URL", "https://proxy.example")
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    assert Credentials.from_env().base_url == "https://proxy.example"
    assert isinstance(store_from_env(), MemoryTokenStore)


@pytest.mark.one_python
def test_a_secret_of_the_real_environment_never_goes_to_a_planted_host(above: Path, below: Path) -> None:
    """As a process of its own, with a FIFO of that name on the way up as well."""
    (above / ".env").write_text(f"KIS_BASE_URL={EVIL}\nKIS_TOKEN_STORE=./stolen\n")
    (above / "batch").chmod(0o777)
    os.mkfifo(below / ".env")
    code = "from kis_retry import TokenManager as T; m = T.from_env(); print(m.credentials.base_url, m.store)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KIS_APP_KEY": KEY, "KIS_APP_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(f"{REAL_URL} FileTokenStore(")
    assert "stolen" not in done.stdout


def test_an_error_about_a_file_names_its_path(below: Path) -> None:
    (below / ".env").write_bytes(b"KIS_APP_SECRET=\xff\xfe\n")
    with pytest.raises(ConfigurationError, match=str(below / ".env")):
        RetryPolicy.from_env()
