"""Where a pace is kept: in memory, in a file, on a Redis server; and what takes the place of one that fails."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import asdict, replace
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from ..clock import Monotonic
from ..stores.base import documents_of
from ..stores.entry import fallback_documents, warn_unavailable
from ..stores.memory import MemoryTokenStore
from .queue import PaceStore, tell
from .redis_script import SCRIPT
from .state import FORGOTTEN, Ask, Block, PaceState

if TYPE_CHECKING:
    from ..stores.base import DocumentStore, TokenStore
    from .adaptation import Adaptation

__all__ = ["DocumentPace", "ServerClock", "pace_of"]

KIND = "pace"
LOCK_WAIT = 0.5  # seconds; the lock is held for less than a millisecond
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds without a store that failed: each try may take its time-out

DIGEST = sha1(SCRIPT.encode("ascii"), usedforsecurity=False).hexdigest()


class DocumentPace:
    """For one process, or the processes of one machine, by its monotonic clock: a document changed under its lock."""

    def __init__(self, documents: DocumentStore, key: str) -> None:
        self.blocks = not isinstance(documents, MemoryTokenStore)
        self._documents, self._key = documents, key

    def reserve(self, ask: Ask) -> Block:
        with self._documents.lock(self._key, KIND, timeout=LOCK_WAIT, lease=LOCK_WAIT) as held:
            if not held and self.blocks:
                raise TimeoutError("the lock of the pace is held by somebody who does not let it go")
            now = Monotonic.now()
            state = PaceState.decode(self._documents.read(self._key, KIND), now)
            block = state.reserve(ask, now)
            self._documents.write(self._key, KIND, state.encode(), FORGOTTEN)
            return block


class ServerClock:
    """How far a server's clock is ahead of this machine's. Pure."""

    def __init__(self) -> None:
        self._trips: deque[tuple[float, float]] = deque(maxlen=8)

    def localised(self, block: Block, server: float, sent: float, received: float) -> Block:
        """Return `block`, made at the server's time `server`, with times of this machine: the quickest trip knows."""
        self._trips.append((received - sent, server - (sent + received) / 2))
        return replace(block, at=block.at - min(self._trips)[1])


class RedisPace:
    """For all machines that reach one server, by its clock: one script in one trip."""

    blocks = True

    def __init__(self, documents: Any, key: str) -> None:
        self._documents, self._name = documents, f"kis_retry:{{{key}}}:{KIND}"
        self._clock = ServerClock()
        self._verdict: Adaptation | None = None

    def reserve(self, ask: Ask) -> Block:
        asked = {**asdict(ask), "fresh": asdict(PaceState())}
        if self._verdict is not None:
            asked["verdict"] = asdict(self._verdict)
        sent = Monotonic.now()
        kept, *numbers = self._run(json.dumps(asked))
        received = Monotonic.now()
        now, at, count, interval = map(float, numbers)
        state = PaceState.decode(kept, now)
        if not state.written:
            self._documents.client.delete(self._name)
            raise ValueError("what was kept there is no pace")
        block = state.block(at, int(count), interval)
        found = state.adaptation
        self._verdict = found if found.judge(state.full(ask), now) else None
        return self._clock.localised(block, now, sent, received)

    def _run(self, asked: str) -> Any:
        try:
            return self._evaluate(asked)
        except Exception as error:  # of redis-py or valkey-py: they have no base in common
            if "WRONGTYPE" not in str(error) and "script" not in str(error):
                raise
            self._documents.client.delete(self._name)  # somebody else's value was there
            return self._evaluate(asked)

    def _evaluate(self, asked: str) -> Any:
        client = self._documents.client
        try:
            return client.evalsha(DIGEST, 1, self._name, asked)
        except Exception as error:
            if "NOSCRIPT" not in str(error) and "NoScript" not in type(error).__name__:
                raise
            return client.eval(SCRIPT, 1, self._name, asked)


class FallbackPace:
    """The first of several places that works. When the very first fails, that is one warning."""

    blocks = True

    def __init__(self, store: TokenStore, *places: PaceStore) -> None:
        self._store, self._places = store, places
        self._pauses = [0.0] * len(places)  # seconds until a place is tried again
        self._again_at = [0.0] * len(places)

    def reserve(self, ask: Ask) -> Block:
        for number in range(len(self._places) - 1):
            if not self._pauses[number]:
                block = self._try(number, ask)
                if block is not None:
                    return block
            elif Monotonic.now() >= self._again_at[number]:  # beside what goes on: it may take its time-out
                self._again_at[number] = math.inf
                tell(self._try, number, Ask(ask.rate, ask.published))
        return self._places[-1].reserve(ask)

    def _try(self, number: int, ask: Ask) -> Block | None:
        try:
            block = self._places[number].reserve(ask)
        except Exception as error:  # any engine, any fault: a store never costs a call
            if number == 0 and not self._pauses[0]:
                tell(warn_unavailable, self._store, KIND, error)
            self._pauses[number] = min(2 * self._pauses[number] or FIRST_PAUSE, LONGEST_PAUSE)
            self._again_at[number] = Monotonic.now() + self._pauses[number]
            return None
        self._pauses[number] = 0.0
        return block


def pace_of(store: TokenStore, key: str) -> PaceStore:
    """Return where `store` keeps the pace of `key`; in memory, with a warning, where it is somebody else's store."""
    documents: Any = documents_of(store)
    if documents is None:
        tell(warn_unavailable, store, KIND, "it keeps tokens alone")
    memory = DocumentPace(documents if isinstance(documents, MemoryTokenStore) else MemoryTokenStore(), key)
    if documents is None or isinstance(documents, MemoryTokenStore):
        return memory
    shared = RedisPace(documents, key) if hasattr(documents, "client") else DocumentPace(documents, key)
    return FallbackPace(store, shared, DocumentPace(fallback_documents(), key), memory)
