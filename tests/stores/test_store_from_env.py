"""`KIS_TOKEN_STORE`: which store a word names, and what is said of one that names none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kis_retry import FileTokenStore, MemoryTokenStore
from kis_retry.errors import ConfigurationError
from kis_retry.stores.from_env import store_from_env, store_named

PASSWORD = "hunter2-very-secret"


def test_without_the_variable_it_is_the_users_cache_folder() -> None:
    assert repr(store_from_env()) == repr(FileTokenStore())


@pytest.mark.parametrize("name", ["memory", "MEMORY", " Memory "])
def test_memory_is_one_store_for_the_whole_process(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", name)
    assert isinstance(store_from_env(), MemoryTokenStore)
    assert store_from_env() is store_from_env()


@pytest.mark.parametrize("name", ["file", "FILE", ""])
def test_file_is_the_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
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
        ("files", "'files'"),
        ("tokens.json", "'tokens.json'"),
        (f"redis+sentinel://h/0?password={PASSWORD}", "'redis+sentinel://…'"),
        (f"http://me:{PASSWORD}@host/x", "'http://…'"),
        (f"postgres://{PASSWORD}\n{PASSWORD}", "'postgres://…'"),
        (f"redis:/:{PASSWORD}@host/0", "'…'"),
        (f"{PASSWORD}@host:6379", "'…'"),
        (f"host?password={PASSWORD}", "'…'"),
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
