"""Entries, keys, and the store of one process: what the compliance suite cannot see from outside."""

from __future__ import annotations

import copy
import json
import pickle
import string
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from children import Child
from kis_retry.credentials import Credentials
from kis_retry.forking import _run_hooks as remake_all_locks
from kis_retry.stores.base import TokenStore, key_of
from kis_retry.stores.codec import MAX_ENTRY, decode, encode
from kis_retry.stores.memory import MemoryTokenStore
from kis_retry.token import AccessToken

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = AccessToken("eyJ0eXAi.abc.c2ln", datetime(2030, 11, 24, 9, 0, 0, tzinfo=timezone(timedelta(hours=9))))
APP_KEY = "PSabcdefghijklmnopqrstuvwxyz01234567"
SECRET = "s3cr3t-" * 20

unhurried = settings(deadline=None, database=None)

words = st.text(alphabet=string.ascii_letters + string.digits + "._-+/=~", min_size=1, max_size=60)
zones = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=zones)
tokens = st.builds(AccessToken, words, instants)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@unhurried
@given(tokens, st.text(max_size=64))
def test_what_is_written_reads_back(token: AccessToken, key: str) -> None:
    text = encode(key, token)
    for read in (decode(text, key), decode(text.encode(), key)):
        assert read == token
        assert read.expires_at.utcoffset() == token.expires_at.utcoffset()


@unhurried
@given(st.binary(max_size=400) | st.text(max_size=400))
def test_anything_else_is_no_token(data: bytes | str) -> None:
    assert decode(data, KEY) is None


@unhurried
@given(st.sampled_from(["version", "key", "access_token", "expires_at"]), values)
def test_a_field_of_any_other_value_is_never_an_exception(field: str, value: object) -> None:
    read = decode(json.dumps({**json.loads(encode(KEY, TOKEN)), field: value}), KEY)
    assert read is None or (read.value.isascii() and read.value.isprintable() and " " not in read.value)
    if field in {"version", "key"}:
        assert (read is None) == (value != json.loads(encode(KEY, TOKEN))[field] or isinstance(value, (bool, float)))


