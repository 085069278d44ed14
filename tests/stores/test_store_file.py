"""`FileTokenStore`: rights, planted files, faults, and locks among real processes."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import socket
import stat
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from children import in_child
from kis_retry import AccessToken, FileTokenStore
from kis_retry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "0123456789abcdef0123456789abcdef"
EXPIRY = datetime(2090, 11, 24, 9, 0, 0, tzinfo=timezone(timedelta(hours=9)))
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", EXPIRY)
LATER = AccessToken("eyJ0eXAi.later.c2ln", EXPIRY)

HOLDER = """
import sys
from kis_retry import FileTokenStore
with FileTokenStore(sys.argv[1]).lock(sys.argv[2], timeout=0, lease=60) as held:
    print(held, flush=True)
    sys.stdin.readline()
"""
CROWD = """
import os, sys
from kis_retry import FileTokenStore
with FileTokenStore(sys.argv[1]).lock(sys.argv[2], timeout=30, lease=60) as held:
    assert held
    os.mkdir(sys.argv[3])  # fails while another one is in here
    os.rmdir(sys.argv[3])
"""
FORKED_UNDER_THE_LOCK = """
import os, signal, sys
from kis_retry import FileTokenStore
with FileTokenStore(sys.argv[1]).lock(sys.argv[2], timeout=0, lease=60):
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    print("forked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(folder: Path) -> FileTokenStore:
    return FileTokenStore(folder)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a program in the folder; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(folder), KEY]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def _full_disk() -> Iterator[None]:
    """Have every file end after 20 bytes, in the middle of a write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_free(store: FileTokenStore) -> bool:
    with store.lock(KEY, timeout=0, lease=60) as held:
        return held


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- rights


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_folders_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    store = FileTokenStore(tmp_path / "a" / "b" / "c")
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=1):
        found = [mode(store.folder / f"{KEY}.json"), mode(store.folder / f"{KEY}.lock")]
    os.umask(before)
    assert found == [0o600, 0o600]
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_file_that_stood_open_is_closed_by_the_next_save(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    (folder / f"{KEY}.json").chmod(0o666)
    store.save(KEY, LATER)
    assert mode(folder / f"{KEY}.json") == 0o600


@pytest.mark.parametrize("rights", [0o755, 0o777, 0o1777, 0o2770], ids=oct)
def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path, rights: int) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    folder.chmod(rights)
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link"):
        FileTokenStore(path).save(KEY, TOKEN)
        assert is_free(FileTokenStore(path))
    assert mode(folder) == rights


def test_no_file_holds_more_than_the_token(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=1):
        assert names(folder) == [f"{KEY}.json", f"{KEY}.lock"]
    entry = json.loads((folder / f"{KEY}.json").read_text())
    assert entry == {"version": 1, "key": KEY, "access_token": TOKEN.value, "expires_at": EXPIRY.isoformat()}


@pytest.mark.parametrize("key", ["../../escape", "/etc/passwd", "..", "", "a" * 300, "토큰", "a\0b", "*"])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "place" / "cache"
    store = FileTokenStore(folder)
    store.save(key, TOKEN)
    with store.lock(key, timeout=0, lease=1) as held:
        assert held is True
    assert store.load(key) == TOKEN
    assert list(folder.parent.iterdir()) == [folder]
    store.delete(key)
    assert store.load(key) is None


# --- what stands in the place of an entry or of a lock


def plant_folder(path: Path) -> None:
    path.mkdir()


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def plant_link_loop(path: Path) -> None:
    path.symlink_to(path)


def plant_link_to_an_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def plant_socket(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as listener:
        patch.chdir(path.parent)  # the address of a Unix socket is short
        listener.bind(path.name)


PLANTS = [
    *(plant_folder, plant_fifo, plant_dangling_link, plant_link_loop, plant_link_to_an_endless_device, plant_socket)
]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("suffix", ["json", "lock"])
def test_what_is_no_file_is_a_miss_and_is_healed(
    store: FileTokenStore, folder: Path, plant: Callable[[Path], None], suffix: str
) -> None:
    folder.mkdir()
    plant(folder / f"{KEY}.{suffix}")
    assert store.load(KEY) is None
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True
        assert not is_free(store)
        store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    assert names(folder) == [f"{KEY}.json", f"{KEY}.lock"]
    assert all(stat.S_ISREG(path.lstat().st_mode) for path in folder.iterdir())


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_no_file_can_be_saved_over_and_deleted_without_a_lock(
    store: FileTokenStore, folder: Path, plant: Callable[[Path], None]
) -> None:
    folder.mkdir()
    plant(folder / f"{KEY}.json")
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    store.delete(KEY)
    plant(folder / f"{KEY}.json")
    store.delete(KEY)
    assert names(folder) == []


def test_a_link_is_neither_read_nor_written_through(store: FileTokenStore, folder: Path, tmp_path: Path) -> None:
    store.save(KEY, TOKEN)
    victim = tmp_path / "victim"
    (folder / f"{KEY}.json").rename(victim)
    before = victim.read_bytes()
    (folder / f"{KEY}.json").symlink_to(victim)
    assert store.load(KEY) is None
    store.save(KEY, LATER)
    assert victim.read_bytes() == before
    assert store.load(KEY) == LATER


def test_a_file_hard_linked_at_the_lock_keeps_its_content_and_mode(store: FileTokenStore, folder: Path) -> None:
    folder.mkdir()
    precious = folder / "precious"
    precious.write_text("content")
    precious.chmod(0o644)
    os.link(precious, folder / f"{KEY}.lock")
    assert is_free(store)
    assert (precious.read_text(), mode(precious)) == ("content", 0o644)


@pytest.mark.parametrize("suffix", ["json", "lock"])
def test_a_full_folder_in_the_way_is_an_error_and_keeps_what_is_in_it(
    store: FileTokenStore, folder: Path, suffix: str
) -> None:
    inside = folder / f"{KEY}.{suffix}" / "somebody's"
    inside.parent.mkdir(parents=True)
    inside.write_text("data")
    with pytest.raises(OSError, match="not empty"), store.lock(KEY, timeout=0, lease=1):
        pytest.fail("the body must not run")
    if suffix == "json":
        with pytest.raises(OSError, match="not empty"):
            store.save(KEY, TOKEN)
    assert inside.read_text() == "data"


def test_reading_what_is_no_file_leaves_no_descriptor_open(store: FileTokenStore, folder: Path) -> None:
    (folder / f"{KEY}.json").mkdir(parents=True)
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        assert store.load(KEY) is None
    assert len(os.listdir("/dev/fd")) == before


# --- what cannot be written or read


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for blocked in (tmp_path / "file", tmp_path / "file" / "cache", tmp_path / ("n" * 300)):
        store = FileTokenStore(blocked)
        for ask in (lambda: store.save(KEY, TOKEN), lambda: store.load(KEY), lambda: is_free(store)):
            with pytest.raises(OSError, match=r"irectory|exists|too long"):
                ask()
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.usefixtures("_full_disk")
def test_a_full_disk_is_an_error_and_keeps_the_old_entry(store: FileTokenStore, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    store.save(KEY, TOKEN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
    with pytest.raises(OSError) as caught:
        store.save(KEY, LATER)
    assert caught.value.errno == errno.EFBIG
    assert names(folder) == [f"{KEY}.json"]
    assert store.load(KEY) == TOKEN


def test_where_nothing_can_be_written_there_is_no_lock_to_be_had(store: FileTokenStore) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError), store.lock(KEY, timeout=0, lease=1):
            pytest.fail("the body must not run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert is_free(store)


def test_no_free_descriptor_is_an_error(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    assert is_free(store)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        for ask in (lambda: store.save(KEY, LATER), lambda: store.load(KEY), lambda: is_free(store)):
            with pytest.raises(OSError, match="Too many open files"):
                ask()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert names(folder) == [f"{KEY}.json", f"{KEY}.lock"]
    assert store.load(KEY) == TOKEN


def test_a_folder_that_vanished_is_made_again(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    (folder / f"{KEY}.json").unlink()
    folder.rmdir()
    assert store.load(KEY) is None
    store.delete(KEY)
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True
        store.save(KEY, LATER)
    assert store.load(KEY) == LATER


def test_what_a_killed_writer_left_is_swept_away_after_a_minute(store: FileTokenStore, folder: Path) -> None:
    folder.mkdir()
    orphan, others = f".{KEY}.abc.tmp", [f".{KEY[::-1]}.abc.tmp", f".{KEY}.txt", "notes.tmp"]
    for name in (orphan, *others):
        (folder / name).write_text("left behind")
        os.utime(folder / name, (time.time() - 30, time.time() - 30))
    store.save(KEY, TOKEN)
    assert (folder / orphan).exists(), "another process may just be writing it"
    for name in (orphan, *others):
        os.utime(folder / name, (time.time() - 61, time.time() - 61))
    store.save(KEY, TOKEN)
    assert names(folder) == sorted([*others, f"{KEY}.json"])


# --- the lock among processes


def test_another_process_holds_the_lock_alone(
    store: FileTokenStore, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = start(HOLDER)
    assert line(process) == "True\n"
    with store.lock(KEY, timeout=0.1, lease=0.1) as held:
        assert held is False, "a lease means nothing where the holder lives"
    process.communicate("done\n", timeout=30)
    assert is_free(store)


@pytest.mark.parametrize("program", [HOLDER, FORKED_UNDER_THE_LOCK], ids=["alone", "with a child that lives on"])
def test_a_killed_holder_blocks_nobody(
    store: FileTokenStore, start: Callable[[str], subprocess.Popen[str]], program: str
) -> None:
    process = start(program)
    assert line(process) in {"True\n", "forked\n"}
    if program is HOLDER:
        assert not is_free(store)
        process.kill()
    process.wait(30)
    assert is_free(store)


def test_a_crowd_of_processes_gets_the_lock_one_by_one(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CROWD, str(folder), KEY, str(tmp_path / "inside")]
    crowd = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in crowd] == [0] * 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, where some other thread is alive
def test_a_child_forked_under_the_lock_does_not_release_it(store: FileTokenStore) -> None:
    lock = store.lock(KEY, timeout=0, lease=1)
    assert lock.__enter__() is True
    assert in_child(lambda: lock.__exit__(None, None, None) is not True)
    assert not is_free(store)
    assert in_child(lambda: not is_free(store))
    lock.__exit__(None, None, None)
    assert in_child(lambda: is_free(store))
    assert is_free(store)


# --- the object


def test_the_repr_shows_the_folder(store: FileTokenStore, folder: Path) -> None:
    assert repr(store) == f"FileTokenStore({str(folder)!r})"


def test_a_pickled_store_shares_the_place(store: FileTokenStore) -> None:
    with store.lock(KEY, timeout=0, lease=1):
        copied = pickle.loads(pickle.dumps(store))
        copied.save(KEY, TOKEN)
        assert not is_free(copied)
    assert store.load(KEY) == TOKEN


def test_the_default_is_the_users_cache_folder() -> None:
    FileTokenStore().save(KEY, TOKEN)
    path = Path(os.environ["XDG_CACHE_HOME"]) / "kis_retry" / f"{KEY}.json"
    assert json.loads(path.read_text())["access_token"] == TOKEN.value


@pytest.mark.parametrize("kind", [str, Path])
def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    FileTokenStore(kind("~/cache")).save(KEY, TOKEN)
    assert (tmp_path / "cache" / f"{KEY}.json").exists()


def test_a_relative_folder_stays_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    store = FileTokenStore("cache")
    monkeypatch.chdir("/")
    store.save(KEY, TOKEN)
    assert (tmp_path / "cache" / f"{KEY}.json").exists()


@pytest.mark.parametrize("directory", ["", "  ", "a\0b", b"bytes", "~no-such-user-here/cache"])
def test_what_names_no_folder_is_a_configuration_error(directory: Any) -> None:
    with pytest.raises(ConfigurationError, match="folder"):
        FileTokenStore(directory)


def test_nothing_is_made_before_it_is_needed(store: FileTokenStore, folder: Path) -> None:
    assert store.load(KEY) is None
    store.delete(KEY)
    assert not folder.exists()


def test_what_a_lock_needs_is_loaded_before_a_thread_or_a_fork_can_come_in_between(tmp_path: Path) -> None:
    code = "import sys, kis_retry; kis_retry.FileTokenStore(sys.argv[1]); sys.exit('filelock' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
