"""Where a token is shared by many machines: Redis or Valkey, an entry and a lock with a lease for each key."""

from __future__ import annotations

import inspect
import os
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..token import AccessToken

__all__ = ["RedisTokenStore"]

_TIMEOUT = 2.0  # seconds for a connection or an answer: a batch can do without the store, not without going on
_POLL = 0.05  # seconds between two tries for a lock that somebody else holds
_LEAST_TTL = 60.0  # seconds an entry lives even where this clock says that its token is over: the clock may be wrong
_LEAST_LEASE = 0.1  # seconds; 0 would be a lock for ever
_SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
_ACCEPTED = (
    "redis://[user:password@]host[:port][/database], rediss://… (TLS), valkey://… and valkeys://… (the same two), "
    "or unix:///path/to/socket[?db=database], with redis-py's options behind a question mark; "
    "characters such as @ / ? # in a password percent-encoded"
)


class RedisTokenStore:
    """
    Tokens shared by every machine that reaches one Redis or Valkey server. Needs the extra `redis`.

    An entry lives as long as its token. The lock has a lease, so a holder that died blocks nobody for longer.

    A client made here from a URL waits two seconds at most for a connection or an answer, and does not try again by
    itself; `?socket_timeout=…` and `?socket_connect_timeout=…` change that. It works after a fork. Pickled, it is
    made again from its URL, password and all; a ready client from the arguments of its connections.

    Args:
        url_or_client: `redis://…`, `rediss://…`, `unix://…` (`valkey://…`, `valkeys://…`), or a ready synchronous
            client of redis-py or valkey-py, with its own time-outs and retries.

    Raises:
        ConfigurationError: the URL cannot be used, or redis-py is not installed. No message shows the URL.
    """

    def __init__(self, url_or_client: Any) -> None:
        self._url = url_or_client if isinstance(url_or_client, str) else None
        self._open = url_or_client if self._url is None else _connect(self._url)
        self._pid = os.getpid()
        if self._url is None:
            _check(url_or_client)

    def load(self, key: str) -> AccessToken | None:
        """
        Read the entry.

        Raises:
            Exception: redis-py's or valkey-py's own, where the server does not answer or refuses.
        """
        try:
            data = self._client.get(_name(key, "token"))
        except UnicodeDecodeError:  # a client with decode_responses, and an entry that is no text
            return None
        except Exception as error:  # of redis-py or valkey-py: they have no base in common
            if str(error).startswith("WRONGTYPE"):  # somebody's list or hash; SET replaces it
                return None
            raise
        return None if data is None else decode(data, key)

    def save(self, key: str, token: AccessToken) -> None:
        """
        Set the entry, to vanish when its token expires.

        Raises:
            Exception: as for `load`.
        """
        left = max(token.expires - time.time(), _LEAST_TTL)
        self._client.set(_name(key, "token"), encode(key, token), px=int(left * 1000))

    def delete(self, key: str) -> None:
        """
        Delete the entry.

        Raises:
            Exception: as for `load`.
        """
        self._client.delete(_name(key, "token"))

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """
        Wait up to `timeout` seconds for the lock of `key`, and have it for `lease` seconds at most.

        Raises:
            Exception: as for `load`, while waiting.
        """
        lock = self._client.lock(
            _name(key, "lock"),
            timeout=max(lease, _LEAST_LEASE),
            blocking_timeout=max(timeout, 0.0),
            sleep=_POLL,
            thread_local=False,
        )
        # redis-py names a holder by uuid1, which forked workers can have in common.
        held = lock.acquire(token=secrets.token_hex(16))
        holder = os.getpid()
        try:
            yield held
        finally:
            if held and os.getpid() == holder:
                with suppress(Exception):  # of either library; the lease sees to the rest
                    lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is not None:
            return type(self), (self._url,)
        return _rebuild, (type(self), _recipe(self._open))

    def __repr__(self) -> str:
        return f"RedisTokenStore({_place(self._open)!r})"

    @property
    def _client(self) -> Any:
        # redis-py notices a fork too, but waits for a lock that a thread of the parent may have held: using the
        # parent's client, or closing it, could wait for ever.
        if self._url is not None and self._pid != os.getpid():
            self._open.auto_close_connection_pool = False
            self._open, self._pid = _connect(self._url), os.getpid()
        return self._open


