"""The one contract of a token store, against every store of this package; its key, and what memory alone does."""

from __future__ import annotations

import copy
import json
import os
import pickle
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import redis
import valkey

from children import in_child
from crowds import together
from kis_retry import AccessToken, Credentials, FileTokenStore, MemoryTokenStore, RedisTokenStore, TokenStore
from kis_retry.stores.base import key_of
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    View = Callable[[], TokenStore]

KEY = "0123456789abcdef0123456789abcdef"
OTHER_KEY = KEY[::-1]
APP_KEY, SECRET = "PSabcdefghijklmnopqrstuvwxyz01234567", "s3cr3t-" * 20
SEOUL = timezone(timedelta(hours=9))
LEASE = 60.0  # seconds; no test here lasts as long
MOMENT = 0.05  # seconds; how long somebody waits for a lock that is not let go

PLACES = ["memory", "file", "redis", "redis client", "redis client that decodes", "valkey client"]


@pytest.fixture(params=PLACES)
def view(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[View]:
    """Open the place as another process would; an empty place for each test."""
    place: str = request.param
    if place == "memory":
        store = MemoryTokenStore()
        yield lambda: store
    elif place == "file":
        yield lambda: FileTokenStore(tmp_path / "cache")
    else:
        server = request.getfixturevalue("valkey_server")
        server.flush()
        makers: dict[str, Callable[[], Any]] = {
            "redis client": lambda: redis.Redis.from_url(server.url),
            "redis client that decodes": lambda: redis.Redis.from_url(server.url, decode_responses=True),
            "valkey client": lambda: valkey.Valkey.from_url(server.url),
        }
        with ExitStack() as clients:
            yield lambda: RedisTokenStore(clients.enter_context(makers[place]()) if place in makers else server.url)


@pytest.fixture
def store(view: View) -> TokenStore:
    return view()


@pytest.fixture
def second(view: View) -> TokenStore:
    return view()


def token_named(name: str, hours: float = 24) -> AccessToken:
    expires_at = datetime.now(SEOUL).replace(microsecond=0) + timedelta(hours)
    return AccessToken(f"eyJ0eXAi.{name}.c2ln", expires_at)


def one_try(store: TokenStore, key: str = KEY) -> AbstractContextManager[bool]:
    return store.lock(key, timeout=0, lease=LEASE)


@pytest.mark.parametrize("zone", [SEOUL, timezone.utc, timezone(timedelta(hours=-3, minutes=-30))], ids=str)
@pytest.mark.parametrize("hours", [24, -1], ids=["alive", "expired"])
def test_a_saved_token_comes_back_with_its_zone_be_it_expired_or_not(
    store: TokenStore, zone: timezone, hours: int
) -> None:
    assert store.load(KEY) is None
    token = AccessToken("abc", token_named("abc", hours).expires_at.astimezone(zone))
    store.save(KEY, token)
    assert token.value not in repr(store)
    loaded = store.load(KEY)
    assert loaded == token
    assert loaded.expires_at.utcoffset() == zone.utcoffset(None)


def test_the_latest_save_wins_and_a_deleted_token_is_a_miss_under_the_lock_too(
    store: TokenStore, second: TokenStore
) -> None:
    store.save(KEY, token_named("a-rather-long-first-one"))
    latest = token_named("3")
    second.save(KEY, latest)
    assert store.load(KEY) == second.load(KEY) == latest
    with one_try(store):
        second.delete(KEY)
        second.delete(KEY)
        assert store.load(KEY) is None
        store.save(KEY, latest)
        assert store.load(KEY) == second.load(KEY) == latest
    assert store.load(KEY) == latest


def test_keys_are_independent(store: TokenStore) -> None:
    first, second = token_named("first"), token_named("second")
    store.save(KEY, first)
    assert store.load(OTHER_KEY) is None
    store.save(OTHER_KEY, second)
    assert (store.load(KEY), store.load(OTHER_KEY)) == (first, second)
    store.delete(KEY)
    assert store.load(OTHER_KEY) == second
    with one_try(store) as one, one_try(store, OTHER_KEY) as other:
        assert (one, other) == (True, True)


def test_readers_never_see_half_an_entry(store: TokenStore, second: TokenStore) -> None:
    short, long = tokens = [token_named("short"), token_named("long-" + KEY + OTHER_KEY)]
    store.save(KEY, short)

    def write() -> None:
        for token in [long, short] * 15:
            store.save(KEY, token)

    writer = threading.Thread(target=write)
    writer.start()
    seen = [second.load(KEY)]
    while writer.is_alive():
        seen.append(second.load(KEY))
    writer.join(PATIENCE)
    assert all(token in tokens for token in seen)
    assert second.load(KEY) == short


def test_only_one_at_a_time_holds_the_lock(store: TokenStore, second: TokenStore) -> None:
    inside: list[int] = []

    def enter(number: int) -> tuple[int, bool]:
        with (store, second)[number % 2].lock(KEY, timeout=PATIENCE, lease=LEASE) as held:
            inside.append(1)
            time.sleep(0.005)
            crowd = len(inside)
            inside.pop()
            return crowd, held

    assert together(6, enter) == [(1, True)] * 6


@pytest.mark.parametrize("timeout", [0, -1, MOMENT])
def test_waiting_ends_when_the_time_is_up_even_for_the_holder_itself(
    store: TokenStore, second: TokenStore, timeout: float
) -> None:
    with one_try(store) as held:
        assert held is True
        began = time.monotonic()
        for view in (store, second, store):  # one that did not get it does not release it either
            with view.lock(KEY, timeout=timeout, lease=LEASE) as late:
                assert late is False
        assert 3 * timeout - MOMENT <= time.monotonic() - began < 2


@pytest.mark.parametrize("timeout", [PATIENCE, float("inf")])
def test_waiting_ends_when_the_lock_is_released(store: TokenStore, second: TokenStore, timeout: float) -> None:
    outcome: list[bool] = []

    def wait() -> None:
        with second.lock(KEY, timeout=timeout, lease=LEASE) as held:
            outcome.append(held)

    with one_try(store):
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(MOMENT)
        assert waiter.is_alive()
    waiter.join(PATIENCE)
    assert outcome == [True]


def test_an_exception_in_the_body_comes_out_and_releases_the_lock(store: TokenStore, second: TokenStore) -> None:
    with pytest.raises(ZeroDivisionError), one_try(store):
        raise ZeroDivisionError
    with one_try(second) as held:
        assert held is True
        with pytest.raises(ZeroDivisionError), one_try(store):
            raise ZeroDivisionError


# --- entries that the store did not write


@pytest.fixture
def damage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], None]:
    """Put raw content in the place of the entry, past the store."""

    def write(content: bytes) -> None:
        if request.node.callspec.params["view"] == "file":
            (tmp_path / "cache" / f"{KEY}.json").write_bytes(content)
        else:
            with redis.Redis.from_url(request.getfixturevalue("valkey_server").url) as client:
                client.set(f"kis_retry:{{{KEY}}}:token", content)

    return write


