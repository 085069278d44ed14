"""`FileTokenStore`: rights, faults, and locks among real processes."""

from __future__ import annotations

import contextlib
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

import filelock
import platformdirs
import pytest

from children import in_child
from kis_retry.errors import ConfigurationError
from kis_retry.stores.file import FileTokenStore
from kis_retry.token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "0123456789abcdef0123456789abcdef"
EXPIRY = datetime(2030, 11, 24, 9, 0, 0, tzinfo=timezone(timedelta(hours=9)))
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", EXPIRY)
LATER = AccessToken("eyJ0eXAi.later.c2ln", EXPIRY)

HOLDER = """
import sys, time
from kis_retry.stores.file import FileTokenStore
with FileTokenStore(sys.argv[1]).lock(sys.argv[2], timeout=0, lease=60) as held:
    print(held, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(folder: Path) -> FileTokenStore:
    return FileTokenStore(folder)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def holder(folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a process that has the lock until its standard input closes."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in {f"{KEY}.json", f"{KEY}.lock"})


# --- rights


@pytest.mark.usefixtures("_umask")
def test_folder_0700_and_files_0600_whatever_the_umask(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "not" / "there" / "yet")
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=1):
        assert mode(tmp_path / "not" / "there" / "yet" / f"{KEY}.lock") == 0o600
    assert mode(tmp_path / "not" / "there" / "yet" / f"{KEY}.json") == 0o600
    assert [mode(tmp_path / name) for name in ("not", "not/there", "not/there/yet")] == [0o700] * 3
    assert store.load(KEY) == TOKEN


def test_a_lock_file_that_somebody_removed_before_it_was_opened_is_made_0600_too(
    store: FileTokenStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(KEY, TOKEN)
    monkeypatch.setattr("kis_retry.stores.file_lock.prepare_lock_file", lambda path: None)
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True
    assert mode(folder / f"{KEY}.lock") == 0o600


def test_a_file_that_stood_open_is_closed_by_the_next_save(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    (folder / f"{KEY}.json").chmod(0o666)
    store.save(KEY, LATER)
    assert mode(folder / f"{KEY}.json") == 0o600


def test_the_temporary_file_is_0600_before_the_token_is_in_it(
    store: FileTokenStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = os.fdopen

    def fdopen(descriptor: int, *arguments: Any, **options: Any) -> Any:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return real(descriptor, *arguments, **options)

    before = os.umask(0)
    monkeypatch.setattr(os, "fdopen", fdopen)
    store.save(KEY, TOKEN)
    os.umask(before)
    assert seen == [0o600]


@pytest.mark.parametrize("touch", ["save", "lock"])
@pytest.mark.parametrize("rights", [0o755, 0o777, 0o1777, 0o2770, 0o500], ids=oct)
def test_a_folder_that_was_there_keeps_its_mode(store: FileTokenStore, folder: Path, touch: str, rights: int) -> None:
    folder.mkdir()
    folder.chmod(rights)
    with contextlib.suppress(PermissionError):  # 0500, where rights mean something
        if touch == "save":
            store.save(KEY, TOKEN)
            assert mode(folder / f"{KEY}.json") == 0o600
        else:
            with store.lock(KEY, timeout=0, lease=1):
                assert mode(folder / f"{KEY}.lock") == 0o600
    assert mode(folder) == rights


def test_a_folder_reached_through_a_link_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    FileTokenStore(tmp_path / "link").save(KEY, TOKEN)
    assert mode(tmp_path / "target") == 0o755


# --- what stands in the entry's place


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
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the address of a Unix socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


@pytest.mark.parametrize(
    "plant",
    [
        plant_folder,
        plant_fifo,
        plant_dangling_link,
        plant_link_loop,
        plant_link_to_an_endless_device,
        plant_socket,
    ],
)
def test_what_is_no_file_is_a_miss_and_is_replaced(
    store: FileTokenStore, folder: Path, plant: Callable[[Path], None]
) -> None:
    folder.mkdir()
    plant(folder / f"{KEY}.json")
    assert store.load(KEY) is None
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    assert stat.S_ISREG((folder / f"{KEY}.json").lstat().st_mode)
    assert leftovers(folder) == []


def test_a_link_in_the_place_of_the_entry_is_not_followed(store: FileTokenStore, folder: Path, tmp_path: Path) -> None:
    store.save(KEY, TOKEN)
    victim = tmp_path / "victim"
    (folder / f"{KEY}.json").rename(victim)
    before = victim.read_bytes()
    (folder / f"{KEY}.json").symlink_to(victim)
    assert store.load(KEY) is None, "an entry elsewhere is not this store's"
    store.save(KEY, LATER)
    assert victim.read_bytes() == before
    assert store.load(KEY) == LATER


def test_reading_what_is_no_file_leaves_no_descriptor_open(store: FileTokenStore, folder: Path) -> None:
    (folder / f"{KEY}.json").mkdir(parents=True)
    before = os.dup(0)
    os.close(before)
    for _ in range(5):
        assert store.load(KEY) is None
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_an_entry_that_may_not_be_read_is_a_miss_and_is_healed(
    store: FileTokenStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(KEY, TOKEN)
    (folder / f"{KEY}.json").chmod(0)
    with monkeypatch.context() as patch:
        if os.geteuid() == 0:  # whom no mode stops
            patch.setattr(os, "open", _raising(PermissionError(errno.EACCES, "unreadable")))
        assert store.load(KEY) is None
    store.save(KEY, LATER)
    assert store.load(KEY) == LATER


def test_an_entry_copied_to_another_key_is_foreign(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    other = KEY[::-1]
    (folder / f"{other}.json").write_bytes((folder / f"{KEY}.json").read_bytes())
    assert store.load(other) is None


@pytest.mark.parametrize("key", ["../../escape", "/etc/passwd", "..", "", "a" * 300, "토큰", "a\0b", "*"])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "place" / "cache"
    store = FileTokenStore(folder)
    store.save(key, TOKEN)
    assert store.load(key) == TOKEN
    with store.lock(key, timeout=0, lease=1) as held:
        assert held is True
    assert list(folder.parent.iterdir()) == [folder]
    (entry,) = folder.glob("*.json")
    assert len(entry.stem) == 32
    store.delete(key)
    assert store.load(key) is None


# --- what cannot be written or read


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for blocked in (tmp_path / "file", tmp_path / "file" / "cache", tmp_path / ("n" * 300)):
        store = FileTokenStore(blocked)
        with pytest.raises(OSError, match=r"file|too long"):
            store.save(KEY, TOKEN)
        with pytest.raises(OSError, match=r"file|too long"), store.lock(KEY, timeout=0, lease=1):
            pass
        with pytest.raises(OSError, match=r"irectory|too long"):
            store.load(KEY)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_drive_that_is_not_there_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", _raising(FileNotFoundError(errno.ENOENT, "no such drive")))
    with pytest.raises(FileNotFoundError, match="no such drive"):
        FileTokenStore("/drive/cache").save(KEY, TOKEN)


def test_a_full_disk_is_an_os_error_and_keeps_the_old_entry(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))  # as a full disk: a write ends in the middle
    try:
        with pytest.raises(OSError) as caught:
            store.save(KEY, LATER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert leftovers(folder) == []
    assert store.load(KEY) == TOKEN


def test_no_free_descriptor_is_an_os_error(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=1):
        pass
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            store.load(KEY)
        with pytest.raises(OSError, match="Too many open files"):
            store.save(KEY, LATER)
        with pytest.raises(OSError, match="Too many open files"), store.lock(KEY, timeout=0, lease=1):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert leftovers(folder) == []
    assert store.load(KEY) == TOKEN


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_failing_replace_is_an_os_error_and_leaves_no_temporary_file(
    store: FileTokenStore, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store.save(KEY, TOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _raising(OSError(code, "no")))
        with pytest.raises(OSError, match="no") as caught:
            store.save(KEY, LATER)
    assert caught.value.errno == code
    assert leftovers(folder) == []
    assert store.load(KEY) == TOKEN


def test_a_full_folder_in_the_entrys_place_is_an_os_error(store: FileTokenStore, folder: Path) -> None:
    inside = folder / f"{KEY}.json" / "somebody's"
    inside.parent.mkdir(parents=True)
    inside.write_text("data")
    with pytest.raises(OSError, match="not empty"):
        store.save(KEY, TOKEN)
    assert inside.read_text() == "data"
    assert leftovers(folder) == []


def test_a_disk_that_cannot_be_read_is_an_os_error(store: FileTokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(KEY, TOKEN)
    monkeypatch.setattr(os, "read", _raising(OSError(errno.EIO, "bad sector")))
    with pytest.raises(OSError, match="bad sector"):
        store.load(KEY)


def test_a_lock_file_that_cannot_be_opened_is_an_os_error(store: FileTokenStore, folder: Path) -> None:
    (folder / f"{KEY}.lock").mkdir(parents=True)
    with pytest.raises(OSError), store.lock(KEY, timeout=0, lease=1):
        pass


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


# --- temporary files


def test_a_writer_killed_while_writing_leaves_nothing_for_long(store: FileTokenStore, folder: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from kis_retry.stores.file import FileTokenStore\n"
        "from kis_retry.stores.codec import decode\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from datetime import datetime, timezone\n"
        "from kis_retry.token import AccessToken\n"
        f"FileTokenStore(sys.argv[1]).save({KEY!r}, AccessToken('abc', datetime.now(timezone.utc)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == -9
    (orphan,) = leftovers(folder)
    assert mode(folder / orphan) == 0o600
    store.save(KEY, TOKEN)
    assert leftovers(folder) == [orphan], "it may be another process's that is just being written"
    os.utime(folder / orphan, (time.time() - 61,) * 2)
    store.save(KEY, TOKEN)
    assert leftovers(folder) == []


def test_the_sweep_leaves_what_is_not_its_own(store: FileTokenStore, folder: Path) -> None:
    folder.mkdir()
    others = {f".{KEY[::-1]}.abc.tmp", "notes.tmp", f".{KEY}.txt"}
    for name in others:
        (folder / name).write_text("keep")
        os.utime(folder / name, (0, 0))
    store.save(KEY, TOKEN)
    assert set(leftovers(folder)) == others


# --- the lock among processes


def test_another_process_holds_the_lock_alone(
    store: FileTokenStore, holder: Callable[[], subprocess.Popen[str]]
) -> None:
    process = holder()
    with store.lock(KEY, timeout=0.1, lease=0.1) as held:
        assert held is False, "a lease means nothing where the holder lives"
    process.communicate("done\n", timeout=30)
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True


def test_a_killed_holder_blocks_nobody(store: FileTokenStore, holder: Callable[[], subprocess.Popen[str]]) -> None:
    process = holder()
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is False
    process.kill()
    process.wait(30)
    with store.lock(KEY, timeout=0, lease=60) as held:
        assert held is True


def test_a_crowd_of_processes_gets_the_lock_one_by_one(folder: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from kis_retry.stores.file import FileTokenStore\n"
        f"with FileTokenStore(sys.argv[1]).lock({KEY!r}, timeout=30, lease=60) as held:\n"
        "    assert held\n"
        "    os.mkdir(sys.argv[2])\n"  # fails while another one is in here
        "    os.rmdir(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "inside")]
    crowd = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in crowd] == [0] * 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, where some other thread is alive
def test_a_child_forked_under_the_lock_does_not_release_it(store: FileTokenStore) -> None:
    lock = store.lock(KEY, timeout=0, lease=1)
    assert lock.__enter__() is True
    assert in_child(lambda: bool(lock.__exit__(None, None, None)) is False)
    with store.lock(KEY, timeout=0, lease=1) as again:
        assert again is False
    lock.__exit__(None, None, None)
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as above
def test_a_forked_child_takes_and_releases_the_lock_itself(store: FileTokenStore) -> None:
    def take() -> bool:
        with store.lock(KEY, timeout=0, lease=1) as held:
            return held

    assert take()
    assert in_child(take)
    assert take()


def test_a_lock_that_cannot_be_released_does_not_lose_what_the_body_did(
    store: FileTokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    with monkeypatch.context() as patch, store.lock(KEY, timeout=0, lease=1):
        patch.setattr(filelock, "unlock_descriptor", _raising(OSError(errno.EIO, "gone")))
        done.append("refreshed")
    assert done == ["refreshed"]
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True, "closing the file has let go of it"


# --- the object


def test_the_repr_shows_the_folder(store: FileTokenStore, folder: Path) -> None:
    assert repr(store) == f"FileTokenStore({str(folder)!r})"


def test_a_pickled_store_shares_the_place(store: FileTokenStore) -> None:
    with store.lock(KEY, timeout=0, lease=1):
        copied = pickle.loads(pickle.dumps(store))
        copied.save(KEY, TOKEN)
        with copied.lock(KEY, timeout=0, lease=1) as held:
            assert held is False
    assert store.load(KEY) == TOKEN


def test_the_default_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    FileTokenStore().save(KEY, TOKEN)
    assert json.loads((tmp_path / "kis_retry" / f"{KEY}.json").read_text())["access_token"] == TOKEN.value


@pytest.mark.parametrize("kind", [str, Path])
def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    FileTokenStore(kind("~/cache")).save(KEY, TOKEN)
    assert (tmp_path / "cache" / f"{KEY}.json").exists()


def test_a_relative_folder_stays_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    store = FileTokenStore("cache")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
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


def test_no_file_holds_the_app_key_or_a_secret(store: FileTokenStore, folder: Path) -> None:
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=1):
        assert sorted(path.name for path in folder.iterdir()) == [f"{KEY}.json", f"{KEY}.lock"]
        assert (folder / f"{KEY}.lock").read_bytes() == b""
    assert set(json.loads((folder / f"{KEY}.json").read_text())) == {"version", "key", "access_token", "expires_at"}


def _raising(error: OSError) -> Callable[..., None]:
    """Stand in for a function."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_what_a_lock_needs_is_loaded_before_a_thread_or_a_fork_can_come_in_between(tmp_path: Path) -> None:
    code = "import sys, kis_retry; kis_retry.FileTokenStore(sys.argv[1]); sys.exit('filelock' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
