"""Clients of a Redis server that nobody waits long for: made from a URL, or given ready."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import ConfigurationError
from ..forking import no_fork

__all__ = ["ACCEPTED", "BoundedClient", "connect", "require_client"]

_TIMEOUT = 2.0  # seconds for a connection or an answer: a batch can do without the store, not without going on
_LIMIT = 5.0  # seconds for a command in all: name look-up, connection, greeting and answer
# Any other, such as one with a / in its password, redis-py would take for its default server's without a word.
_USABLE = re.compile(r"unix://([^/]*@)?/.+|rediss?://[^/?#]*/?\d*/?([?][^@]*)?")
ACCEPTED = (
    "redis://[user:password@]host[:port][/database], rediss:// (TLS), valkey:// and valkeys:// (the same two), or "
    "unix:///path/to/socket[?db=database]; characters such as @ / ? # in a password percent-encoded"
)


class BoundedClient:
    """
    A client whose commands and scripts each run on a thread of their own and are waited for five seconds.

    A ready client may have no time-outs, or many retries; a name server may hang, or a lock held at a fork.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return _bounded(getattr(self._client, name))


def _bounded(found: Any) -> Any:
    if not callable(found):
        return found
    return lambda *arguments, **options: _bounded(_within_limit(partial(found, *arguments, **options)))


def _within_limit(work: Callable[[], Any]) -> Any:
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def answer() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:  # the caller's to see, whatever it is
            answers.put((None, error))

    threading.Thread(target=answer, name="kis_retry-redis", daemon=True).start()
    try:
        value, error = answers.get(timeout=_LIMIT)
    except Empty:
        raise TimeoutError(f"the Redis server has not answered within {_LIMIT:g} seconds") from None
    if error is None:
        return value
    try:
        raise error.with_traceback(None)  # frames of the client may hold its password
    finally:
        del error  # else error and frame would keep each other alive


def require_client(client: Any) -> Any:
    """Return `client`; `ConfigurationError` where it is none, or asyncio's."""
    usable = all(callable(getattr(client, name, None)) for name in ("get", "set", "delete", "eval"))
    if not usable or isinstance(client, type) or inspect.iscoroutinefunction(getattr(client, "execute_command", None)):
        takes = f"a synchronous client of redis-py or valkey-py, or a URL: {ACCEPTED}"
        raise ConfigurationError(f"{type(client).__name__} is no store: RedisTokenStore takes {takes}")
    return client


def connect(url: str) -> Any:
    """Make a client for `url`, with nothing connected yet; None where `url` is none of a server."""
    try:
        with no_fork():
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
    except ImportError as error:
        raise ConfigurationError(
            "RedisTokenStore(url) needs redis-py, which is not installed: "
            "pip install '.[redis]' in a clone, or pip install redis"
        ) from error
    with suppress(ValueError, TypeError, redis.RedisError):  # their texts quote the URL, so none is chained
        scheme, _, rest = url.strip().partition("://")
        address = f"{scheme.lower().replace('valkey', 'redis')}://{rest}"
        if not _USABLE.fullmatch(address):
            raise ValueError
        client = redis.Redis.from_url(
            address,
            # Older versions leave the host's name unchecked, and a certificate of anybody's is enough then.
            **({"ssl_check_hostname": True} if address.startswith("rediss") else {}),
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            retry=Retry(NoBackoff(), 0),  # since 6.0 the default is several tries with growing waits
            protocol=2,  # enough for a few commands, and no negotiation of what they do not need
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # opens nothing; refuses an option that there is not
        return client
    return None
