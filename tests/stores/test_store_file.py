"""`FileTokenStore`: rights, planted files, faults, and locks among real processes."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import signal
import stat
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from children import in_child
from kis_retry import AccessToken, FileTokenStore
from kis_retry.errors import ConfigurationError
from patience import until

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "0123456789abcdef0123456789abcdef"
EXPIRY = datetime(2090, 11, 24, 9, 0, 0, tzinfo=timezone(timedelta(hours=9)))
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", EXPIRY)
LATER = AccessToken("eyJ0eXAi.later.c2ln", EXPIRY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(folder: Path) -> FileTokenStore:
    return FileTokenStore(folder)


@contextmanager
def limited(kind: int, limit: int) -> Iterator[None]:
    """Limit a resource of this process."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


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


def test_by_default_it_is_the_users_cache_folder_and_no_file_holds_more_than_the_token() -> None:
    store = FileTokenStore()
    store.save(KEY, TOKEN)
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "kis_retry"
    with store.lock(KEY, timeout=0, lease=1):
        assert names(folder) == [f"{KEY}.json", f"{KEY}.lock"]
    entry = json.loads((folder / f"{KEY}.json").read_text())
    assert entry == {"version": 1, "key": KEY, "access_token": TOKEN.value, "expires_at": EXPIRY.isoformat()}


# --- what stands in the place of an entry or of a lock


def plant_hard_link(path: Path) -> None:
    (path.parent.parent / "precious").write_text("content")
    os.link(path.parent.parent / "precious", path)


PLANTS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to(path.parent / "nowhere"),
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a hard link": plant_hard_link,
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("suffix", ["json", "lock"])
def test_what_is_no_file_is_a_miss_and_is_healed(store: FileTokenStore, folder: Path, plant: str, suffix: str) -> None:
    folder.mkdir()
    PLANTS[plant](folder / f"{KEY}.{suffix}")
    assert store.load(KEY) is None
    if suffix == "json":
        store.save(KEY, TOKEN)
        assert store.load(KEY) == TOKEN
        store.delete(KEY)
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True
        assert not is_free(store)
        store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    assert names(folder) == [f"{KEY}.json", f"{KEY}.lock"]
    assert {stat.S_IFMT(path.lstat().st_mode) for path in folder.iterdir()} == {stat.S_IFREG}
    if plant == "a hard link":
        assert (folder.parent / "precious").read_text() == "content"


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


# --- what cannot be written or read


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for blocked in (tmp_path / "file", tmp_path / "file" / "cache", tmp_path / ("n" * 300)):
        store = FileTokenStore(blocked)
        for ask in (partial(store.save, KEY, TOKEN), partial(store.load, KEY), partial(is_free, store)):
            with pytest.raises(OSError, match=r"irectory|exists|too long"):
                ask()
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("kind", "limit", "code"), [(resource.RLIMIT_FSIZE, 0, errno.EFBIG), (resource.RLIMIT_NOFILE, 0, errno.EMFILE)]
)
def test_a_full_disk_or_no_free_descriptor_is_an_error_and_keeps_the_old_entry(
    store: FileTokenStore, folder: Path, kind: int, limit: int, code: int
) -> None:
    store.save(KEY, TOKEN)
    assert is_free(store)
    with limited(kind, limit):
        for ask in (partial(store.save, KEY, LATER), partial(is_free, store)):
            with pytest.raises(OSError) as caught:
                ask()
            assert caught.value.errno == code
    assert names(folder) == [f"{KEY}.json", f"{KEY}.lock"]
    assert store.load(KEY) == TOKEN


def test_a_folder_that_vanished_is_made_again(store: FileTokenStore, folder: Path) -> None:
    assert store.load(KEY) is None
    store.delete(KEY)
    assert not folder.exists()
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

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, of threads of other tests


def test_a_child_does_not_hold_on_to_the_lock_of_a_parent_that_was_killed(store: FileTokenStore) -> None:
    reader, writer = os.pipe()

    def killed() -> bool:
        os.close(writer)
        with store.lock(KEY, timeout=0, lease=60):
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)
            os.read(reader, 1)  # until this test is over
        return True

    assert not in_child(killed)
    until(lambda: is_free(store))  # once its child has begun
    os.close(writer)
    os.close(reader)


def test_a_child_forked_under_the_lock_does_not_release_it_and_a_pickled_store_shares_it(store: FileTokenStore) -> None:
    lock, copied = store.lock(KEY, timeout=0, lease=0.1), pickle.loads(pickle.dumps(store))
    assert lock.__enter__() is True
    assert in_child(lambda: lock.__exit__(None, None, None) is not True)
    time.sleep(0.15)
    assert not is_free(copied), "a lease means nothing where the holder lives"
    assert in_child(lambda: not is_free(store))
    copied.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    lock.__exit__(None, None, None)
    assert in_child(lambda: is_free(store))


# --- the object


@pytest.mark.parametrize("directory", ["~/cache", Path("~/cache"), "cache"])
def test_a_folder_is_of_the_home_or_of_the_working_directory_it_was_named_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Any
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    store = FileTokenStore(directory)
    monkeypatch.chdir("/")
    assert repr(store) == f"FileTokenStore({str(tmp_path / 'cache')!r})"


@pytest.mark.parametrize("directory", ["", "  ", "a\0b", b"bytes", "~no-such-user-here/cache"])
def test_what_names_no_folder_is_a_configuration_error(directory: Any) -> None:
    with pytest.raises(ConfigurationError, match="folder"):
        FileTokenStore(directory)
