"""What a URL of a Redis server may be, and the client made from it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError

__all__ = ["ACCEPTED", "connect"]

_TIMEOUT = 2.0  # seconds for a connection or an answer: a batch can do without the store, not without going on
_SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
ACCEPTED = (
    "redis://[user:password@]host[:port][/database], rediss://… (TLS), valkey://… and valkeys://… (the same two), "
    "or unix:///path/to/socket[?db=database], with redis-py's options behind a question mark; "
    "characters such as @ / ? # in a password percent-encoded"
)


def connect(url: str) -> Any:
    """
    Make a client for `url`; nothing is connected yet.

    Raises:
        ConfigurationError: the URL cannot be used, or redis-py is not installed. No message shows the URL.
    """
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
            f"this is no URL of a Redis server (it is not shown: it may hold a password): it takes {ACCEPTED}"
        )
    return client


def _client_of(url: str) -> Any:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # Older versions leave the host's name unchecked, and a certificate of anybody's is enough then.
    tls = {"ssl_check_hostname": True} if url.startswith("rediss://") else {}
    client = Redis.from_url(
        url,
        **tls,
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
    known = _SCHEMES.get(scheme.lower(), "")  # without any, redis-py refuses it
    parts = urlsplit(f"{known}://{rest}")
    if known == "unix":
        usable = len(parts.path) > 1 and not parts.netloc.rpartition("@")[2]
    else:
        database = parts.path.strip("/")
        usable = (database.isdecimal() or not database) and "@" not in parts.query + parts.fragment
    if not usable:
        raise ValueError("not a URL of a Redis server")
    return f"{known}://{rest}"
