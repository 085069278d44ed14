"""Documents on a Redis or Valkey server: an entry with a time to live and a lock with a lease for each."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .documents import TOKEN
from .redis_url import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RedisDocuments"]

_POLL = 0.05  # seconds between two tries for a lock that somebody else holds
_LEAST_LEASE = 0.1  # seconds; 0 would be a lock for ever


class RedisDocuments:
    """
    Documents behind one client, made here from a URL or given ready.

    `kis_retry:{<key>}:<kind>` is the document, `kis_retry:{<key>}:lock` the token's lock and
    `kis_retry:{<key>}:<kind>:lock` that of any other kind. A client made from a URL works after a fork.
    """

    def __init__(self, url_or_client: Any) -> None:
        self.url = url_or_client if isinstance(url_or_client, str) else None
        self._open = url_or_client if self.url is None else connect(self.url)
        self._pid = os.getpid()

    @property
    def client(self) -> Any:
        """The client to use in this process."""
        # redis-py notices a fork too, but waits for a lock that a thread of the parent may have held: using the
        # parent's client, or closing it, could wait for ever.
        if self.url is not None and self._pid != os.getpid():
            self._open.auto_close_connection_pool = False
            self._open, self._pid = connect(self.url), os.getpid()
        return self._open

    def read(self, key: str, kind: str) -> bytes | None:
        """
        Read the entry.

        Raises:
            Exception: redis-py's or valkey-py's own, where the server does not answer or refuses.
        """
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
        """
        Set the entry, to vanish after `ttl` seconds.

        Raises:
            Exception: as for `read`.
        """
        self.client.set(_name(key, kind), data, px=None if ttl is None else max(int(ttl * 1000), 1))

    def delete(self, key: str, kind: str) -> None:
        """
        Delete the entry.

        Raises:
            Exception: as for `read`.
        """
        self.client.delete(_name(key, kind))

    @contextmanager
    def lock(self, key: str, kind: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """
        Wait up to `timeout` seconds for the lock, and have it for `lease` seconds at most.

        Raises:
            Exception: as for `read`, while waiting.
        """
        lock = self.client.lock(
            _name(key, "lock" if kind == TOKEN else f"{kind}:lock"),
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


def _name(key: str, kind: str) -> str:
    """All names of a key carry the same hash tag, so that a cluster keeps them on one node."""
    return f"kis_retry:{{{key}}}:{kind}"
