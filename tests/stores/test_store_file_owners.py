"""`FileTokenStore` where others can put files: whose is believed, whose is waited for, and where one goes on."""

from __future__ import annotations

import codecs
import fcntl
import json
import logging
import os
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kis_retry import KisClient, RetryPolicy, TokenManager
from kis_retry.stores import private_files
from kis_retry.stores.base import key_of
from kis_retry.stores.file import FileTokenStore
from kis_retry.testing import KisGateway
from kis_retry.token import AccessToken

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
def folder() -> Iterator[Path]:
    """A folder of root that other users can get to, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="kis-retry-owners-") as above:
        Path(above).chmod(0o755)
        shared = Path(above) / "shared"
        shared.mkdir()
        yield shared


def as_user(uid: int, work: Callable[[], object]) -> None:
    """Do `work` in a child process of that user, in no group; an exception there is one here."""
    start_as_user(uid, work)()


def start_as_user(uid: int, work: Callable[[], object]) -> Callable[[], None]:
    """The same, begun only; what comes back waits for its end."""
    for encoding in ("ascii", "latin-1", "idna"):  # may be the superuser's, to be loaded by nobody else
        codecs.lookup(encoding)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()
            status = 0
        except BaseException as error:  # of the test itself
            os.write(writer, repr(error).encode()[:2000])
        finally:
            os._exit(status)
    os.close(writer)

    def wait() -> None:
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said

    return wait


def plant(folder: Path, rights: int) -> None:
    """A stranger's entry and lock file, as our own processes would write them, but readable to all."""
    folder.chmod(rights)
    as_user(STRANGER, lambda: FileTokenStore(folder).save(KEY, PLANTED))
    (folder / f"{KEY}.json").chmod(0o644)


def saves_and_loads(folder: Path) -> None:
    store = FileTokenStore(folder)
    assert store.load(KEY) is None, "believed"
    with store.lock(KEY, timeout=0, lease=1) as held:
        assert held is True
        store.save(KEY, TOKEN)
    assert FileTokenStore(folder).load(KEY) == TOKEN


@pytest.mark.parametrize("rights", [0o777, 0o1777], ids=oct)
@pytest.mark.parametrize("uid", [0, VICTIM])
def test_an_entry_of_another_owner_is_not_believed_and_does_not_stop_sharing(
    folder: Path, rights: int, uid: int
) -> None:
    plant(folder, rights)
    as_user(uid, lambda: saves_and_loads(folder))
    as_user(uid, lambda: _loads(folder, TOKEN))


def _loads(folder: Path, token: AccessToken) -> None:
    assert FileTokenStore(folder).load(KEY) == token


def test_an_entry_of_root_is_believed(folder: Path) -> None:
    FileTokenStore(folder).save(KEY, TOKEN)
    folder.chmod(0o755)
    (folder / f"{KEY}.json").chmod(0o644)
    as_user(VICTIM, lambda: _loads(folder, TOKEN))


def test_an_ignored_entry_is_one_warning_that_names_its_path_and_owner(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_files, "_ignored", set())
    plant(folder, 0o777)
    with caplog.at_level(logging.WARNING, "kis_retry"):
        for _ in range(3):
            assert FileTokenStore(folder).load(KEY) is None
    (message,) = caplog.messages
    assert message.startswith(f"kis_retry.store_entry_ignored store={folder / KEY}.json")
    assert str(STRANGER) in message
    assert PLANTED.value not in message


@pytest.mark.parametrize("rights", [0o777, 0o1777], ids=oct)
def test_a_planted_lock_that_a_stranger_holds_is_not_waited_for(folder: Path, rights: int) -> None:
    folder.chmod(rights)
    lock = folder / f"{KEY}.lock"
    with lock.open("w") as planted:
        lock.chmod(0o666)
        os.chown(lock, STRANGER, STRANGER)
        fcntl.flock(planted, fcntl.LOCK_EX)
        as_user(VICTIM, lambda: saves_and_loads(folder))
        as_user(VICTIM, lambda: _excludes(folder))


def _excludes(folder: Path) -> None:
    """Two views of one user still keep each other out."""
    with FileTokenStore(folder).lock(KEY, timeout=0, lease=1) as held:
        assert held is True
        with FileTokenStore(folder).lock(KEY, timeout=0, lease=1) as late:
            assert late is False


