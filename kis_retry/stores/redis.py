"""Where a token is shared by many machines: `RedisTokenStore`, on Redis or Valkey."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import ConfigurationError
from ..forking import after_fork
from .base import TOKEN, DocumentStore
from .redis_client import ACCEPTED, BoundedClient, connect, require_client

__all__ = ["RedisTokenStore"]

_POLL = 0.05  # seconds between two tries for a lock that somebody else holds
_LEASES = 0.1, 86_400.0  # seconds; no lock is for ever

# A lock of this package is 32 hex digits and ends by itself; anything else at its key keeps nobody out, and goes.
_ACQUIRE = """
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'none' and (kind ~= 'string' or redis.call('PTTL', KEYS[1]) < 0
   or not string.match(redis.call('GET', KEYS[1]), '^' .. string.rep('%x', 32) .. '$')) then
    redis.call('DEL', KEYS[1])
end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class RedisTokenStore(DocumentStore):
    """
    Tokens shared by every machine that reaches one Redis or Valkey server. Needs the extra `redis`.

    An entry lives as long as its token, a lock as long as its lease. No command takes longer than five seconds; a
    client that is made here from a URL waits two for a connection or an answer (`?socket_timeout=…` and
    `?socket_connect_timeout=…` change that). With `rediss://` the server must show a certificate for its host name;
    `?ssl_ca_certs=…` says whom to trust. It works after a fork; made from a URL it can be pickled, password and all.

    Args:
        url_or_client: `redis://…`, `rediss://…`, `unix://…` (`valkey://…`, `valkeys://…`), or a ready synchronous
            client of redis-py or valkey-py. A `ConfigurationError` about a URL does not show it.
    """

    def __init__(self, url_or_client: Any) -> None:
        self.url = url_or_client if isinstance(url_or_client, str) else None
        client = require_client(url_or_client) if self.url is None else connect(self.url)
        if client is None:
            # What reports an error shows the locals of its frames, too.
            del self, url_or_client
            raise ConfigurationError(
                f"this is no URL of a Redis server (it is not shown: it may hold a password): it takes {ACCEPTED}"
            )
        self._use(client)
        # redis-py notices a fork too, but waits for a lock that a thread of the parent may have held: using the
        # parent's client, or closing it, could wait for ever.
        after_fork(self, RedisTokenStore._connect_again)

    def read(self, key: str, kind: str) -> bytes | None:
        try:
            data: bytes | str | None = self.client.get(_name(key, kind))
        except UnicodeDecodeError:  # a client with decode_responses, and an entry that is no text
            return None
        except Exception as error:  # of redis-py or valkey-py: they have no base in common
            if str(error).startswith("WRONGTYPE"):  # somebody's list or hash; SET replaces it
                return None
            raise
        return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data

    def write(self, key: str, kind: str, data: bytes, ttl: float | None) -> None:
        self.client.set(_name(key, kind), data, px=None if ttl is None else max(int(ttl * 1000), 1))

    def delete(self, key: str, kind: str = TOKEN) -> None:
        self.client.delete(_name(key, kind))

    @contextmanager
    def lock(self, key: str, kind: str = TOKEN, *, timeout: float, lease: float) -> Iterator[bool]:
        name, holder, pid = _name(key, "lock" if kind == TOKEN else f"{kind}:lock"), secrets.token_hex(16), os.getpid()
        milliseconds = int(1000 * min(max(lease, _LEASES[0]), _LEASES[1]))
        ends = time.monotonic() + timeout
        while not (held := bool(self.client.eval(_ACQUIRE, 1, name, holder, milliseconds))):
            left = ends - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(_POLL, left))
        try:
            yield held
        finally:
            if held and os.getpid() == pid:  # a child that was forked under it leaves it to its parent
                with suppress(Exception):  # of either library; the lease sees to the rest
                    self.client.eval(_RELEASE, 1, name, holder)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.url is None:
            raise TypeError("a RedisTokenStore of a ready client cannot be pickled: make it from a URL")
        return type(self), (self.url,)

    def __repr__(self) -> str:
        pool: Any = getattr(self._ready, "connection_pool", None)
        found = getattr(pool, "connection_kwargs", {})  # user and password are not shown
        place = f"{found.get('host', 'localhost')}:{found.get('port', 6379)}/{found.get('db') or 0}"
        if pool is None:
            place = type(self._ready).__name__
        elif "path" in found:
            place = f"unix://{found['path']}?db={found.get('db') or 0}"
        else:
            place = f"redis{'s' * ('SSL' in pool.connection_class.__name__)}://{place}"
        return f"RedisTokenStore({place!r})"

    def _use(self, client: Any) -> None:
        self._ready, self.client = client, BoundedClient(client)

    def _connect_again(self) -> None:
        if self.url is not None:
            self._ready.auto_close_connection_pool = False
            self._use(connect(self.url))


def _name(key: str, kind: str) -> str:
    """Return a name with the hash tag of its key, so that a cluster keeps all of one key on one node."""
    return f"kis_retry:{{{key}}}:{kind}"
