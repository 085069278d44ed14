"""Where a token is shared by many machines: `RedisTokenStore`, on Redis or Valkey."""

from __future__ import annotations

import inspect
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from ..errors import ConfigurationError
from ..forking import after_fork, no_fork
from ..settings import without_password
from .base import TOKEN, DocumentStore

__all__ = ["RedisTokenStore"]

_POLL = 0.05  # seconds between two tries for a lock that somebody else holds
_TIMEOUT = 2.0  # seconds for a connection or an answer: a batch can do without the store, not without going on
_LIMIT = 5.0  # seconds for a command in all: name look-up, connection, greeting and answer
# Any other, such as one with a / in its password, redis-py would take for its default server's without a word.
_USABLE = re.compile(r"unix://([^/]*@)?/.+|rediss?://[^/?#]*/?\d*/?([?][^@]*)?")
_ACCEPTED = (
    "redis://[user:password@]host[:port][/database], rediss:// (TLS), valkey:// and valkeys:// (the same two), or "
    "unix:///path/to/socket[?db=database]; characters such as @ / ? # in a password percent-encoded"
)

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
            client of redis-py or valkey-py.

    Raises:
        ConfigurationError: it is no such URL, which the message does not show.
    """

    def __init__(self, url_or_client: Any) -> None:
        self.url = url_or_client if isinstance(url_or_client, str) else None
        client = _required(url_or_client) if self.url is None else _connected(self.url)
        if client is None:
            del self, url_or_client  # what reports an error shows the locals of its frames, too
            raise ConfigurationError(
                f"this is no URL of a Redis server (it is not shown: it may hold a password): it takes {_ACCEPTED}"
            )
        self._use(client)
        # redis-py notices a fork too, but waits for a lock that a thread of the parent may have held: using the
        # parent's client, or closing it, could wait for ever.
        after_fork(self, RedisTokenStore._connect_again)

    def read(self, key: str, kind: str) -> bytes | None:
        try:
            data: bytes | str | None = self.client.get(_name(key, kind))
        except Exception as error:  # of redis-py or valkey-py: they have no base in common
            # A client with decode_responses and an entry that is no text; somebody's list or hash, which SET replaces.
            if isinstance(error, UnicodeDecodeError) or str(error).startswith("WRONGTYPE"):
                return None
            raise
        return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data

    def write(self, key: str, kind: str, data: bytes, ttl: float) -> None:
        self.client.set(_name(key, kind), data, px=int(ttl * 1000))

    def delete(self, key: str, kind: str = TOKEN) -> None:
        self.client.delete(_name(key, kind))

    @contextmanager
    def lock(self, key: str, kind: str = TOKEN, *, timeout: float, lease: float) -> Iterator[bool]:
        name, holder, pid = _name(key, "lock" if kind == TOKEN else f"{kind}:lock"), secrets.token_hex(16), os.getpid()
        ends = time.monotonic() + timeout
        while not (held := bool(self.client.eval(_ACQUIRE, 1, name, holder, int(1000 * lease)))):
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
        return type(self), (self._ready if self.url is None else self.url,)

    def __repr__(self) -> str:
        place = type(self._ready).__name__ if self.url is None else without_password(self.url.strip())
        return f"RedisTokenStore({place!r})"

    def _use(self, client: Any) -> None:
        self._ready, self.client = client, _BoundedClient(client)

    def _connect_again(self) -> None:
        if self.url is not None:
            self._ready.auto_close_connection_pool = False
            self._use(_connected(self.url))


class _BoundedClient:
    """
    A client each of whose commands runs on a thread of its own and is waited for five seconds.

    A ready client may have no time-outs, or many retries; a name server may hang, or a lock held at a fork.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return partial(_within_limit, getattr(self._client, name))


def _within_limit(command: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    answer: Future[Any] = Future()
    ask = partial(command, *arguments, **options)
    threading.Thread(target=_settle, args=(answer, ask), name="kis_retry-redis", daemon=True).start()
    try:
        return answer.result(_LIMIT)
    finally:
        del answer  # else an error and this frame would keep each other alive


def _settle(answer: Future[Any], ask: Callable[[], Any]) -> None:
    try:
        answer.set_result(ask())
    except BaseException as error:  # the caller's to see, whatever it is
        answer.set_exception(error.with_traceback(None))  # frames of the client may hold its password


def _name(key: str, kind: str) -> str:
    """Return a name with the hash tag of its key, so that a cluster keeps all of one key on one node."""
    return f"kis_retry:{{{key}}}:{kind}"


def _required(client: Any) -> Any:
    usable = all(callable(getattr(client, name, None)) for name in ("get", "set", "delete", "eval"))
    if not usable or isinstance(client, type) or inspect.iscoroutinefunction(getattr(client, "execute_command", None)):
        takes = f"a synchronous client of redis-py or valkey-py, or a URL: {_ACCEPTED}"
        raise ConfigurationError(f"{type(client).__name__} is no store: RedisTokenStore takes {takes}")
    return client


def _connected(url: str) -> Any:
    """Make a client for `url`, with nothing connected yet; None where `url` is none of a server."""
    try:
        with no_fork():
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
    except ImportError as error:
        had = "pip install '.[redis]' in a clone, or pip install redis"
        needs = f"RedisTokenStore(url) needs redis-py, which is not installed: {had}"
        raise ConfigurationError(needs) from error
    scheme, _, rest = url.strip().partition("://")
    address = f"{scheme.lower().replace('valkey', 'redis')}://{rest}"
    options: dict[str, Any] = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    options["retry"] = Retry(NoBackoff(), 0)  # since 6.0 the default is several tries with growing waits
    options["protocol"] = 2  # enough for a few commands, and no negotiation of what they do not need
    with suppress(ValueError, TypeError, redis.RedisError):  # their texts quote the URL, so none is chained
        if _USABLE.fullmatch(address):
            client = redis.Redis.from_url(address, **options)
            pool = client.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # opens nothing; refuses an option that there is not
            return client
    return None
