"""A store that cannot be used is one warning and never a call's failure; another takes its place until it works."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from children import in_child
from kis_retry import AccessToken, FileTokenStore, MemoryTokenStore, RedisTokenStore
from kis_retry.errors import ConfigurationError
from kis_retry.stores.entry import StoreEntry, candidates_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "0123456789abcdef0123456789abcdef"
PASSWORD = "r3d1s-p4ssw0rd"
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))
LATER = AccessToken("eyJ0eXAi.later.c2ln", datetime(2090, 11, 25, tzinfo=timezone.utc))

COLD_START = """
import sys
from datetime import datetime, timezone
from kis_retry import AccessToken
from kis_retry.stores.entry import StoreEntry
from kis_retry.stores.from_env import store_named
entry = StoreEntry(store_named(sys.argv[1]), "k" * 32)
if entry.load() is None:
    with entry.lock(timeout=30, lease=60) as held:
        assert held is True
        if entry.load() is None:
            print("issued", flush=True)
            entry.save(AccessToken("abc", datetime(2090, 1, 1, tzinfo=timezone.utc)))
assert entry.load().value == "abc"
"""

Server = Any  # `ValkeyServer` of conftest.py


class Breakable:
    """Somebody's store over one in memory: the operations named in `broken` fail."""

    def __init__(self, broken: str = "", error: Exception | None = None) -> None:
        self.store = MemoryTokenStore()
        self.broken = broken
        self.error = error or OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.asked: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name not in {"load", "save", "delete", "lock"}:
            return super().__getattribute__(name)
        self.asked.append(name)
        if name in self.broken:
            raise self.error
        return getattr(self.store, name)

    def __repr__(self) -> str:
        return f"Breakable(password={PASSWORD!r})"


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


ALL = "load save delete lock"
WRITING = "save delete lock"


def lock(entry: StoreEntry) -> bool | None:
    with entry.lock(timeout=0, lease=1) as held:
        return held


# --- one warning


def warned(caplog: pytest.LogCaptureFixture, store: Any) -> str:
    assert StoreEntry(store, KEY).load() is None
    (record,) = caplog.records
    assert vars(record)["kis_name"] == "store_unavailable"
    assert PASSWORD not in str(vars(record))
    return record.getMessage()


