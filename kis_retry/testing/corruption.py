"""
What a store makes of entries that it did not write, as tests.

To inherit beside `TokenStoreCompliance`, with a method that says how raw content gets into an entry's place:

    class TestMyStore(TokenStoreCompliance, DamagedEntryCompliance):
        def damage(self, store, key, content):
            store.connection.execute("REPLACE INTO tokens VALUES (?, ?)", (key, content))
"""

# ruff: noqa: S101 - asserts are what a test suite is made of

from __future__ import annotations

import json
import os
import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest

from ..stores.codec import MAX_ENTRY, encode
from .store_contract import KEY, OTHER_KEY, TwoViews, token_named

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..stores.base import TokenStore

__all__ = ["DamagedEntryCompliance"]


class _Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def _good() -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(encode(KEY, token_named("good")))
    return entry


def _but(**changes: object) -> bytes:
    return json.dumps({**_good(), **changes}).encode()


def _without(name: str) -> bytes:
    return json.dumps({field: value for field, value in _good().items() if field != name}).encode()


_DAMAGES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "blank": lambda: b" \r\n\t ",
    "zeroes": lambda: bytes(len(_but())),  # what a crash leaves of a file that was being written
    "not-text": lambda: b"\xff\xfe\x80",
    "not-json": lambda: b"<html>502 Bad Gateway</html>",
    "cut-short": lambda: _but().rpartition(b",")[0],
    "trailing-garbage": lambda: _but() + b"}",
    "written-twice": lambda: _but() + _but(),
    "null": lambda: b"null",
    "list": lambda: b"[" + _but() + b"]",
    "string": lambda: json.dumps(_but().decode()).encode(),
    "nested-deeply": lambda: b"[" * 15_000,
    "oversized": lambda: _but(padding="x" * MAX_ENTRY),
    "another-version": lambda: _but(version=2),
    "version-of-another-type": lambda: _but(version=True),
    "without-version": lambda: _without("version"),
    "of-another-key": lambda: _but(key=OTHER_KEY),
    "without-key": lambda: _without("key"),
    "without-token": lambda: _without("access_token"),
    "token-null": lambda: _but(access_token=None),
    "token-empty": lambda: _but(access_token=""),
    "token-a-number": lambda: _but(access_token=MAX_ENTRY),
    "token-with-line-break": lambda: _but(access_token="abc\r\nx-evil: 1"),  # noqa: S106 - no password, damage
    "token-with-space": lambda: _but(access_token="abc def"),  # noqa: S106 - as above
    "token-not-ascii": lambda: _but(access_token="토큰"),  # noqa: S106 - as above
    "without-expiry": lambda: _without("expires_at"),
    "expiry-a-number": lambda: _but(expires_at=time.time()),
    "expiry-naive": lambda: _but(expires_at="2030-11-24T09:00:00"),
    "expiry-no-date": lambda: _but(expires_at="tomorrow"),
    "expiry-impossible": lambda: _but(expires_at="2030-02-30T09:00:00+09:00"),
    "expiry-out-of-this-world": lambda: _but(expires_at="9999-12-31T23:59:59-12:00"),
}


class DamagedEntryCompliance(TwoViews):
    """
    What a `TokenStore` must do about entries that it did not write. To inherit beside `TokenStoreCompliance`.

    The damages are made from this package's own format (`kis_retry.stores.codec.encode`); to a store that has another
    they are foreign all the same.
    """

    def damage(self, store: TokenStore, key: str, content: bytes) -> None:
        """Put raw `content` in the place of the entry of `key`, past the store."""
        raise NotImplementedError(f"{type(self).__name__} must say how {content[:9]!r}… gets into {store!r} as {key!r}")

    @pytest.mark.parametrize("name", _DAMAGES)
    def test_a_damaged_entry_is_a_miss_and_the_next_save_heals_it(
        self, store: TokenStore, second_store: TokenStore, name: str
    ) -> None:
        """No exception, no half-read token; and afterwards every view is well again."""
        store.save(KEY, token_named("before"))
        self.damage(store, KEY, _DAMAGES[name]())
        assert store.load(KEY) is None
        assert second_store.load(KEY) is None
        token = token_named("healed")
        store.save(KEY, token)
        assert second_store.load(KEY) == token

    def test_a_damaged_entry_can_be_deleted(self, store: TokenStore) -> None:
        """As any other."""
        self.damage(store, KEY, b"\xff")
        store.delete(KEY)
        assert store.load(KEY) is None

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_no_pickle_is_ever_loaded(self, store: TokenStore, tmp_path: Path, protocol: int) -> None:
        """Whoever can write into the store must not be able to run code in its readers."""
        bomb = pickle.dumps(_Bomb(tmp_path / "exploded"), protocol=protocol)
        self.damage(store, KEY, bomb)
        assert store.load(KEY) is None
        assert not (tmp_path / "exploded").exists(), "the entry was unpickled"
        pickle.loads(bomb)  # noqa: S301 - to show that it would have gone off
        assert (tmp_path / "exploded").exists()
