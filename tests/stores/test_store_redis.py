"""`RedisTokenStore` on a real server: leases, faults, forks, and what a URL may be."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import valkey
from redis.backoff import ConstantBackoff
from redis.crc import key_slot
from redis.retry import Retry

from children import in_child
from kis_retry.credentials import Credentials
from kis_retry.errors import ConfigurationError
from kis_retry.stores.base import key_of
from kis_retry.stores.redis import RedisTokenStore
from kis_retry.token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "0123456789abcdef0123456789abcdef"
ENTRY, LOCK = f"kis_retry:{{{KEY}}}:token", f"kis_retry:{{{KEY}}}:lock"
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", datetime(2090, 11, 24, 9, 0, 0, tzinfo=timezone(timedelta(hours=9))))
LATER = AccessToken("eyJ0eXAi.later.c2ln", TOKEN.expires_at)
PASSWORD = "hunter2-very-secret"  # of a server that this file starts

HOLDER = """
import sys
from kis_retry.stores.redis import RedisTokenStore
with RedisTokenStore(sys.argv[1]).lock(sys.argv[2], timeout=0, lease=float(sys.argv[3])) as held:
    print(held, flush=True)
    sys.stdin.readline()
"""

Server = Any  # `ValkeyServer` of conftest.py


@pytest.fixture
def server(valkey_server: Server) -> Server:
    valkey_server.flush()
    return valkey_server


@pytest.fixture
def store(server: Server) -> RedisTokenStore:
    return RedisTokenStore(server.url)


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    """To look into the server past the store."""
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def holder(server: Server) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Start a process that has the lock, with this lease, until its standard input closes."""
    started: list[subprocess.Popen[str]] = []

    def start(lease: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, server.url, KEY, str(lease)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free(store: RedisTokenStore) -> bool:
    with store.lock(KEY, timeout=0, lease=5) as held:
        return held


# --- entries


@pytest.mark.parametrize(("hours", "least"), [(24, 86_400), (0.5, 1_800), (0.01, 60), (-5, 60)])
def test_an_entry_lives_as_long_as_its_token_and_a_minute_at_least(
    store: RedisTokenStore, client: Any, hours: float, least: float
) -> None:
    store.save(KEY, AccessToken("abc", datetime.now(timezone.utc) + timedelta(hours=hours)))
    left = client.pttl(ENTRY) / 1000
    assert least - 30 < left <= least


def test_no_name_and_no_value_holds_the_app_key_or_the_secret(store: RedisTokenStore, client: Any) -> None:
    credentials = Credentials("PSabcdefghijklmnopqrstuvwxyz01234567", "s3cr3t-s3cr3t", "12345678-01")
    key = key_of(credentials)
    with store.lock(key, timeout=0, lease=5):
        store.save(key, TOKEN)
        names = sorted(client.keys())
        assert names == [f"kis_retry:{{{key}}}:lock".encode(), f"kis_retry:{{{key}}}:token".encode()]
        held = b" ".join(names) + b" ".join(client.mget(names))
    assert TOKEN.value.encode() in held
    for secret in (credentials.app_key, credentials.app_secret, "12345678"):
        assert secret.encode() not in held


def test_both_names_are_in_one_slot_of_a_cluster() -> None:
    assert key_slot(ENTRY.encode()) == key_slot(LOCK.encode())


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "str"])
def test_somebodys_list_in_the_place_of_the_entry_is_a_miss_and_is_replaced(server: Server, decode: bool) -> None:
    with redis.Redis.from_url(server.url, decode_responses=decode) as client:
        store = RedisTokenStore(client)
        client.rpush(ENTRY, "a", "b")
        assert store.load(KEY) is None
        store.save(KEY, TOKEN)
        assert store.load(KEY) == TOKEN


def test_a_flushed_server_is_a_miss(store: RedisTokenStore, server: Server) -> None:
    store.save(KEY, TOKEN)
    server.flush()
    assert store.load(KEY) is None


# --- the lock


def test_another_process_holds_the_lock_alone(
    store: RedisTokenStore, holder: Callable[[float], subprocess.Popen[str]]
) -> None:
    process = holder(60)
    assert not free(store)
    process.communicate("done\n", timeout=30)
    assert free(store)


