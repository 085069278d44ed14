"""`RedisTokenStore` on a real server: leases, faults, time limits, forks, and what a URL may be."""

from __future__ import annotations

import pickle
import ssl
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import valkey
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from children import Child, in_child
from kis_retry import AccessToken, RedisTokenStore
from kis_retry.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

KEY = "0123456789abcdef0123456789abcdef"
ENTRY, LOCK = f"kis_retry:{{{KEY}}}:token", f"kis_retry:{{{KEY}}}:lock"
TOKEN = AccessToken("eyJ0eXAi.first.c2ln", datetime(2090, 11, 24, 9, 0, 0, tzinfo=timezone(timedelta(hours=9))))
LATER = AccessToken("eyJ0eXAi.later.c2ln", TOKEN.expires_at)
PASSWORD = "hunter2-very-secret"  # of a server that this file starts
CERTIFICATES = Path(__file__).parent / "certificates"  # each signed by itself: one for 127.0.0.1, one for another host

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


def is_free(store: RedisTokenStore) -> bool:
    with store.lock(KEY, timeout=0, lease=5) as held:
        return held


def refuses(store: RedisTokenStore, error: type[Exception]) -> None:
    for ask in (
        lambda: store.load(KEY),
        lambda: store.save(KEY, TOKEN),
        lambda: store.delete(KEY),
        lambda: is_free(store),
    ):
        with pytest.raises(error) as caught:
            ask()
        assert PASSWORD not in str(caught.value)


# --- entries


@pytest.mark.parametrize(("hours", "least"), [(24, 86_400), (0.5, 1_800), (0.01, 60), (-5, 60)])
def test_an_entry_lives_as_long_as_its_token_and_a_minute_at_least(
    store: RedisTokenStore, client: Any, hours: float, least: float
) -> None:
    store.save(KEY, AccessToken("abc", datetime.now(timezone.utc) + timedelta(hours=hours)))
    assert least - 30 < client.pttl(ENTRY) / 1000 <= least


def test_somebodys_list_in_the_place_of_the_entry_is_a_miss_and_is_replaced(
    store: RedisTokenStore, client: Any
) -> None:
    client.rpush(ENTRY, "a", "b")
    assert store.load(KEY) is None
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN


# --- the lock


def test_a_lock_is_leased(store: RedisTokenStore, client: Any) -> None:
    with store.lock(KEY, timeout=0, lease=60) as held:
        assert held is True
        assert 50 < client.pttl(LOCK) / 1000 <= 60


def test_a_holder_whose_lease_ran_out_does_not_release_its_successors_lock(store: RedisTokenStore) -> None:
    late = store.lock(KEY, timeout=0, lease=0.1)
    assert late.__enter__() is True
    with store.lock(KEY, timeout=30, lease=60) as successor:
        assert successor is True
        late.__exit__(None, None, None)
        assert not is_free(store)
    assert is_free(store)


