"""The one contract, against every store of this package, and against stores that break it."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest
import redis
import valkey

from kis_retry.stores.base import TokenStore
from kis_retry.stores.file import FileTokenStore
from kis_retry.stores.memory import MemoryTokenStore
from kis_retry.stores.redis import RedisTokenStore
from kis_retry.testing.corruption import DamagedEntryCompliance
from kis_retry.testing.store_contract import KEY, OTHER_KEY, TokenStoreCompliance

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


class _NoLock(MemoryTokenStore):
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        return contextlib.nullcontext(enter_result=True)


class _OneForAll(MemoryTokenStore):
    def load(self, key: str) -> Any:
        return super().load(OTHER_KEY if key == KEY else KEY) or super().load(key)


taken: list[Any] = []  # a context that is collected releases its lock


class _NeverReleased(MemoryTokenStore):
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        taken.append(super().lock(key, timeout=timeout, lease=lease))
        return contextlib.nullcontext(taken[-1].__enter__())


class _NeverFree(MemoryTokenStore):
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        return contextlib.nullcontext(enter_result=False)


class _Counting(MemoryTokenStore):
    """It says 0 where the lock is somebody else's: to those who ask `is False`, that is another answer."""

    @contextlib.contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        with super().lock(key, timeout=timeout, lease=lease) as held:
            yield held or 0


class _Talkative(MemoryTokenStore):
    def __repr__(self) -> str:
        token = self.load(KEY)
        return f"Talkative({token and token.value})"


@pytest.mark.parametrize(
    ("broken", "failing"),
    [
        (_NoLock, "test_the_lock_keeps_other_threads_out"),
        (_NoLock, "test_only_one_at_a_time_holds_the_lock"),
        (_NoLock, "test_the_lock_is_not_reentrant"),
        (_OneForAll, "test_keys_are_independent"),
        (_NeverReleased, "test_an_exception_in_the_body_comes_out_and_releases_the_lock"),
        (_NeverReleased, "test_the_lock_can_be_taken_again_and_again"),
        (_NeverFree, "test_a_timeout_of_zero_is_one_try"),
        (_Counting, "test_the_lock_keeps_the_second_view_out"),
        (_Counting, "test_who_did_not_get_the_lock_does_not_release_it"),
        (_Talkative, "test_no_token_is_in_the_repr"),
    ],
)
def test_the_suite_finds_a_store_that_breaks_the_contract(broken: type[MemoryTokenStore], failing: str) -> None:
    store = broken()
    test = getattr(TokenStoreCompliance(), failing)
    with pytest.raises(AssertionError):
        test(*[store for _ in inspect.signature(test).parameters])


def test_the_suite_asks_for_the_way_to_damage_an_entry() -> None:
    with pytest.raises(NotImplementedError, match="must say how"):
        DamagedEntryCompliance().damage(MemoryTokenStore(), "k", b"x")