def _name(key: str, kind: str) -> str:
    """Both names of a key carry the same hash tag, so that a cluster keeps them on one node."""
    return f"kis_retry:{{{key}}}:{kind}"


def _connect(url: str) -> Any:
    try:
        import redis
    except ImportError as error:
        raise ConfigurationError(
            "RedisTokenStore(url) needs redis-py, which is not installed: pip install 'kis-retry[redis]'"
        ) from error
    client = None
    with suppress(ValueError, TypeError, redis.RedisError):  # their texts quote the URL, so none is chained
        client = _client_of(_normalised(url))
    if client is None:
        raise ConfigurationError(
            f"this is no URL of a Redis server (it is not shown: it may hold a password): it takes {_ACCEPTED}"
        )
    return client


def _client_of(url: str) -> Any:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = Redis.from_url(
        url,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        retry=Retry(NoBackoff(), 0),  # since 6.0 the default is several tries with growing waits
        protocol=2,  # enough for four commands, and no negotiation of what they do not need
    )
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)  # opens nothing; refuses an option that there is not
    return client


def _normalised(url: str) -> str:
    """`url` as redis-py takes it. ValueError where redis-py would go to its default server without a word."""
    scheme, _, rest = url.strip().partition("://")
    known = _SCHEMES.get(scheme.lower(), "")
    parts = urlsplit(f"{known}://{rest}")
    if known == "unix":
        usable = len(parts.path) > 1 and parts.netloc.rpartition("@")[2] == ""
    else:
        database = parts.path.strip("/")
        usable = known != "" and (database.isdecimal() or not database) and "@" not in parts.query + parts.fragment
    if not usable:
        raise ValueError("not a URL of a Redis server")
    return f"{known}://{rest}"


def _check(client: Any) -> None:
    methods = [getattr(client, name, None) for name in ("get", "set", "delete", "lock")]
    if not all(callable(method) for method in methods) or isinstance(client, type):
        raise ConfigurationError(
            f"RedisTokenStore takes a URL or a client of redis-py or valkey-py, not {type(client).__name__}; "
            f"a URL is {_ACCEPTED}"
        )
    if inspect.iscoroutinefunction(getattr(client, "execute_command", None)):
        raise ConfigurationError("RedisTokenStore takes a synchronous client; this one is asyncio's")


def _place(client: Any) -> str:
    """Where `client` connects to, without user and password."""
    pool: Any = getattr(client, "connection_pool", None)
    arguments = getattr(pool, "connection_kwargs", {})
    database = arguments.get("db") or 0
    if "path" in arguments:
        return f"unix://{arguments['path']}?db={database}"
    if "host" not in arguments and pool is None:
        return type(client).__name__
    scheme = "rediss" if "SSL" in getattr(pool, "connection_class", object).__name__ else "redis"
    return f"{scheme}://{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}/{database}"


def _recipe(client: Any) -> tuple[Any, ...]:
    """What makes a client like this one: its class and that of its pool and connections, and their arguments."""
    import pickle

    pool: Any = getattr(client, "connection_pool", None)
    if type(pool).__name__ not in ("ConnectionPool", "BlockingConnectionPool"):
        raise TypeError(f"a store on a {type(client).__name__} cannot be pickled: make it from a URL, or in the worker")
    # Left out: what belongs to the pool itself, which makes its own, and redis-py's bare object() for "not given".
    arguments = {
        name: value
        for name, value in pool.connection_kwargs.items()
        if not name.startswith(("maint_", "oss_", "himport_", "event_dispatcher")) and type(value) is not object
    }
    recipe = (type(client), type(pool), pool.connection_class, pool.max_connections, arguments)
    try:
        pickle.dumps(recipe)
    except Exception as error:  # whatever an argument's own __reduce__ raises
        raise TypeError(
            "this client has an argument that cannot be pickled: make the store from a URL, or in the worker"
        ) from error
    return recipe


def _rebuild(kind: type[RedisTokenStore], recipe: tuple[Any, ...]) -> RedisTokenStore:
    client, pool, connection, most, arguments = recipe
    return kind(client(connection_pool=pool(connection_class=connection, max_connections=most, **arguments)))