FOREIGN: dict[str, Callable[[Any], object]] = {
    "a value without an end": lambda client: client.set(LOCK, "0" * 32),
    "binary": lambda client: client.set(LOCK, b"\xff" * 32, ex=3600),
    "a longer value": lambda client: client.set(LOCK, "0" * 33, ex=3600),
    "a list with an end": lambda client: client.rpush(LOCK, "a") and client.expire(LOCK, 3600),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_lock_at_the_locks_key_keeps_nobody_out(store: RedisTokenStore, client: Any, name: str) -> None:
    FOREIGN[name](client)
    with store.lock(KEY, timeout=0, lease=5) as held:
        assert held is True
        assert not is_free(store)
    assert client.exists(LOCK) == 0


def test_a_server_that_is_gone_is_an_exception_but_under_the_lock_and_one_that_is_back_is_used(
    new_valkey_server: Callable[[], Server],
) -> None:
    server = new_valkey_server()
    store = RedisTokenStore(server.url)
    store.save(KEY, TOKEN)
    with store.lock(KEY, timeout=0, lease=5):
        server.stop()  # what the body did is not lost to that
    refuses(store, redis.ConnectionError)
    server.start()
    assert store.load(KEY) is None
    store.save(KEY, LATER)
    assert store.load(KEY) == LATER
    assert is_free(store)


def test_a_deaf_server_is_an_exception_after_the_timeout_of_the_url(new_valkey_server: Callable[[], Server]) -> None:
    server = new_valkey_server()
    store = RedisTokenStore(server.url)
    store.save(KEY, TOKEN)
    server.pause(60)
    refuses(RedisTokenStore(f"{server.url}?socket_timeout=0.05"), redis.TimeoutError)
    server.resume()
    assert store.load(KEY) == TOKEN


def test_ready_clients_without_time_limits_and_a_hung_server_hang_nobody(
    new_valkey_server: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kis_retry.stores.redis._LIMIT", 0.2)  # it is five seconds
    server = new_valkey_server()
    patient = Retry(ConstantBackoff(1), 50)
    store = RedisTokenStore(redis.Redis.from_url(server.url, socket_timeout=None, retry=patient))
    other = RedisTokenStore(valkey.Valkey.from_url(server.url))
    store.save(KEY, TOKEN)
    server.pause(60)
    asks: list[Callable[[], object]] = [*(partial(store.load, KEY), partial(other.load, KEY), partial(is_free, store))]
    with ThreadPoolExecutor(len(asks)) as pool:
        errors = [future.exception(20) for future in [pool.submit(ask) for ask in asks]]
    assert all("Timeout" in type(error).__name__ for error in errors), errors
    server.resume()
    assert store.load(KEY) == other.load(KEY) == TOKEN
    other.client.close()


def test_a_wrong_password_is_an_exception_that_does_not_show_it(new_valkey_server: Callable[[], Server]) -> None:
    server = new_valkey_server()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", PASSWORD)
    host = f"127.0.0.1:{server.port}"
    for url in (f"redis://{host}", f"redis://:wrong-{PASSWORD}@{host}"):
        refuses(RedisTokenStore(url), redis.RedisError)
    store = RedisTokenStore(f"redis://default:{PASSWORD}@{host}/0")
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN
    assert repr(store) == f"RedisTokenStore('redis://***@{host}/0')"


# --- the life of a client


def test_a_ready_client_is_freed_with_its_stores(server: Server) -> None:
    client: Any = redis.Redis.from_url(server.url)
    store = RedisTokenStore(client)
    store.save(KEY, TOKEN)
    assert is_free(store)
    gone = weakref.ref(client)
    with redis.Redis.from_url("redis://127.0.0.1:1") as nobody, pytest.raises(redis.ConnectionError):
        RedisTokenStore(nobody).load(KEY)
    del client, store
    assert gone() is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, where some other thread is alive
@pytest.mark.parametrize("ready", [False, True], ids=["url", "client"])
def test_a_forked_child_has_connections_of_its_own(server: Server, ready: bool) -> None:
    with redis.Redis.from_url(server.url) as client:
        store = RedisTokenStore(client if ready else server.url)
        store.save(KEY, TOKEN)

        def work() -> bool:
            return all(store.load(KEY) == TOKEN and is_free(store) for _ in range(20))

        assert in_child(work)
        assert work()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as above
def test_a_fork_while_another_thread_waits_for_the_server_does_not_block_the_child(
    new_valkey_server: Callable[[], Server],
) -> None:
    server = new_valkey_server()
    store = RedisTokenStore(server.url)
    store.save(KEY, TOKEN)
    server.pause(60)
    waiting = threading.Thread(target=lambda: store.load(KEY))
    waiting.start()
    child = Child(lambda: store.load(KEY) == TOKEN)
    server.resume()
    assert child.ended_well()
    waiting.join(30)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as above
def test_a_child_forked_under_the_lock_does_not_release_it(store: RedisTokenStore) -> None:
    lock = store.lock(KEY, timeout=0, lease=30)
    assert lock.__enter__() is True
    assert in_child(lambda: lock.__exit__(None, None, None) is not True)
    assert not is_free(store)
    lock.__exit__(None, None, None)
    assert is_free(store)


@pytest.mark.parametrize("kind", ["url", "unix_url"])
def test_a_pickled_store_of_a_url_shares_the_place_and_one_of_a_client_cannot_be_pickled(
    server: Server, client: Any, kind: str
) -> None:
    store = RedisTokenStore(getattr(server, kind))
    store.save(KEY, TOKEN)
    copied = pickle.loads(pickle.dumps(store))
    assert (type(copied), repr(copied), copied.load(KEY)) == (RedisTokenStore, repr(store), TOKEN)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(RedisTokenStore(client))


# --- what it is made from


@pytest.mark.parametrize("scheme", ["redis", "valkey", "REDIS", "Valkey"])
def test_valkey_is_redis(server: Server, scheme: str) -> None:
    store = RedisTokenStore(f" {scheme}://127.0.0.1:{server.port}/2\n")
    store.save(KEY, TOKEN)
    assert store.load(KEY) == TOKEN


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://localhost", "redis://localhost"),
        (f"rediss://user:{PASSWORD}@cache.example:6380/1", "rediss://***@cache.example:6380/1"),
        (f"redis://cache.example?password={PASSWORD}", "redis://cache.example?***"),
        (f"unix://{PASSWORD}@/run/redis.sock?db=1", "unix://***@/run/redis.sock?***"),
    ],
)
def test_the_repr_shows_the_place_and_no_password(url: str, place: str) -> None:
    assert repr(RedisTokenStore(url)) == f"RedisTokenStore({place!r})"
    if not url.startswith("rediss"):
        assert repr(RedisTokenStore(redis.Redis.from_url(url))) == "RedisTokenStore('Redis')"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        f"http://:{PASSWORD}@host",
        f"redis+sentinel://host/0?password={PASSWORD}",
        f"redis://:{PASSWORD}/x@host",
        f"redis://:6380?{PASSWORD}@host",
        f"redis://:{PASSWORD}@host:port",
        f"redis://:{PASSWORD}@host/name",
        f"redis://:{PASSWORD}@host?socket_timeout={PASSWORD}",
        f"redis://:{PASSWORD}@host?no_such_option=1",
        f"redis://:{PASSWORD}@[::1",
        f"rediss://:{PASSWORD}@host?ssl_cert_reqs=perhaps",
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


