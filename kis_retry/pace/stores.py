"""Where a pace is kept: in memory, in a file, on a Redis server; and what takes the place of one that fails."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..clock import Monotonic
from ..stores.base import PROCESS_MEMORY, DocumentStore, MemoryTokenStore
from ..stores.entry import FAILED, Candidate, candidates_for, warn_unavailable
from . import adaptation, state
from .queue import PaceStore, tell
from .state import FORGOTTEN, Ask, Block, PaceState

if TYPE_CHECKING:
    from ..stores.base import TokenStore
    from .adaptation import Adaptation

__all__ = ["SCRIPT", "ServerClock", "pace_of"]

KIND = "pace"
LOCK_WAIT = 0.5  # seconds; the lock is held for less than a millisecond


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
            found = PaceState.decode(self._documents.read(self._key, KIND), now)
            block = found.reserve(ask, now)
            self._documents.write(self._key, KIND, found.encode(), FORGOTTEN)
            return block


# `PaceState.reserve` but for the verdict on a window, which the next ask brings along.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local ask = cjson.decode(ARGV[1])
local _, s = pcall(cjson.decode, redis.call('GET', KEYS[1]) or '')
if type(s) ~= 'table' or now < s.written - 1 or now > s.written + FORGOTTEN
   or s.next > s.written + 2 * FORGOTTEN then s = ask.fresh end
if ask.verdict.windows == s.adaptation.windows + 1 then s.adaptation = ask.verdict end
local a = s.adaptation
s.written = now

local ended, ahead = false, now - ask.now
if ask.through_at > 0 and ask.through_at + ahead >= s.failed_at then
    ended, s.failures, s.away_since = s.away_since > 0, 0, 0
end
if ask.failures > 0 then
    if s.away_since == 0 and ask.failed_at + ahead - s.failed_at > APART then s.failures = 0 end
    s.failures, s.failed_at = s.failures + ask.failures, math.max(s.failed_at, ask.failed_at + ahead)
    if s.failures >= OUTAGE and s.away_since == 0 then s.away_since = now end
end

if ask.rate >= s.top or now - s.top_at > TOP_HOLDS then s.top, s.top_at = ask.rate, now end
local pace = math.max(ask.rate, math.min(s.top, ask.published))
if ask.passed + ask.refused > 0 and ask.generation == a.generation then
    if a.seen > 0 then
        a.time = a.time + math.min(now - a.seen, LONGEST_GAP)
        a.passed, a.refused = a.passed + ask.passed, a.refused + ask.refused
    end
    a.seen = now
end
if a.fit > 0 then pace = math.min(pace, a.fit * (a.looking and 2 or 1)) end

local interval = (1 + SPARE) / pace
s.next = s.next + math.min(math.max(ask.late - LATE, 0), interval)
if ended then s.next = math.min(s.next, now + interval) end
local at, count = math.max(s.next, now + ask.lead), ask.count
if s.away_since == 0 then
    s.next = at + count * interval
elseif now < s.next then
    at, count = math.min(s.next, now + LOOK_AGAIN), 0
else
    at, count = now, 1
    s.next = now + math.max(interval, now - s.away_since < SHORT and PROBE or LATER_PROBE)
end

local kept = cjson.encode(s)
redis.call('SET', KEYS[1], kept, 'PX', FORGOTTEN * 1000)
return {kept, string.format('%.6f', now), string.format('%.6f', at), count, string.format('%.9f', interval)}
"""
_CONSTANTS = {**vars(state), **vars(adaptation)}
SCRIPT = re.sub(r"\b[A-Z]+(_[A-Z]+)*\b", lambda found: str(_CONSTANTS.get(found[0], found[0])), _SCRIPT)


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
        verdict = {} if self._verdict is None else asdict(self._verdict)
        asked = json.dumps({**asdict(ask), "fresh": asdict(PaceState()), "verdict": verdict})
        sent = Monotonic.now()
        kept, *numbers = self._run(asked)
        received = Monotonic.now()
        now, at, count, interval = map(float, numbers)
        found = PaceState.decode(kept, now)
        if not found.written:
            self._documents.client.delete(self._name)
            raise ValueError("what was kept there is no pace")
        block = found.block(at, int(count), interval)
        self._verdict = found.adaptation if found.adaptation.judge(found.full(ask), now) else None
        return self._clock.localised(block, now, sent, received)

    def _run(self, asked: str) -> Any:
        client = self._documents.client
        try:
            return client.eval(SCRIPT, 1, self._name, asked)
        except Exception as error:  # of redis-py or valkey-py: they have no base in common
            if "WRONGTYPE" not in str(error) and "script" not in str(error):
                raise
            client.delete(self._name)  # somebody else's value was there
            return client.eval(SCRIPT, 1, self._name, asked)


class FallbackPace:
    """The first of several places that works; the last one always does."""

    blocks = True

    def __init__(self, stores: list[DocumentStore], key: str) -> None:
        warn = partial(tell, warn_unavailable)
        self._places = [(Candidate(each, Monotonic.now, warn), _pace_in(each, key)) for each in stores]

    def reserve(self, ask: Ask) -> Block:
        for candidate, pace in self._places[:-1]:
            if candidate.failing:  # tried beside what goes on: it may take its time-out
                if not candidate.rests:
                    tell(candidate.ask, KIND, partial(_reserve, pace, Ask(ask.rate, ask.published)))
                continue
            block: Block = candidate.ask(KIND, partial(_reserve, pace, ask))
            if block is not FAILED:
                return block
        return self._places[-1][1].reserve(ask)


def _reserve(pace: PaceStore, ask: Ask, _: DocumentStore) -> Block:
    return pace.reserve(ask)


def _pace_in(documents: DocumentStore, key: str) -> PaceStore:
    return RedisPace(documents, key) if hasattr(documents, "client") else DocumentPace(documents, key)


def pace_of(store: TokenStore, key: str) -> PaceStore:
    """Return where `store` keeps the pace of `key`; the process's memory where it is somebody else's, for tokens."""
    documents = store if isinstance(store, DocumentStore) else PROCESS_MEMORY
    if isinstance(documents, MemoryTokenStore):
        return DocumentPace(documents, key)
    return FallbackPace([each for each in candidates_for(documents) if isinstance(each, DocumentStore)], key)