def test_a_folder_that_cannot_be_read_is_named_with_what_the_system_said(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FileTokenStore(tmp_path / "file" / "cache")
    cause = f"NotADirectoryError: {os.strerror(errno.ENOTDIR)}"
    assert warned(caplog, store) == f'kis_retry.store_unavailable store={store!r} operation=load error="{cause}"'


def test_a_server_that_is_not_there_is_named_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{bound_but_deaf.getsockname()[1]}/0"
        said = warned(caplog, RedisTokenStore(f"redis://somebody:{PASSWORD}@{place}"))
    assert f"store=RedisTokenStore('redis://***@{place}') operation=load" in said
    assert said.endswith(f'error="ConnectionError: {os.strerror(errno.ECONNREFUSED)}"')


def chain(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (chain(ValueError(PASSWORD), OSError(PASSWORD)), "ValueError"),
        (chain(ValueError(PASSWORD), OSError(errno.EIO, "no disk")), '"ValueError: no disk"'),
    ],
)
def test_a_store_of_another_hand_is_named_by_its_class_and_an_error_by_what_the_system_said_behind_it(
    caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    store = Breakable(broken=ALL, error=error)
    assert warned(caplog, store) == f"kis_retry.store_unavailable store=Breakable operation=load error={said}"


def test_an_outage_is_one_warning_whatever_is_asked_and_the_next_one_another(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = Breakable(broken=ALL), Clock()
    entry = StoreEntry(store, KEY, clock=clock)
    for _ in range(3):
        entry.load()
        entry.save(TOKEN)
        assert lock(entry) is True
        entry.delete()
        clock.now += 100
    assert len(caplog.records) == 1
    store.broken = ""
    entry.save(TOKEN)
    store.broken = ALL
    entry.load()
    assert len(caplog.records) == 2


def test_a_store_that_can_be_read_and_emptied_alone_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    entry = StoreEntry(Breakable(broken="save lock"), KEY, clock=clock)
    for _ in range(3):
        entry.save(TOKEN)
        clock.now += 100
        entry.delete()
        assert entry.load() is None
    assert len(caplog.records) == 1


def test_a_store_that_works_is_not_warned_of_and_nothing_else_is_touched(caplog: pytest.LogCaptureFixture) -> None:
    entry = StoreEntry(Breakable(), KEY)
    assert lock(entry) is True
    entry.save(TOKEN)
    assert entry.load() == TOKEN
    entry.delete()
    assert entry.load() is None
    assert caplog.records == []
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()


# --- what takes its place


@pytest.mark.parametrize("broken", [ALL, WRITING, "lock", "save lock"])  # read-only, a full disk
def test_the_machines_file_store_takes_its_place(broken: str) -> None:
    entry, other = (StoreEntry(Breakable(broken=broken), KEY) for _ in range(2))
    with entry.lock(timeout=0, lease=1) as held:
        assert held is True
        assert lock(other) is False
        entry.save(TOKEN)
    assert lock(other) is True
    assert other.load() == FileTokenStore().load(KEY) == TOKEN
    other.delete()
    assert entry.load() is None


def test_where_that_cannot_be_used_either_the_memory_of_the_process_does(caplog: pytest.LogCaptureFixture) -> None:
    Path(os.environ["XDG_CACHE_HOME"]).write_text("in the way")
    key = "no disk and no server".replace(" ", "-")
    entry, other = (StoreEntry(Breakable(broken=ALL), key) for _ in range(2))
    with entry.lock(timeout=0, lease=1) as held:
        assert held is True
        assert lock(other) is False
        entry.save(TOKEN)
    assert other.load() == TOKEN
    other.delete()
    assert entry.load() is None
    assert {vars(record)["kis_store"].partition("(")[0] for record in caplog.records} == {"Breakable", "FileTokenStore"}


def test_the_default_store_falls_back_to_memory_alone(caplog: pytest.LogCaptureFixture) -> None:
    Path(os.environ["XDG_CACHE_HOME"]).write_text("in the way")
    entry = StoreEntry(FileTokenStore(), "of-the-default")
    entry.save(TOKEN)
    assert entry.load() == TOKEN
    assert len(caplog.records) == 1


def test_whoever_chose_memory_has_nothing_written_to_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryTokenStore()
    monkeypatch.setattr(store, "save", None)
    entry = StoreEntry(store, "only-in-memory")
    entry.save(TOKEN)
    assert entry.load() == TOKEN
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without a home")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, where some other thread is alive
def test_without_a_home_the_process_is_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert repr(candidates_for(Breakable())[1]) == repr(FileTokenStore())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")

    def as_nobody() -> bool:
        os.setuid(65_501)
        with pytest.raises(ConfigurationError, match="HOME"):
            FileTokenStore()
        return len(candidates_for(Breakable())) == 2

    assert in_child(as_nobody)


def test_a_lock_that_nobody_can_give_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(os.environ["XDG_CACHE_HOME"]).write_text("in the way")
    monkeypatch.setattr(MemoryTokenStore, "lock", None)
    assert lock(StoreEntry(Breakable(broken=ALL), KEY)) is None


def test_a_lock_is_waited_for_no_longer_than_asked_wherever_it_is_looked_for() -> None:
    clock, waited = Clock(), []

    class Slow:
        def lock(self, key: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
            waited.append(timeout)
            clock.now += 20
            raise TimeoutError

    slow: Any = Slow()
    entry = StoreEntry(slow, KEY, clock=clock)
    with FileTokenStore().lock(KEY, timeout=0, lease=1), entry.lock(timeout=12, lease=1) as held:
        assert held is False
    assert waited == [12]


def test_an_exception_of_the_body_comes_out_and_one_of_the_release_does_not() -> None:
    class Unreleasable:
        @contextmanager
        def lock(self, key: str, *, timeout: float, lease: float) -> Iterator[bool]:
            yield True
            raise OSError

    store: Any = Unreleasable()
    entry = StoreEntry(store, KEY)
    assert lock(entry) is True
    with pytest.raises(ZeroDivisionError), entry.lock(timeout=0, lease=1):
        raise ZeroDivisionError


# --- when the first works again


def test_a_store_that_failed_is_tried_again_after_pauses_that_grow_to_a_minute() -> None:
    store, clock = Breakable(broken=ALL), Clock()
    entry, pauses, last = StoreEntry(store, KEY, clock=clock), [], clock.now
    for _ in range(400):
        before = len(store.asked)
        entry.load()
        if len(store.asked) > before:
            pauses.append(clock.now - last)
            last = clock.now
        clock.now += 1
    assert pauses[:4] == [0, 1, 2, 5]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60


def test_a_store_that_works_again_is_used_again_and_others_still_find_what_was_saved_meanwhile() -> None:
    store, clock = Breakable(broken=ALL), Clock()
    entry, late = StoreEntry(store, KEY, clock=clock), StoreEntry(Breakable(broken=ALL), KEY)
    entry.save(TOKEN)
    store.broken = ""
    clock.now += 2
    assert entry.load() == TOKEN, "it is where it was put"
    with entry.lock(timeout=0, lease=1) as held:
        assert held is True
        assert lock(StoreEntry(store.store, KEY)) is False, "the first store's"
    entry.save(LATER)
    assert store.store.load(KEY) == entry.load() == LATER
    assert late.load() == TOKEN
    asked = len(store.asked)
    entry.save(LATER)
    assert store.asked[asked:] == ["save"]


def test_the_newest_token_counts_where_a_store_can_only_be_read() -> None:
    store = Breakable(broken=WRITING)
    store.store.save(KEY, TOKEN)
    clock = Clock()
    entry = StoreEntry(store, KEY, clock=clock)
    assert entry.load() == TOKEN
    entry.save(LATER)
    clock.now += 100
    assert entry.load() == LATER


# --- real stores that cannot be used, and cold processes


def _read_only(server: Server) -> str:
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", 1)
    return str(server.url)


def _out_of_memory(server: Server) -> str:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
    return str(server.url)


def _wrong_password(server: Server) -> str:
    return str(server.url).replace("redis://", f"redis://:{PASSWORD}@")


def _deaf(server: Server) -> str:
    server.pause(60)
    return f"{server.url}?socket_timeout=0.1"


def _gone(server: Server) -> str:
    server.stop()
    return str(server.url)


@pytest.mark.parametrize("breaks", [_read_only, _out_of_memory, _wrong_password, _deaf, _gone])
def test_cold_processes_share_one_token_past_a_server_that_cannot_be_used(
    new_valkey_server: Callable[[], Server], breaks: Callable[[Server], str]
) -> None:
    assert _cold_processes(breaks(new_valkey_server())) == (1, 3)


def test_cold_processes_share_one_token_past_a_node_without_slots(
    listen: Callable[[Callable[[socket.socket], object]], str],
) -> None:
    def answer(connection: socket.socket) -> None:
        while said := connection.recv(65_536):
            replies = [b"+OK\r\n"] * said.count(b"SETINFO") or [b"-CLUSTERDOWN Hash slot not served\r\n"]
            connection.sendall(b"".join(replies))

    assert _cold_processes(f"redis://{listen(answer)}") == (1, 3)


@pytest.mark.parametrize("name", ["file", "file/cache", "n" * 300])
def test_cold_processes_share_one_token_past_a_folder_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert _cold_processes(str(tmp_path / name)) == (1, 3)


def _cold_processes(store: str) -> tuple[int, int]:
    """Return how many of three processes issued a token, and how many warned; each once, without the password."""
    command = [sys.executable, "-c", COLD_START, store]
    crowd = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60) for process in crowd]
    assert [process.returncode for process in crowd] == [0, 0, 0], said
    assert PASSWORD not in str(said)
    warnings = [error.count("kis_retry.store_unavailable") for _, error in said]
    assert max(warnings) <= 1, said
    return sum(output.count("issued") for output, _ in said), sum(warnings)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_documents_of_several_kinds_keep_apart(place: str, tmp_path: Path) -> None:
    documents = MemoryTokenStore() if place == "memory" else FileTokenStore(tmp_path)
    documents.write(KEY, "pace", b"1", None)
    documents.write(KEY, "approval", b"2", 60.0)
    assert (documents.read(KEY, "pace"), documents.read(KEY, "approval")) == (b"1", b"2")
    assert documents.load(KEY) is None
    with documents.lock(KEY, "pace", timeout=0, lease=1) as pace, documents.lock(KEY, timeout=0, lease=1) as token:
        assert (pace, token) == (True, True)
    documents.delete(KEY, "pace")
    assert (documents.read(KEY, "pace"), documents.read(KEY, "approval")) == (None, b"2")