@pytest.mark.parametrize("wrong", [None, b"redis://localhost", redis.Redis, redis.asyncio.Redis()])
def test_what_is_no_client_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes a synchronous client of redis-py or valkey-py, or a URL"):
        RedisTokenStore(wrong)


def test_without_redis_py_a_url_is_refused_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[redis\]' in a clone"):
        RedisTokenStore("redis://localhost")


# --- over TLS


class TlsServer:
    """Something like Redis behind TLS: it answers +OK to everything, and keeps what it was told."""

    def __init__(self, listen: Callable[[Callable[[socket.socket], object]], str], certificate: str) -> None:
        self.told = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
        self._address = listen(self._serve)

    def _serve(self, raw: socket.socket) -> None:
        with self._context.wrap_socket(raw, server_side=True) as connection:
            while data := connection.recv(65_536):
                self.told += data
                connection.sendall(b"+OK\r\n" * max(data.count(b"*"), 1))

    def save(self, trusted: str, **options: str) -> None:
        wanted = {"ssl_ca_certs": str(CERTIFICATES / f"{trusted}.pem"), **options}
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        store = RedisTokenStore(f"rediss://:{PASSWORD}@{self._address}?{query}")
        store.save(KEY, TOKEN)
        store.client.close()


@pytest.mark.parametrize(
    ("certificate", "options"),
    [("loopback", {}), ("elsewhere", {"ssl_check_hostname": "false"}), ("elsewhere", {"ssl_cert_reqs": "none"})],
)
def test_a_server_of_the_host_or_one_that_the_url_says_not_to_check_is_used(
    listen: Callable[[Callable[[socket.socket], object]], str], certificate: str, options: dict[str, str]
) -> None:
    server = TlsServer(listen, certificate)
    server.save(certificate, **options)
    assert PASSWORD.encode() in server.told
    assert TOKEN.value.encode() in server.told


@pytest.mark.parametrize("certificate", ["elsewhere", "loopback"])
def test_a_server_of_another_host_or_signer_gets_neither_password_nor_token(
    listen: Callable[[Callable[[socket.socket], object]], str], certificate: str
) -> None:
    server = TlsServer(listen, certificate)
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        server.save("elsewhere")
    assert server.told == b""