def good() -> dict[str, Any]:
    expires_at = token_named("good").expires_at.isoformat()
    return {"version": 1, "key": KEY, "access_token": "eyJ0eXAi.good.c2ln", "expires_at": expires_at}


def but(**changes: object) -> bytes:
    return json.dumps({**good(), **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({field: value for field, value in good().items() if field != name}).encode()


class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


DAMAGES: dict[str, bytes] = {
    "a pickle": pickle.dumps(Bomb()),
    "empty": b"",
    "zeroes": bytes(len(but())),  # what a crash leaves of a file that was being written
    "not JSON": b"<html>502 Bad Gateway</html>",
    "cut short": but().rpartition(b",")[0],
    "nested deeply": b"[" * 15_000,
    "oversized": but(padding="x" * 16 * 1024),
    "of another version": but(version=2),
    "of another key": but(key=OTHER_KEY),
    "without a token": without("access_token"),
    "token with a line break": but(access_token="abc\r\nx-evil: 1"),
    "without an expiry": without("expires_at"),
    "expiry naive": but(expires_at="2030-11-24T09:00:00"),
    "expiry as only some Pythons read it": but(expires_at="2030-11-24T00:00:00Z"),
    "expiry out of this world": but(expires_at="9999-12-31T23:59:59-12:00"),
}

damaged = pytest.mark.parametrize("view", ["file", "redis", "redis client that decodes"], indirect=True)


@damaged
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_a_miss_and_the_next_save_heals_it(
    store: TokenStore, second: TokenStore, damage: Callable[[bytes], None], name: str
) -> None:
    store.save(KEY, token_named("before"))
    damage(DAMAGES[name])
    assert store.load(KEY) is None
    assert second.load(KEY) is None
    token = token_named("healed")
    store.save(KEY, token)
    assert second.load(KEY) == token
    damage(DAMAGES[name])
    store.delete(KEY)
    assert store.load(KEY) is None


def test_no_flipped_bit_of_an_entry_is_an_exception() -> None:
    store = MemoryTokenStore()
    for bit in range(8 * len(but())):
        flipped = bytearray(but())
        flipped[bit // 8] ^= 1 << bit % 8
        store.write(KEY, "token", bytes(flipped), LEASE)
        assert store.load(KEY) is None or isinstance(store.load(KEY), AccessToken)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_documents_of_several_kinds_keep_apart(place: str, tmp_path: Path) -> None:
    documents = MemoryTokenStore() if place == "memory" else FileTokenStore(tmp_path)
    documents.write(KEY, "pace", b"1", LEASE)
    assert (documents.read(KEY, "pace"), documents.load(KEY)) == (b"1", None)
    with documents.lock(KEY, "pace", timeout=0, lease=1) as pace, documents.lock(KEY, timeout=0, lease=1) as token:
        assert (pace, token) == (True, True)
    documents.delete(KEY, "pace")
    assert documents.read(KEY, "pace") is None


# --- the key


def test_the_key_of_an_application_is_32_hex_digits_that_no_version_and_no_account_changes() -> None:
    one = Credentials(APP_KEY, SECRET, "12345678-01")
    assert key_of(one) == "a0ead64ef8fecec6bb42371bdde4bc97", "of another, the next version would find no token"
    assert key_of(one) == key_of(Credentials(APP_KEY, SECRET, base_url=one.base_url + "/"))


def test_another_host_app_key_or_secret_has_another_key() -> None:
    host = Credentials(APP_KEY, SECRET).base_url
    others = [
        Credentials(APP_KEY, SECRET),
        Credentials(APP_KEY, SECRET, paper=True),
        Credentials(APP_KEY, SECRET[:-1]),
        Credentials("8" + APP_KEY, SECRET, base_url=host[:-1]),
        Credentials(APP_KEY + SECRET[0], SECRET[1:]),
    ]
    assert len({key_of(each) for each in others}) == 5


# --- memory


@pytest.mark.parametrize("copy_of", [lambda store: pickle.loads(pickle.dumps(store)), copy.copy, copy.deepcopy])
def test_a_copy_of_memory_has_the_entries_and_locks_of_its_own(copy_of: Any) -> None:
    store, token = MemoryTokenStore(), token_named("copied")
    store.save(KEY, token)
    with one_try(store):
        copied = copy_of(store)
        assert copied.load(KEY) == token
        with one_try(copied) as held:
            assert held is True
        copied.delete(KEY)
    assert store.load(KEY) == token


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, of a fork beside threads: that is the test
def test_a_lock_of_memory_held_by_another_thread_at_the_fork_does_not_block_the_child() -> None:
    store = MemoryTokenStore()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with one_try(store):
            held.set()
            done.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)

    def is_free() -> bool:
        with one_try(store) as got:
            return got

    assert in_child(is_free)
    assert not is_free()
    done.set()
    holder.join(PATIENCE)
