"""The one contract, against every store of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
import valkey

from kis_retry.stores.base import TokenStore
from kis_retry.stores.file import FileTokenStore
from kis_retry.stores.memory import MemoryTokenStore
from kis_retry.stores.redis import RedisTokenStore
from kis_retry.testing.corruption import DamagedEntryCompliance
from kis_retry.testing.store_contract import TokenStoreCompliance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TestMemoryTokenStore(TokenStoreCompliance):
    @pytest.fixture
    def store(self) -> TokenStore:
        return MemoryTokenStore()


class TestFileTokenStore(TokenStoreCompliance, DamagedEntryCompliance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> TokenStore:
        return FileTokenStore(tmp_path / "cache")

    @pytest.fixture
    def second_store(self, store: TokenStore, tmp_path: Path) -> TokenStore:
        return FileTokenStore(tmp_path / "cache")

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "cache"

    def damage(self, store: TokenStore, key: str, content: bytes) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{key}.json").write_bytes(content)


class _RedisCompliance(TokenStoreCompliance):
    @pytest.fixture(autouse=True)
    def _empty(self, valkey_server: Any) -> None:
        valkey_server.flush()
        self.url = valkey_server.url

    @pytest.fixture
    def second_store(self, store: TokenStore) -> TokenStore:
        return RedisTokenStore(self.url)


class _DamagedRedisCompliance(_RedisCompliance, DamagedEntryCompliance):
    def damage(self, store: TokenStore, key: str, content: bytes) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.set(f"kis_retry:{{{key}}}:token", content)


class TestRedisTokenStoreByUrl(_DamagedRedisCompliance):
    @pytest.fixture
    def store(self) -> TokenStore:
        return RedisTokenStore(self.url)


class TestRedisTokenStoreByDecodingClient(_DamagedRedisCompliance):
    @pytest.fixture
    def store(self) -> Iterator[TokenStore]:
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            yield RedisTokenStore(client)


class TestRedisTokenStoreByValkeyClient(_RedisCompliance):  # what is damaged is bytes to it, as to the one by URL
    @pytest.fixture
    def store(self) -> Iterator[TokenStore]:
        client: Any = valkey.Valkey.from_url(self.url)
        yield RedisTokenStore(client)
        client.close()
