"""What the suite for damaged entries finds, and what it puts into an entry's place."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry.stores.codec import MAX_ENTRY, encode
from kis_retry.stores.documents import TOKEN
from kis_retry.stores.memory import MemoryTokenStore
from kis_retry.testing.corruption import DamagedEntryCompliance
from kis_retry.testing.store_contract import KEY, OTHER_KEY, token_named

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kis_retry.stores.base import TokenStore
    from kis_retry.token import AccessToken

GOOD = json.loads(encode(KEY, token_named("good")))


class InMemory(DamagedEntryCompliance):
    """The suite, for stores whose documents are in memory; it remembers the damage it did."""

    content = b""

    def damage(self, store: TokenStore, key: str, content: bytes) -> None:
        assert isinstance(store, MemoryTokenStore)
        self.content = content
        store.documents.write(key, TOKEN, content, None)


class TestMemoryTokenStore(InMemory):
    @pytest.fixture
    def store(self) -> TokenStore:
        return MemoryTokenStore()


def damage_named(name: str) -> bytes:
    suite, store = InMemory(), MemoryTokenStore()
    suite.test_a_damaged_entry_is_a_miss_and_the_next_save_heals_it(store, store, name)
    return suite.content


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("without-version", "version"),
        ("without-key", "key"),
        ("without-token", "access_token"),
        ("without-expiry", "expires_at"),
    ],
)
def test_an_entry_without_a_field_is_whole_otherwise(name: str, missing: str) -> None:
    assert json.loads(damage_named(name)).keys() == GOOD.keys() - {missing}


@pytest.mark.parametrize(
    ("name", "field", "is_bad"),
    [
        ("another-version", "version", lambda value: value > 1),
        ("version-of-another-type", "version", lambda value: value is True),
        ("of-another-key", "key", lambda value: value == OTHER_KEY),
        ("token-null", "access_token", lambda value: value is None),
        ("token-empty", "access_token", lambda value: value == ""),
        ("token-a-number", "access_token", lambda value: isinstance(value, int)),
        ("token-with-line-break", "access_token", lambda value: "\r\n" in value),
        ("token-with-space", "access_token", lambda value: " " in value),
        ("token-not-ascii", "access_token", lambda value: not value.isascii()),
        ("expiry-a-number", "expires_at", lambda value: value > 1_700_000_000),
        ("expiry-naive", "expires_at", lambda value: value == "2030-11-24T09:00:00"),
        ("expiry-no-date", "expires_at", lambda value: value == "tomorrow"),
        ("expiry-impossible", "expires_at", lambda value: "-02-30T" in value),
        ("expiry-out-of-this-world", "expires_at", lambda value: value.startswith("9999-12-31")),
    ],
)
def test_an_entry_with_one_bad_field_is_whole_otherwise(name: str, field: str, is_bad: Callable[[Any], bool]) -> None:
    entry = json.loads(damage_named(name))
    assert is_bad(entry.pop(field))
    assert {other: entry[other] for other in entry if other != "expires_at"} == {
        other: GOOD[other] for other in GOOD if other not in {field, "expires_at"}
    }
    assert ("expires_at" in entry) is (field != "expires_at")


def test_an_oversized_entry_has_nothing_else_wrong() -> None:
    content = damage_named("oversized")
    entry = json.loads(content)
    assert MAX_ENTRY < len(content) < 2 * MAX_ENTRY
    assert entry.keys() - {"padding"} == GOOD.keys()
    assert entry["access_token"] == GOOD["access_token"]


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("trailing-garbage", b"}"),
        ("written-twice", None),
    ],
)
def test_what_follows_a_whole_entry_spoils_it(name: str, rest: bytes | None) -> None:
    content = damage_named(name)
    first = content[: content.index(b"}") + 1]
    assert json.loads(first).keys() == GOOD.keys()
    assert content == first + (first if rest is None else rest)


def test_an_entry_that_is_cut_short_begins_well() -> None:
    content = damage_named("cut-short").decode()
    assert json.dumps(GOOD).startswith(content)
    assert f'"access_token": "{GOOD["access_token"]}"' in content


def test_zeroes_are_as_many_as_an_entry_is_long() -> None:
    assert damage_named("zeroes") == b"\0" * len(json.dumps(GOOD))


# -- stores that break the rule


class Unpickles(MemoryTokenStore):
    def load(self, key: str) -> AccessToken | None:
        with suppress(Exception):
            pickle.loads(self.documents.read(key, TOKEN) or b"")
        return super().load(key)


class Believes(MemoryTokenStore):
    """Whatever is there, it makes a token of it."""

    def load(self, key: str) -> AccessToken | None:
        is_there = self.documents.read(key, TOKEN) is not None
        return super().load(key) or (token_named("believed") if is_there else None)


class LeavesDamage(MemoryTokenStore):
    """It writes over no entry that it cannot read, and deletes none."""

    def save(self, key: str, token: AccessToken) -> None:
        if self.documents.read(key, TOKEN) is None or self.load(key):
            super().save(key, token)

    def delete(self, key: str) -> None:
        if self.load(key):
            super().delete(key)


class LeavesAndBelieves(LeavesDamage, Believes):
    def delete(self, key: str) -> None:
        pass


def test_the_suite_finds_a_store_that_believes_in_damage() -> None:
    store = Believes()
    with pytest.raises(AssertionError):
        InMemory().test_a_damaged_entry_is_a_miss_and_the_next_save_heals_it(store, store, "empty")


def test_the_suite_finds_another_view_that_believes_in_damage() -> None:
    store, second_store = MemoryTokenStore(), Believes()
    second_store.documents = store.documents
    with pytest.raises(AssertionError):
        InMemory().test_a_damaged_entry_is_a_miss_and_the_next_save_heals_it(store, second_store, "empty")


def test_the_suite_finds_a_store_that_does_not_heal() -> None:
    store = LeavesDamage()
    with pytest.raises(AssertionError):
        InMemory().test_a_damaged_entry_is_a_miss_and_the_next_save_heals_it(store, store, "empty")


def test_the_suite_finds_a_store_that_does_not_delete_damage() -> None:
    with pytest.raises(AssertionError):
        InMemory().test_a_damaged_entry_can_be_deleted(LeavesAndBelieves())


def test_the_suite_finds_a_store_that_loads_pickles(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the entry was unpickled"):
        InMemory().test_no_pickle_is_ever_loaded(Unpickles(), tmp_path, pickle.HIGHEST_PROTOCOL)


def test_a_pickle_of_every_protocol_is_tried() -> None:
    (mark,) = DamagedEntryCompliance.test_no_pickle_is_ever_loaded.pytestmark  # type: ignore[attr-defined]
    name, protocols = mark.args
    assert (name, list(protocols)) == ("protocol", list(range(pickle.HIGHEST_PROTOCOL + 1)))


def test_the_suite_asks_for_the_way_to_damage_an_entry() -> None:
    with pytest.raises(NotImplementedError, match=r"must say how b'<html>not'… gets into MemoryTokenStore\(\) as 'k'"):
        DamagedEntryCompliance().damage(MemoryTokenStore(), "k", b"<html>not an entry")