def test_a_killed_holder_blocks_the_rest_no_longer_than_its_lease(
    store: RedisTokenStore, client: Any, holder: Callable[[float], subprocess.Popen[str]]
) -> None:
    process = holder(0.5)
    assert 0 < client.pttl(LOCK) <= 500
    process.kill()
    process.wait(30)
    with store.lock(KEY, timeout=30, lease=5) as held:
        assert held is True


def test_a_killed_holder_blocks_the_rest_while_its_lease_lasts(
    store: RedisTokenStore, holder: Callable[[float], subprocess.Popen[str]]
) -> None:
    process = holder(60)
    process.kill()
    process.wait(30)
    assert not free(store)


def test_a_holder_whose_lease_ran_out_does_not_release_its_successors_lock(store: RedisTokenStore) -> None:
    late = store.lock(KEY, timeout=0, lease=0.1)
    assert late.__enter__() is True
    with store.lock(KEY, timeout=30, lease=60) as successor:
        assert successor is True
        late.__exit__(None, None, None)
        assert not free(store)
    assert free(store)


@pytest.mark.parametrize("lease", [0, -1, 0.0001])
def test_no_lease_is_for_ever(store: RedisTokenStore, client: Any, lease: float) -> None:
    with store.lock(KEY, timeout=0, lease=lease):
        assert client.pttl(LOCK) != -1, "a lock without an end"


def test_a_negative_timeout_is_one_try(store: RedisTokenStore) -> None:
    with store.lock(KEY, timeout=-1, lease=5) as held, store.lock(KEY, timeout=-1, lease=5) as late:
        assert (held, late) == (True, False)


@pytest.mark.parametrize("command", ["FLUSHALL", "SCRIPT FLUSH"])
def test_a_flush_under_the_lock_is_no_error(store: RedisTokenStore, client: Any, command: str) -> None:
    with store.lock(KEY, timeout=0, lease=5):
        client.execute_command(*command.split())
    assert free(store)


def test_a_server_that_dies_under_the_lock_does_not_lose_what_the_body_did(
    new_valkey_server: Callable[[], Server],
) -> None:
    server = new_valkey_server()
    store = RedisTokenStore(server.url)
    done = []
    with store.lock(KEY, timeout=0, lease=5):
        server.stop()
        done.append("refreshed")
    assert done == ["refreshed"]
    server.start()
    with pytest.raises(ZeroDivisionError), store.lock(KEY, timeout=0, lease=5):
        _die(server)


def _die(server: Server) -> None:
    server.stop()
    raise ZeroDivisionError


# --- a server in trouble


def test_a_server_that_is_gone_is_an_exception_and_one_that_is_back_is_used(
    new_valkey_server: Callable[[], Server],
) -> None:
    server = new_valkey_server()
    store = RedisTokenStore(server.url)
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=5):
        pass
    server.stop()
    _refuses(store, redis.ConnectionError)
    server.start()
    assert store.load(KEY) is None
    store.save(KEY, LATER)
    assert store.load(KEY) == LATER
    assert free(store)
    assert free(store), "the server that came back did not know the script that releases"


def test_a_deaf_server_is_an_exception_after_the_timeout(new_valkey_server: Callable[[], Server]) -> None:
    server = new_valkey_server()
    patient = RedisTokenStore(server.url)
    patient.save(KEY, TOKEN)
    server.pause(60)
    _refuses(RedisTokenStore(f"{server.url}?socket_timeout=0.05"), redis.TimeoutError)
    server.resume()
    assert patient.load(KEY) == TOKEN


def _refuses(store: RedisTokenStore, error: type[Exception]) -> None:
    with pytest.raises(error):
        store.load(KEY)
    with pytest.raises(error):
        store.save(KEY, TOKEN)
    with pytest.raises(error):
        store.delete(KEY)
    with pytest.raises(error), store.lock(KEY, timeout=0, lease=5):
        pytest.fail("the body must not run")


