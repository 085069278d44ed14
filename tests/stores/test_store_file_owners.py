"""`FileTokenStore` where other users can put files: whose is believed, and whose is waited for."""

from __future__ import annotations

import codecs
import fcntl
import os
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from children import in_child
from kis_retry import AccessToken, FileTokenStore
from kis_retry.stores.entry import StoreEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))
PLANTED = AccessToken("eyJ0eXAi.planted.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))
STRANGER, VICTIM = 65_501, 65_502

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # 3.12 on, where some other thread is alive
]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of root that other users can get to, which pytest's own are not; each user's cache is beside it."""
    with tempfile.TemporaryDirectory(prefix="kis-retry-owners-") as above:
        monkeypatch.setenv("XDG_CACHE_HOME", f"{above}/caches")
        monkeypatch.chdir("/")
        Path(above).chmod(0o755)
        shared, caches = Path(above) / "shared", Path(above) / "caches"
        shared.mkdir()
        caches.mkdir()
        caches.chmod(0o777)
        FileTokenStore(caches / "warm").save(KEY, TOKEN)  # loads what a child may not be allowed to read
        yield shared


def as_user(uid: int, work: Callable[[], object]) -> None:
    """Do `work` in a child process of that user, in no group; an exception there fails here."""
    codecs.lookup("ascii")  # may be the superuser's, to be loaded by nobody else

    def child() -> bool:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        work()
        return True

    assert in_child(child)


def plant(folder: Path, rights: int) -> None:
    """Put a stranger's entry and lock file there, as our own processes would write them, but readable to all."""
    folder.chmod(rights)

    def write() -> None:
        with FileTokenStore(folder).lock(KEY, timeout=0, lease=1):
            FileTokenStore(folder).save(KEY, PLANTED)

    as_user(STRANGER, write)
    (folder / f"{KEY}.json").chmod(0o644)
    (folder / f"{KEY}.lock").chmod(0o666)


def saves_and_loads(folder: Path) -> None:
    store = FileTokenStore(folder)
    assert store.load(KEY) is None, "believed"
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True
        with FileTokenStore(folder).lock(KEY, timeout=0, lease=1) as late:
            assert late is False
        store.save(KEY, TOKEN)
    assert FileTokenStore(folder).load(KEY) == TOKEN


@pytest.mark.parametrize(("uid", "rights"), [(0, 0o777), (0, 0o1777), (VICTIM, 0o777)])
def test_a_strangers_files_are_neither_believed_nor_waited_for(folder: Path, uid: int, rights: int) -> None:
    plant(folder, rights)
    with (folder / f"{KEY}.lock").open("w") as planted:
        fcntl.flock(planted, fcntl.LOCK_EX)
        as_user(uid, lambda: saves_and_loads(folder))


@pytest.mark.parametrize("suffix", ["json", "lock"])
def test_in_a_sticky_folder_a_strangers_file_makes_the_store_unusable(folder: Path, suffix: str) -> None:
    plant(folder, 0o1777)
    (folder / f"{KEY}.{'lock' if suffix == 'json' else 'json'}").unlink()

    def work() -> None:
        store = FileTokenStore(folder)
        assert store.load(KEY) is None, "believed"
        with pytest.raises(PermissionError), store.lock(KEY, timeout=0, lease=1):
            pytest.fail("the body must not run")
        if suffix == "json":
            with pytest.raises(PermissionError):
                store.save(KEY, TOKEN)

    as_user(VICTIM, work)


def test_processes_that_cannot_use_a_folder_share_the_users_own_cache(folder: Path) -> None:
    plant(folder, 0o1777)

    def share(found: AccessToken | None) -> None:
        entry = StoreEntry(FileTokenStore(folder), KEY)
        with entry.lock(timeout=0, lease=1) as held:
            assert held is True
            assert entry.load() == found
            entry.save(TOKEN)

    as_user(VICTIM, lambda: share(None))
    as_user(VICTIM, lambda: share(TOKEN))


def test_an_entry_of_root_is_believed_also_under_the_lock(folder: Path) -> None:
    FileTokenStore(folder).save(KEY, TOKEN)
    folder.chmod(0o777)
    (folder / f"{KEY}.json").chmod(0o644)

    def work() -> None:
        with FileTokenStore(folder).lock(KEY, timeout=0, lease=1) as held:
            assert held
            assert FileTokenStore(folder).load(KEY) == TOKEN

    as_user(VICTIM, work)


def test_files_that_root_left_in_the_users_folder_are_replaced(folder: Path) -> None:
    FileTokenStore(folder).save(KEY, PLANTED)  # 0600: the user cannot read it
    with FileTokenStore(folder).lock(KEY, timeout=0, lease=1):
        pass
    folder.chmod(0o700)
    os.chown(folder, VICTIM, VICTIM)
    as_user(VICTIM, lambda: saves_and_loads(folder))