@unhurried
@given(st.data())
def test_an_entry_with_a_flipped_bit_is_never_an_exception(data: st.DataObject) -> None:
    entry = bytearray(encode(KEY, TOKEN).encode())
    entry[data.draw(st.integers(0, len(entry) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    read = decode(bytes(entry), KEY)
    assert read is None or isinstance(read, AccessToken)


@unhurried
@given(st.integers(0, len(encode(KEY, TOKEN)) - 1))
def test_an_entry_cut_short_is_no_token(length: int) -> None:
    assert decode(encode(KEY, TOKEN)[:length], KEY) is None


def test_an_entry_at_the_size_limit_is_read_and_one_past_it_is_not() -> None:
    assert MAX_ENTRY == 16_384
    text = encode(KEY, TOKEN)
    full = text + " " * (16_384 - len(text))
    assert decode(full, KEY) == decode(full.encode(), KEY) == TOKEN
    assert decode(full + " ", KEY) is None
    assert decode(full.encode() + b" ", KEY) is None


def test_an_entry_is_json_of_four_fields() -> None:
    assert json.loads(encode(KEY, TOKEN)) == {
        "version": 1,
        "key": KEY,
        "access_token": "eyJ0eXAi.abc.c2ln",
        "expires_at": "2030-11-24T09:00:00+09:00",
    }


@pytest.mark.parametrize(
    "field",
    [
        *({"version": 0}, {"version": 2}, {"version": True}, {"version": 1.0}, {"version": "1"}, {"version": None}),
        *({"key": KEY[:-1] + "e"}, {"key": KEY[:-1] + "g"}, {"key": None}, {"key": [KEY]}),
        *({"access_token": None}, {"access_token": 5}, {"access_token": ""}, {"access_token": "토큰"}),
        *({"access_token": "a b"}, {"access_token": "a\r\nX-Evil: 1"}, {"access_token": ["abc"]}),
        *({"expires_at": None}, {"expires_at": 1_900_000_000}, {"expires_at": ""}, {"expires_at": "tomorrow"}),
        {"expires_at": "2030-11-24T09:00:00"},
    ],
    ids=str,
)
def test_an_entry_with_one_field_that_is_not_as_it_was_written_is_no_token(field: dict[str, object]) -> None:
    assert decode(json.dumps({**json.loads(encode(KEY, TOKEN)), **field}), KEY) is None


@pytest.mark.parametrize("field", ["version", "key", "access_token", "expires_at"])
def test_an_entry_without_a_field_is_no_token(field: str) -> None:
    entry = json.loads(encode(KEY, TOKEN))
    del entry[field]
    assert decode(json.dumps(entry), KEY) is None


@pytest.mark.parametrize("stamp", ["2030-11-24T00:00:00Z", "20301124T090000+0900", "2030-11-24 09:00:00+09:00"])
def test_a_stamp_that_only_some_pythons_read_is_refused_by_all(stamp: str) -> None:
    assert decode(json.dumps({**json.loads(encode(KEY, TOKEN)), "expires_at": stamp}), KEY) is None


@pytest.mark.parametrize(
    ("year", "usable"), [("1969-12-31", False), ("1970-01-01", True), ("2199-12-31", True), ("2200-01-01", False)]
)
def test_the_years_of_this_world(year: str, usable: bool) -> None:
    entry = {**json.loads(encode(KEY, TOKEN)), "expires_at": f"{year}T12:00:00+00:00"}
    assert (decode(json.dumps(entry), KEY) is not None) is usable


def test_a_key_is_32_hex_digits_that_do_not_hold_the_app_key() -> None:
    key = key_of(Credentials(APP_KEY, SECRET))
    assert key == "544d49cc93fa4859647043775e4fe708", "of another, the next version would find no token"


def test_the_same_application_has_the_same_key_whatever_its_secret_and_account() -> None:
    one = key_of(Credentials(APP_KEY, SECRET, "12345678-01"))
    assert one == key_of(Credentials(APP_KEY, "another secret", base_url=Credentials(APP_KEY, SECRET).base_url + "/"))


def test_another_host_or_app_key_has_another_key() -> None:
    keys = {
        key_of(Credentials(APP_KEY, SECRET)),
        key_of(Credentials(APP_KEY, SECRET, paper=True)),
        key_of(Credentials(APP_KEY[:-1], SECRET)),
        key_of(Credentials("8" + APP_KEY, SECRET, base_url=Credentials(APP_KEY, SECRET).base_url[:-1])),
    }
    assert len(keys) == 4


def test_a_memory_store_travels_with_its_entries_and_new_locks() -> None:
    store = MemoryTokenStore()
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=1):
        for copied in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
            assert isinstance(copied, TokenStore)
            assert copied.load(KEY) == TOKEN
            with copied.lock(KEY, timeout=0, lease=1) as held:
                assert held is True
            copied.delete(KEY)
    assert store.load(KEY) == TOKEN


@pytest.mark.parametrize("timeout", [float("inf"), -1])
def test_a_free_lock_is_had_whatever_the_timeout(timeout: float) -> None:
    with MemoryTokenStore().lock(KEY, timeout=timeout, lease=1) as held:
        assert held is True


@pytest.mark.parametrize(
    ("timeout", "waits"), [(-1, 0), (0, 0), (0.25, 0.25), (3, 3), (float("inf"), threading.TIMEOUT_MAX)]
)
def test_a_lock_is_waited_for_as_long_as_a_thread_can_and_not_less_than_no_time(
    monkeypatch: pytest.MonkeyPatch, timeout: float, waits: float
) -> None:
    waited: list[float] = []

    class Lock:
        def acquire(self, *, timeout: float) -> bool:
            waited.append(timeout)
            return False

    monkeypatch.setattr("kis_retry.stores.memory.threading.Lock", Lock)
    with MemoryTokenStore().lock(KEY, timeout=timeout, lease=1) as held:
        assert held is False
    assert waited == [waits]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, of a fork beside threads: that is the test
@pytest.mark.parametrize("copied", [False, True], ids=["made", "unpickled"])
def test_a_lock_held_by_another_thread_at_the_fork_does_not_block_the_child(copied: bool) -> None:
    store = pickle.loads(pickle.dumps(MemoryTokenStore())) if copied else MemoryTokenStore()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock(KEY, timeout=0, lease=1):
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    child = Child(lambda: is_free(store))
    with store.lock(KEY, timeout=0, lease=1) as mine:
        parent = mine
    done.set()
    holder.join(30)
    assert child.ended_well(), "the child did not get the lock"
    assert parent is False, "the fork released the parent's lock"


def test_a_child_has_locks_of_its_own() -> None:
    store = MemoryTokenStore()
    with store.lock(KEY, timeout=0, lease=1):
        remake_all_locks()
        with store.lock(KEY, timeout=0, lease=1) as held:
            assert held is True


def is_free(store: MemoryTokenStore) -> bool:
    with store.lock(KEY, timeout=0, lease=1) as held:
        return held


def test_the_contract_and_the_memory_store_load_no_engine() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"  # a measurement of coverage brings modules of its own
        "import kis_retry.stores.base, kis_retry.stores.memory, kis_retry.stores.file, kis_retry.stores.redis\n"
        "print(sorted({'filelock', 'platformdirs', 'redis', 'pickle', 'valkey'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