def test_one_operation_is_one_attempt_of_two_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        visits = []

        def hang_up() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                visits.append(1)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        store = RedisTokenStore(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                store.load(KEY)
        listener.shutdown(socket.SHUT_RDWR)
    # A connection found closed when it is taken from the pool is opened anew once: that is no retry of the command.
    assert 3 <= len(visits) <= 6
    connection = store._documents.client.connection_pool.make_connection()
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (2.0, 2.0)


def test_a_wrong_password_is_an_exception_that_does_not_show_it(new_valkey_server: Callable[[], Server]) -> None:
    server = new_valkey_server()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", PASSWORD)
    host = f"127.0.0.1:{server.port}"
    for url in (f"redis://{host}", f"redis://:wrong-{PASSWORD}@{host}"):
        with pytest.raises(redis.RedisError) as caught:
            RedisTokenStore(url).load(KEY)
        assert PASSWORD not in str(caught.value)
    store = RedisTokenStore(f"redis://default:{PASSWORD}@{host}/0")
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    assert repr(store) == f"RedisTokenStore('redis://{host}/0')"


# --- processes


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, where some other thread is alive
@pytest.mark.parametrize("ready", [False, True], ids=["url", "client"])
def test_a_forked_child_has_connections_of_its_own(server: Server, ready: bool) -> None:
    with redis.Redis.from_url(server.url) as client:
        store = RedisTokenStore(client if ready else server.url)
        store.save(KEY, TOKEN)

        def work() -> bool:
            return all(store.load(KEY) == TOKEN and free(store) for _ in range(20))

        assert in_child(work)
        assert work()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as above
def test_a_fork_in_the_middle_of_another_threads_operation_does_not_block_the_child(store: RedisTokenStore) -> None:
    store.save(KEY, TOKEN)
    busy, done = threading.Event(), threading.Event()

    def operate() -> None:
        with store._documents.client.connection_pool._lock:
            busy.set()
            done.wait(30)

    thread = threading.Thread(target=operate)
    thread.start()
    assert busy.wait(30)
    well = in_child(lambda: store.load(KEY) == TOKEN)
    done.set()
    thread.join(30)
    assert well


def test_a_store_that_finds_itself_in_a_child_connects_anew(
    store: RedisTokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = store._documents.client
    store.save(KEY, TOKEN)
    assert store._documents.client is parents
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert store.load(KEY) == TOKEN
    assert store._documents.client is store._documents.client is not parents


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as above
def test_a_child_forked_under_the_lock_does_not_release_it(store: RedisTokenStore) -> None:
    lock = store.lock(KEY, timeout=0, lease=30)
    assert lock.__enter__() is True
    assert in_child(lambda: lock.__exit__(None, None, None) is not True)
    assert not free(store)
    lock.__exit__(None, None, None)
    assert free(store)


def _by_url(server: Server) -> RedisTokenStore:
    return RedisTokenStore(server.url)


def _by_socket_url(server: Server) -> RedisTokenStore:
    return RedisTokenStore(server.unix_url)


def _by_client(server: Server) -> RedisTokenStore:
    return RedisTokenStore(redis.Redis(port=server.port, decode_responses=True, retry=Retry(ConstantBackoff(0.1), 2)))


def _by_pool(server: Server) -> RedisTokenStore:
    pool = redis.BlockingConnectionPool.from_url(server.unix_url, max_connections=3)
    return RedisTokenStore(redis.Redis(connection_pool=pool))


def _by_valkey(server: Server) -> RedisTokenStore:
    return RedisTokenStore(valkey.Valkey.from_url(server.url.replace("redis:", "valkey:")))


@pytest.mark.parametrize("make", [_by_url, _by_socket_url, _by_client, _by_pool, _by_valkey])
def test_a_pickled_store_shares_the_place(server: Server, make: Callable[[Server], RedisTokenStore]) -> None:
    store = make(server)
    store.save(KEY, TOKEN)
    copied = pickle.loads(pickle.dumps(store))
    assert type(copied) is RedisTokenStore
    assert repr(copied) == repr(store)
    assert copied.load(KEY) == TOKEN
    with copied.lock(KEY, timeout=0, lease=5):
        assert not free(store)


def _by_sentinel() -> Any:
    sentinel: Any = redis.sentinel.Sentinel
    return sentinel([("127.0.0.1", 1)]).master_for("master")


def _with_a_function() -> Any:
    kind: Any = redis.Redis
    return kind(redis_connect_func=lambda connection: connection.on_connect())


@pytest.mark.parametrize("make", [_by_sentinel, _with_a_function])
def test_a_client_that_cannot_be_pickled_says_so(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"pickled: make .* URL"):
        pickle.dumps(RedisTokenStore(make()))


# --- what it is made from


def test_a_unix_socket_is_an_address_too(server: Server, client: Any) -> None:
    for url in (server.unix_url, f"{server.unix_url}?db=3"):
        store = RedisTokenStore(url)
        store.save(KEY, TOKEN)
        assert store.load(KEY) == TOKEN
        assert free(store)
    assert client.dbsize() == 1
    assert repr(store) == f"RedisTokenStore('unix://{server.socket_path}?db=3')"


@pytest.mark.parametrize("scheme", ["redis", "valkey", "REDIS", "Valkey"])
def test_valkey_is_redis(server: Server, scheme: str) -> None:
    store = RedisTokenStore(f" {scheme}://127.0.0.1:{server.port}/2\n")
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    assert repr(store) == f"RedisTokenStore('redis://127.0.0.1:{server.port}/2')"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://localhost", "redis://localhost:6379/0"),
        ("redis://", "redis://localhost:6379/0"),
        (f"rediss://user:{PASSWORD}@cache.example:6380/1", "rediss://cache.example:6380/1"),
        (f"valkeys://:{PASSWORD}@cache.example", "rediss://cache.example:6379/0"),
        (f"redis://{PASSWORD}@cache.example?db=4", "redis://cache.example:6379/4"),
        (f"redis://cache.example?password={PASSWORD}", "redis://cache.example:6379/0"),
        (f"unix:///run/redis.sock?password={PASSWORD}", "unix:///run/redis.sock?db=0"),
        (f"unix://{PASSWORD}@/run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("unix:///s", "unix:///s?db=0"),
        ("redis://[::1]:7000/0", "redis://::1:7000/0"),
    ],
)
def test_the_repr_shows_the_place_and_no_password(url: str, place: str) -> None:
    store = RedisTokenStore(url)
    assert repr(store) == str(store) == f"RedisTokenStore({place!r})"


@pytest.mark.parametrize(
    "client",
    [
        redis.Redis(host="cache.example", username="me", password=PASSWORD),
        valkey.Valkey(host="cache.example", password=PASSWORD),
        redis.Redis.from_url(f"redis://me:{PASSWORD}@cache.example"),
    ],
)
def test_the_repr_of_a_ready_client_shows_no_password_either(client: Any) -> None:
    assert repr(RedisTokenStore(client)) == "RedisTokenStore('redis://cache.example:6379/0')"


def test_the_repr_of_a_client_without_a_pool_is_its_kind() -> None:
    class Cluster:
        get = set = delete = lock = print

    assert repr(RedisTokenStore(Cluster())) == "RedisTokenStore('Cluster')"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        f"http://:{PASSWORD}@host",
        f"redis://:{PASSWORD}/x@host",
        f"redis://:{PASSWORD}?x@host",
        f"redis://:{PASSWORD}#x@host",
        f"redis://:6380/{PASSWORD}@host",
        f"redis://:6380?{PASSWORD}@host",
        f"redis://:6380#{PASSWORD}@host",
        f"redis://:{PASSWORD}@host:port",
        f"redis://:{PASSWORD}@host:99999",
        f"redis://:{PASSWORD}@host/name",
        f"redis://:{PASSWORD}@host?socket_timeout={PASSWORD}",
        f"redis://:{PASSWORD}@host?no_such_option=1",
        f"redis://:{PASSWORD}@host?protocol=9",
        f"redis://:{PASSWORD}@[::1",
        f"rediss://:{PASSWORD}@host?ssl_cert_reqs=perhaps",
        "unix://",
        "unix:///",
        f"unix://{PASSWORD}@relative/redis.sock",
        f"unix://relative/{PASSWORD}.sock",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis://.*unix://") as caught:
        RedisTokenStore(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in str(error)
        assert "hunter2" not in repr(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("wrong", [None, 6379, b"redis://localhost", object(), redis.Redis])
def test_what_is_no_client_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes a URL or a client"):
        RedisTokenStore(wrong)


def test_an_asyncio_client_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="synchronous"):
        RedisTokenStore(redis.asyncio.Redis())


def test_without_redis_py_a_url_is_refused_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'kis-retry\[redis\]'"):
        RedisTokenStore("redis://localhost")


def test_a_valkey_client_needs_no_redis_py(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    client: Any = valkey.Valkey(port=server.port)
    store = RedisTokenStore(client)
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    assert free(store)
    client.close()


def test_nothing_is_connected_before_it_is_needed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        RedisTokenStore(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BlockingIOError):
            listener.accept()
