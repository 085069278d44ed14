"""Which store is used: the one that is named; another takes its place, with one warning, until it works."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry import AccessToken, FileTokenStore, MemoryTokenStore, RedisTokenStore
from kis_retry.errors import ConfigurationError
from kis_retry.stores.entry import StoreEntry, store_from_env, store_named

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "0123456789abcdef0123456789abcdef"
PASSWORD = "r3d1s-p4ssw0rd"
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))
LATER = AccessToken("eyJ0eXAi.later.c2ln", datetime(2090, 11, 25, tzinfo=timezone.utc))


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


def lock(entry: StoreEntry) -> bool:
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


def test_a_store_of_another_hand_is_named_by_its_class_and_an_error_by_what_the_system_said_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ValueError(PASSWORD)
    error.__cause__ = OSError(errno.EIO, "no disk")
    said = warned(caplog, Breakable(broken=ALL, error=error))
    assert said == 'kis_retry.store_unavailable store=Breakable operation=load error="ValueError: no disk"'


@pytest.mark.parametrize("broken", ["load save delete lock", "save lock"])
def test_an_outage_is_one_warning_whatever_is_asked_and_the_next_one_another(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, clock = Breakable(broken=broken), Clock()
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
    store.broken = broken
    entry.save(TOKEN)
    assert len(caplog.records) == 2


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


def test_whoever_chose_memory_has_nothing_written_to_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = StoreEntry(MemoryTokenStore(), "only-in-memory")
    monkeypatch.setattr(entry.store, "save", None)
    entry.save(TOKEN)
    assert entry.load() == TOKEN
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()


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


# --- the store that `KIS_TOKEN_STORE` names


@pytest.mark.parametrize("name", ["memory", "MEMORY", " Memory "])
def test_memory_is_one_store_for_the_whole_process(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", name)
    assert isinstance(store_from_env(), MemoryTokenStore)
    assert store_from_env() is store_from_env()


@pytest.mark.parametrize("name", ["file", "FILE", "", None])
def test_file_is_the_default(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    if name is not None:
        monkeypatch.setenv("KIS_TOKEN_STORE", name)
    assert repr(store_from_env()) == repr(FileTokenStore())


@pytest.mark.parametrize("name", ["/var/cache/batch", "./tokens", "a/b", "~/tokens", ".", "/var/a:b@c"])
def test_a_path_is_a_folder(name: str) -> None:
    assert repr(store_named(name)) == f"FileTokenStore({str(Path(name).expanduser().absolute())!r})"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("redis://cache.example/3", "redis://cache.example/3"),
        (f"REDISS://:{PASSWORD}@cache.example", "REDISS://***@cache.example"),
        ("valkey://cache.example", "valkey://cache.example"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_a_server(name: str, place: str) -> None:
    assert repr(store_named(name)) == f"RedisTokenStore({place!r})"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tokens.json", "'tokens.json'"),
        (f"redis+sentinel://h/0?password={PASSWORD}", "'redis+sentinel://…'"),
        (f"http://me:{PASSWORD}@host/x", "'http://…'"),
        (f"postgres://{PASSWORD}\n{PASSWORD}", "'postgres://…'"),
        (f"redis:/:{PASSWORD}@host/0", "'…'"),
        (f"{PASSWORD}@host:6379", "'…'"),
        (f"password={PASSWORD}", "'…'"),
    ],
)
def test_what_names_no_store_is_an_error_that_shows_no_password(name: str, shown: str) -> None:
    with pytest.raises(ConfigurationError, match="it takes file, memory, a folder's path") as caught:
        store_named(name)
    assert str(caught.value).startswith(f"KIS_TOKEN_STORE={shown} is not usable")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("name", [f"redis://:{PASSWORD}/x@host", f"unix://{PASSWORD}", "~no-such-user/tokens"])
def test_an_unusable_address_or_folder_names_the_variable(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^KIS_TOKEN_STORE is not usable: ") as caught:
        store_named(name)
    assert PASSWORD not in str(caught.value)
