"""The engines below the token stores: bytes and locks by key and kind."""

from __future__ import annotations

import inspect
import pickle
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.crc import key_slot

from clocks import FakeClock
from kis_retry import FileTokenStore, MemoryTokenStore, RedisTokenStore
from kis_retry.stores import documents as documents_module
from kis_retry.stores.base import TokenStore
from kis_retry.stores.documents import TOKEN, DocumentStore, DocumentTokenStore, documents_of
from kis_retry.stores.entry import StoreEntry
from kis_retry.stores.folder import FileDocuments
from kis_retry.stores.memory import MemoryDocuments
from kis_retry.stores.redis_documents import RedisDocuments
from kis_retry.token import AccessToken

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0123456789abcdef0123456789abcdef"
OTHER_KEY = KEY[::-1]
SAME_KIND = "-token-".strip("-")  # the same word, and another object
TOKEN_OF_A_DAY = AccessToken("eyJ0eXAi.abc.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))


@pytest.fixture(params=["memory", "file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DocumentTokenStore:
    if request.param == "memory":
        return MemoryTokenStore()
    if request.param == "file":
        return FileTokenStore(tmp_path / "cache")
    server = request.getfixturevalue("valkey_server")
    server.flush()
    return RedisTokenStore(server.url)


@pytest.fixture
def documents(store: DocumentTokenStore) -> DocumentStore:
    found = documents_of(store)
    assert found is not None
    return found


def test_what_was_never_written_is_none(documents: DocumentStore) -> None:
    assert documents.read(KEY, "pace") is None


@pytest.mark.parametrize("ttl", [None, 3600.0])
def test_any_bytes_come_back_as_they_were_written(documents: DocumentStore, ttl: float | None) -> None:
    documents.write(KEY, "pace", b"first, and longer", ttl)
    documents.write(KEY, "pace", b"{}\r\n\x00\xff\x80", ttl)
    assert documents.read(KEY, "pace") == b"{}\r\n\x00\xff\x80"


def test_kinds_and_keys_are_independent(store: DocumentTokenStore, documents: DocumentStore) -> None:
    store.save(KEY, TOKEN_OF_A_DAY)
    documents.write(KEY, "pace", b"1", None)
    documents.write(OTHER_KEY, "pace", b"2", None)
    documents.write(KEY, "zeal", b"3", None)
    assert store.load(KEY) == TOKEN_OF_A_DAY
    assert (documents.read(KEY, "pace"), documents.read(OTHER_KEY, "pace")) == (b"1", b"2")
    assert documents.read(KEY, "zeal") == b"3"
    store.delete(KEY)
    assert documents.read(KEY, "pace") == b"1"
    documents.delete(KEY, "pace")
    documents.delete(KEY, "pace")
    assert (documents.read(KEY, "pace"), documents.read(OTHER_KEY, "pace")) == (None, b"2")


def test_each_kind_has_a_lock_of_its_own(store: DocumentTokenStore, documents: DocumentStore) -> None:
    with store.lock(KEY, timeout=0, lease=60) as token, documents.lock(KEY, "pace", timeout=0, lease=60) as pace:
        assert (token, pace) == (True, True)
        with documents.lock(KEY, "pace", timeout=0, lease=60) as again:
            assert again is False
        with documents.lock(KEY, SAME_KIND, timeout=0, lease=60) as again:
            assert again is False, "the token's lock is one, whoever takes it"
        with documents.lock(KEY, "zeal", timeout=0, lease=60) as another:
            assert another is True
    with documents.lock(KEY, "pace", timeout=0, lease=60) as free:
        assert free is True


def test_the_token_is_the_document_of_kind_token(store: DocumentTokenStore, documents: DocumentStore) -> None:
    store.save(KEY, TOKEN_OF_A_DAY)
    data = documents.read(KEY, TOKEN)
    assert data is not None
    store.delete(KEY)
    documents.write(KEY, SAME_KIND, data, None)
    assert store.load(KEY) == TOKEN_OF_A_DAY


@pytest.mark.parametrize(("lives", "kept"), [(86_400, 86_400), (61, 61), (60, 60), (59, 60), (0, 60), (-5, 60)])
def test_a_token_is_kept_for_as_long_as_it_lives_and_a_minute_at_least(
    monkeypatch: pytest.MonkeyPatch, lives: int, kept: int
) -> None:
    written: list[float | None] = []

    class Noting(MemoryDocuments):
        def write(self, key: str, kind: str, data: bytes, ttl: float | None) -> None:
            written.append(ttl)

    clock = FakeClock()
    monkeypatch.setattr(documents_module, "time", clock)
    expires_at = datetime.fromtimestamp(clock.now + lives, timezone.utc)
    DocumentTokenStore(Noting()).save(KEY, AccessToken("abc", expires_at))
    assert written == [kept]


def test_a_document_travels_with_a_pickled_store(store: DocumentTokenStore, documents: DocumentStore) -> None:
    documents.write(KEY, "pace", b"1", None)
    copied = documents_of(pickle.loads(pickle.dumps(store)))
    assert copied is not None
    assert copied.read(KEY, "pace") == b"1"


def test_files_are_named_by_key_and_kind(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    store.save(KEY, TOKEN_OF_A_DAY)
    store.documents.write(KEY, "pace", b"1", None)
    with store.lock(KEY, timeout=0, lease=1), store.documents.lock(KEY, "pace", timeout=0, lease=1):
        names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {f"{KEY}.json", f"{KEY}.lock", f"{KEY}.pace.json", f"{KEY}.pace.lock"}


def test_names_on_a_server_share_one_slot_and_a_document_has_its_time_to_live(valkey_server: Any) -> None:
    valkey_server.flush()
    store = RedisTokenStore(valkey_server.url)
    store.documents.write(KEY, "pace", b"1", 20.0)
    store.documents.write(KEY, "kept", b"1", None)
    with (
        store.lock(KEY, timeout=0, lease=1),
        store.documents.lock(KEY, "pace", timeout=0, lease=1),
        redis.Redis.from_url(valkey_server.url) as client,
    ):
        names = sorted(name.decode() for name in client.scan_iter())
        assert names == [f"kis_retry:{{{KEY}}}:{rest}" for rest in ("kept", "lock", "pace", "pace:lock")]
        assert len({key_slot(name.encode()) for name in names}) == 1
        assert 15_000 < client.pttl(names[2]) <= 20_000
        assert client.pttl(names[0]) == -1


@pytest.mark.parametrize(
    "kind",
    [TokenStore, DocumentStore, DocumentTokenStore, FileDocuments, MemoryDocuments, RedisDocuments, StoreEntry],
)
def test_the_seconds_of_a_lock_are_given_by_name_lest_they_be_mixed_up(kind: Any) -> None:
    parameters = inspect.signature(kind.lock).parameters
    by_name = [name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    assert by_name == ["timeout", "lease"]


class _Own:
    """Somebody's store: the four methods, and an attribute that happens to have the name of ours."""

    documents = "invoice.pdf"
    load = save = delete = lock = print


def test_a_store_of_somebody_else_has_no_documents_whatever_its_attributes() -> None:
    assert documents_of(_Own()) is None
    assert documents_of(None) is None
