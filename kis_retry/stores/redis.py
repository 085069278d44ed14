"""Where a token is shared by many machines: `RedisTokenStore`, on Redis or Valkey."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import ConfigurationError
from .documents import DocumentTokenStore
from .redis_documents import RedisDocuments
from .redis_url import ACCEPTED

__all__ = ["RedisTokenStore"]


class RedisTokenStore(DocumentTokenStore):
    """
    Tokens shared by every machine that reaches one Redis or Valkey server. Needs the extra `redis`.

    An entry lives as long as its token. The lock has a lease, so a holder that died blocks nobody for longer.

    A client made here from a URL waits two seconds at most for a connection or an answer, and does not try again by
    itself; `?socket_timeout=…` and `?socket_connect_timeout=…` change that. With `rediss://` the server must show a
    certificate for its host name; `?ssl_ca_certs=…` says whom to trust. A ready client keeps its own settings.

    It works after a fork. Pickled, it is made again from its URL, password and all; a ready client from the arguments
    of its connections.

    Args:
        url_or_client: `redis://…`, `rediss://…`, `unix://…` (`valkey://…`, `valkeys://…`), or a ready synchronous
            client of redis-py or valkey-py, with its own time-outs and retries.

    Raises:
        ConfigurationError: the URL cannot be used, or redis-py is not installed. No message shows the URL.
    """

    def __init__(self, url_or_client: Any) -> None:
        if not isinstance(url_or_client, str):
            _check(url_or_client)
        self._documents = RedisDocuments(url_or_client)
        super().__init__(self._documents)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._documents.url is not None:
            return type(self), (self._documents.url,)
        return _rebuild, (type(self), _recipe(self._documents.client))

    def __repr__(self) -> str:
        return f"RedisTokenStore({_place(self._documents.client)!r})"


def _check(client: Any) -> None:
    methods = [getattr(client, name, None) for name in ("get", "set", "delete", "lock")]
    if not all(callable(method) for method in methods) or isinstance(client, type):
        raise ConfigurationError(
            f"RedisTokenStore takes a URL or a client of redis-py or valkey-py, not {type(client).__name__}; "
            f"a URL is {ACCEPTED}"
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
    if pool is None:
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
