"""Where a pace is kept: in memory, in a file, on a Redis server; and what takes the place of one that fails."""

from __future__ import annotations

import contextvars
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from ..clock import Monotonic
from ..stores.base import PROCESS_MEMORY, DocumentStore, MemoryTokenStore
from ..stores.entry import FAILED, Candidate, candidates_for, warn_unavailable
from .schedule import FORGOTTEN, Ask, Block, PaceState

if TYPE_CHECKING:
    from ..stores.base import TokenStore

__all__ = ["DocumentPace", "FallbackPace", "localised", "pace_of", "start"]

KIND = "pace"
LOCK_WAIT = 0.5  # seconds; the lock is held for less than a millisecond


class DocumentPace:
    """For one process, or the processes of one machine, by its monotonic clock: a document changed under its lock."""

    def __init__(self, documents: DocumentStore, key: str) -> None:
        self.blocks = not isinstance(documents, MemoryTokenStore)
        self.documents, self._key = documents, key

    def reserve(self, ask: Ask) -> Block:
        with self.documents.lock(self._key, KIND, timeout=LOCK_WAIT, lease=LOCK_WAIT) as held:
            if not held and self.blocks:
                raise TimeoutError("the lock of the pace is held by somebody who does not let it go")
            now = Monotonic.now()
            found = PaceState.from_json(self.documents.read(self._key, KIND), now)
            block = found.reserve(ask, now)
            self.documents.write(self._key, KIND, found.to_json().encode(), FORGOTTEN)
            return block


# Adds what is asked for to a list, with the server's time, and returns the list. Its first entry is a state that has
# taken in all before the second one; who knows all that came since puts a newer state in its place.
_SCRIPT = """
local name, time = KEYS[1], redis.call('TIME')
if redis.call('TYPE', name)['ok'] ~= 'list' then redis.call('DEL', name) end
if redis.call('LINDEX', name, 0) == ARGV[2] then
    redis.call('LTRIM', name, ARGV[4], -1)
    redis.call('LPUSH', name, ARGV[3])
end
redis.call('RPUSH', name, string.format('[%d.%06d, %s]', time[1], time[2], ARGV[1]))
redis.call('LTRIM', name, -1000, -1)
redis.call('EXPIRE', name, ARGV[5])
return redis.call('LRANGE', name, 0, -1)
"""


class RedisPace:
    """
    For all machines that reach one server, by its clock, in one trip.

    Each process works out by itself what all have asked for, one after the other, and so which slots are its own.
    """

    def __init__(self, documents: Any, key: str) -> None:
        self.documents, self._name = documents, f"kis_retry:{{{key}}}:{KIND}"
        self._trips: deque[tuple[float, float]] = deque(maxlen=8)
        self._known: tuple[Any, ...] = ("", "", 0)  # the first entry, the state after the last, and how many there were

    def reserve(self, ask: Ask) -> Block:
        asked, sent = json.dumps(asdict(ask)), Monotonic.now()
        entries = self.documents.client.eval(_SCRIPT, 1, self._name, asked, *self._known, int(FORGOTTEN))
        received = Monotonic.now()
        asks = [each for each in map(_read, entries) if each is not None]
        state = PaceState.from_json(entries[0], asks[0][0])
        blocks = [state.reserve(each, now) for now, each in asks]
        self._known = entries[0], state.to_json(), len(entries)
        return localised(blocks[-1], asks[-1][0], sent, received, self._trips)


def _read(entry: bytes | str) -> tuple[float, Ask] | None:
    """Return what was asked for and when; None where that is the state, or somebody else's."""
    try:
        now, asked = json.loads(entry)
        return now, Ask(**asked)
    except (ValueError, TypeError, RecursionError):
        return None


def localised(block: Block, server: float, sent: float, received: float, trips: deque[tuple[float, float]]) -> Block:
    """Return `block`, made at the server's time `server`, with times of this machine: the quickest trip knows."""
    trips.append((received - sent, server - (sent + received) / 2))
    return replace(block, at=block.at - min(trips)[1])


class FallbackPace:
    """The first of several places that works; the last one always does."""

    blocks = True  # on a disk or the network

    def __init__(self, *places: Any, last: DocumentPace) -> None:
        def warn(place: Any, operation: str, error: Exception) -> None:
            start(warn_unavailable, place.documents, operation, error)

        self._candidates, self._last = [Candidate(each, Monotonic.now, warn) for each in places], last

    def reserve(self, ask: Ask) -> Block:
        for candidate in self._candidates:
            if not candidate.failing:
                block: Block = candidate.ask(KIND, methodcaller("reserve", ask))
                if block is not FAILED:
                    return block
            elif not candidate.rests:  # tried beside what goes on: it may take its time-out
                start(candidate.ask, KIND, methodcaller("reserve", Ask(ask.rate, ask.published)))
        return self._last.reserve(ask)


def pace_of(store: TokenStore, key: str) -> DocumentPace | FallbackPace:
    """Return where `store` keeps the pace of `key`; the process's memory where it is somebody else's, for tokens."""
    documents = store if isinstance(store, DocumentStore) else PROCESS_MEMORY
    if isinstance(documents, MemoryTokenStore):
        return DocumentPace(documents, key)
    *found, last = [each for each in candidates_for(documents) if isinstance(each, DocumentStore)]
    places = [(RedisPace if hasattr(each, "client") else DocumentPace)(each, key) for each in found]
    return FallbackPace(*places, last=DocumentPace(last, key))


def start(function: Callable[..., object], *given: object) -> bool:
    """Call `function` on a thread without its starter's context; return False where no thread can be had."""
    thread = threading.Thread(target=function, args=given, name="kis_retry-pace", daemon=True)
    try:
        contextvars.Context().run(thread.start)
    except RuntimeError:
        return False
    return True
