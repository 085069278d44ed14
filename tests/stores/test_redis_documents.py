"""What a server of Redis is asked for, to the command and the millisecond."""

from __future__ import annotations

import os
import socket
import string
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis

from kis_retry.stores.redis import RedisTokenStore
from kis_retry.stores.redis_documents import RedisDocuments

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "0123456789abcdef0123456789abcdef"


class Noting:
    """A client that notes what it is asked for, and locks that can be had or not."""

    def __init__(self, *, free: bool = True) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.free = free

    def set(self, name: str, value: bytes, **options: object) -> None:
        self.asked.append(("set", name, value, options))

    def lock(self, name: str, **options: object) -> Noting:
        self.asked.append(("lock", name, options))
        return self

    def acquire(self, *, token: str) -> bool:
        self.asked.append(("acquire", token))
        return self.free

    def release(self) -> None:
        self.asked.append(("release",))


@pytest.mark.parametrize(
    ("ttl", "milliseconds"),
    [(None, None), (20.0, 20_000), (0.25, 250), (0.0015, 1), (0.002, 2), (0.001, 1), (0.0001, 1), (0.0, 1), (-5.0, 1)],
)
def test_a_document_lives_for_its_seconds_and_never_without_end(ttl: float | None, milliseconds: int | None) -> None:
    client = Noting()
    RedisDocuments(client).write(KEY, "pace", b"1", ttl)
    assert client.asked == [("set", f"kis_retry:{{{KEY}}}:pace", b"1", {"px": milliseconds})]


@pytest.mark.parametrize(
    ("timeout", "lease", "waits", "leased"),
    [(0, 0, 0, 0.1), (-1, -1, 0, 0.1), (0.25, 0.05, 0.25, 0.1), (2.5, 0.2, 2.5, 0.2), (30, 60, 30, 60)],
)
def test_a_lock_is_waited_for_in_steps_of_a_twentieth_second_and_leased_for_a_tenth_at_least(
    timeout: float, lease: float, waits: float, leased: float
) -> None:
    client = Noting()
    with RedisDocuments(client).lock(KEY, "token", timeout=timeout, lease=lease) as held:
        assert held is True
        name, options = client.asked[0][1:]
    assert name == f"kis_retry:{{{KEY}}}:lock"
    assert options == {"timeout": leased, "blocking_timeout": waits, "sleep": 0.05, "thread_local": False}


def test_each_holder_has_a_name_of_its_own_that_nobody_can_guess() -> None:
    names = set()
    for _ in range(3):
        client = Noting()
        with RedisDocuments(client).lock(KEY, "token", timeout=0, lease=1):
            names.add(client.asked[1][1])
    assert len(names) == 3
    assert all(len(name) == 32 and set(name) <= set(string.hexdigits) for name in names)


def test_a_lock_is_released_by_the_process_that_has_it() -> None:
    client = Noting()
    with RedisDocuments(client).lock(KEY, "token", timeout=0, lease=1):
        pass
    assert [asked[0] for asked in client.asked] == ["lock", "acquire", "release"]


@pytest.mark.parametrize("pid", [-1, 2**40], ids=["a lower number", "a higher number"])
def test_a_lock_is_not_released_by_a_child_that_was_forked_under_it(monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    client = Noting()
    with RedisDocuments(client).lock(KEY, "token", timeout=0, lease=1):
        monkeypatch.setattr(os, "getpid", lambda: pid)
    assert [asked[0] for asked in client.asked] == ["lock", "acquire"]


def test_a_lock_that_was_not_had_is_not_released() -> None:
    client = Noting(free=False)
    with RedisDocuments(client).lock(KEY, "token", timeout=0, lease=1) as held:
        assert held is False
    assert [asked[0] for asked in client.asked] == ["lock", "acquire"]


@pytest.mark.parametrize("pid", [-1, 2**40], ids=["a lower number", "a higher number"])
def test_a_child_connects_anew_and_leaves_its_parents_connections_open(
    monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    documents = RedisDocuments("redis://127.0.0.1:1")
    parents = documents.client
    assert documents.client is parents
    assert parents.auto_close_connection_pool is True
    monkeypatch.setattr(os, "getpid", lambda: pid)
    assert documents.client is documents.client is not parents
    assert parents.auto_close_connection_pool is False


def test_a_ready_client_is_used_in_a_child_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Noting()
    documents = RedisDocuments(client)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert documents.client is client


def test_an_operation_is_one_command_that_is_not_sent_again_and_nothing_is_negotiated(
    listen: Callable[[Callable[[socket.socket], object]], str],
) -> None:
    heard: list[bytes] = []
    lock = threading.Lock()

    def hang_up_at_the_command(connection: socket.socket) -> None:
        while b"GET" not in (said := connection.recv(65_536)) and said:
            with lock:
                heard.append(said)
            connection.sendall(b"+OK\r\n" * said.count(b"SETINFO"))
        with lock:
            heard.append(said)

    store = RedisTokenStore(f"redis://{listen(hang_up_at_the_command)}")
    for times in (1, 2, 3):
        with pytest.raises(redis.ConnectionError):
            store.load(KEY)
        said = b"".join(heard)
        assert (said.count(b"GET"), said.count(b"HELLO")) == (times, 0)