def test_in_a_sticky_folder_the_users_own_folder_is_closed_to_others(folder: Path) -> None:
    plant(folder, 0o1777)
    as_user(VICTIM, lambda: saves_and_loads(folder))
    own = folder / f"kis_retry-{VICTIM}"
    assert (own.stat().st_uid, own.stat().st_mode & 0o777) == (VICTIM, 0o700)
    assert json.loads((folder / f"{KEY}.json").read_text())["access_token"] == PLANTED.value
    (folder / f"{KEY}.json").unlink()
    as_user(VICTIM, lambda: _loads(folder, TOKEN))


def test_where_a_stranger_has_taken_that_folder_too_it_is_an_error_and_nothing_is_believed(folder: Path) -> None:
    plant(folder, 0o1777)
    own = folder / f"kis_retry-{VICTIM}"
    own.mkdir()
    own.chmod(0o777)
    os.chown(own, STRANGER, STRANGER)

    def work() -> None:
        store = FileTokenStore(folder)
        with pytest.raises(PermissionError, match="another owner"):
            store.save(KEY, TOKEN)
        assert store.load(KEY) is None

    as_user(VICTIM, work)
    assert list(own.iterdir()) == []


def test_a_lock_file_that_root_left_in_the_users_folder_is_replaced(folder: Path) -> None:
    FileTokenStore(folder).save(KEY, PLANTED)
    with FileTokenStore(folder).lock(KEY, timeout=0, lease=1):
        pass
    folder.chmod(0o700)
    os.chown(folder, VICTIM, VICTIM)
    as_user(VICTIM, lambda: saves_and_loads(folder))


@pytest.mark.parametrize("umask", [0o777, 0o700], ids=oct)
def test_no_umask_makes_an_unusable_folder(folder: Path, umask: int) -> None:
    os.chown(folder, VICTIM, VICTIM)

    def work() -> None:
        os.umask(umask)
        saves_and_loads(folder / "a" / "b")
        saves_and_loads(folder / "a" / "c")

    as_user(VICTIM, work)


def test_a_file_hard_linked_at_the_lock_keeps_its_content_and_mode(folder: Path) -> None:
    precious = folder / "precious"
    precious.write_text("content")
    precious.chmod(0o644)
    os.link(precious, folder / f"{KEY}.lock")
    saves_and_loads(folder)
    assert (precious.read_text(), precious.stat().st_mode & 0o777) == ("content", 0o644)


def test_a_lock_is_taken_where_the_token_will_be_written(folder: Path) -> None:
    folder.chmod(0o1777)
    as_user(STRANGER, lambda: FileTokenStore(folder).save(KEY, PLANTED))

    def work() -> None:
        with FileTokenStore(folder).lock(KEY, timeout=1, lease=1) as held:
            assert held

    as_user(VICTIM, work)
    assert (folder / f"kis_retry-{VICTIM}" / f"{KEY}.lock").exists()
    assert json.loads((folder / f"{KEY}.json").read_bytes())


def test_processes_of_one_user_get_one_token_from_kis_beside_a_planted_entry(folder: Path) -> None:
    folder.chmod(0o1777)
    with KisGateway(issue_interval=0, same_token_for=0) as gateway:
        key = key_of(gateway.credentials)
        as_user(STRANGER, lambda: FileTokenStore(folder).save(key, PLANTED))
        _ask(gateway, FileTokenStore(folder.parent / "own"))  # imports what a child may not be allowed to read
        gateway.reset_counts()
        crowd = [start_as_user(VICTIM, lambda: _ask(gateway, FileTokenStore(folder))) for _ in range(4)]
        for wait in crowd:
            wait()
        assert (gateway.counts.answered, gateway.counts.tokens_issued) == (4, 1)
    assert (folder / f"kis_retry-{VICTIM}" / f"{key}.json").exists()


def _ask(gateway: KisGateway, store: FileTokenStore) -> None:
    with KisClient(tokens=TokenManager(gateway.credentials, store=store, policy=RetryPolicy())) as client:
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"


def test_an_own_token_is_not_replaced_by_a_later_stranger(folder: Path) -> None:
    folder.chmod(0o1777)
    as_user(VICTIM, lambda: FileTokenStore(folder).save(KEY, TOKEN))

    def work() -> None:
        store = FileTokenStore(folder)
        assert store.load(KEY) is None, "0600"
        store.save(KEY, PLANTED)

    as_user(STRANGER, work)
    as_user(VICTIM, lambda: _loads(folder, TOKEN))
