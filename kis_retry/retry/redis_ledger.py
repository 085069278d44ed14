"""A pace on a Redis or Valkey server: one script and one round trip for a slot, by the server's clock."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .adaptive import IDLE, SETTLING, Adaptation, Window
from .outage import FORGOTTEN_AFTER as FAILURES_FORGOTTEN_AFTER
from .outage import LEAST_FAILURES, LOOK_AGAIN, PROBES
from .pace import FORGOTTEN_AFTER, LATE, LEAST_RATE, Grant, interval_of, restored

if TYPE_CHECKING:
    from ..stores.redis_documents import RedisDocuments
    from .outage import Tally

__all__ = ["TAKE", "RedisLedger", "arguments"]

_MICRO = 1_000_000

# `PaceState.take` but for the adaptation, in whole microseconds; the tests hold the two against each other.
_TAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local rate_interval, limit, late = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answered, refused, failures = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local failed_ago, through_ago, epoch = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

local names = {'written', 'next', 'failures', 'failed_at', 'out_since', 'since', 'seen_at', 'answered', 'refused',
               'interval', 'epoch'}
local found = redis.call('HMGET', KEYS[1], unpack(names))
local s = {}
for i, name in ipairs(names) do
    local value = tonumber(found[i] or '') or 0
    s[name] = (value >= 0 and value < 9e15) and value or 0
end
local adaptation = redis.call('HGET', KEYS[1], 'adaptation') or ''
if now < s.written or now > s.written + FORGOTTEN or s.next > s.written + 2 * FORGOTTEN or s.interval > SLOWEST
   or math.max(s.failed_at, s.out_since, s.seen_at, s.since - SETTLING) > s.written then
    for _, name in ipairs(names) do s[name] = 0 end
    adaptation = ''
end
s.written = now

local ended = false
if through_ago >= 0 and now - through_ago >= s.failed_at then
    ended = s.out_since > 0
    s.failures, s.out_since = 0, 0
end
if failures > 0 then
    local failed_at = now - failed_ago
    if s.out_since == 0 and failed_at - s.failed_at > FAILURES_FORGOTTEN then s.failures = 0 end
    s.failures = s.failures + failures
    s.failed_at = math.max(s.failed_at, failed_at)
    if s.failures >= LEAST_FAILURES and s.out_since == 0 then s.out_since = now end
end

if epoch == s.epoch and answered + refused > 0 then
    if now - s.seen_at > IDLE then s.since, s.answered, s.refused = now, 0, 0 end
    s.seen_at = now
    if now >= s.since then s.answered, s.refused = s.answered + answered, s.refused + refused end
end

local interval = rate_interval
if rate_interval > 0 then interval = math.max(rate_interval, s.interval) end
if late > LATE then s.next = s.next + math.min(late - LATE, interval) end
if ended then s.next = math.min(s.next, now + interval) end

local at, slot = math.max(s.next, now), 1
if s.out_since > 0 then
    local probe = PROBE_LATER
    if now - s.out_since < PROBE_UNTIL then probe = PROBE_FIRST end
    if now < s.next then
        at, slot = math.min(s.next, now + LOOK_AGAIN), 0
    else
        s.next = now + math.max(probe, interval)
    end
elseif limit >= 0 and at - now > limit then
    slot = 0
else
    s.next = at + interval
end

local written = {}
for _, name in ipairs(names) do
    written[#written + 1] = name
    written[#written + 1] = string.format('%.0f', s[name])
end
redis.call('HSET', KEYS[1], 'adaptation', adaptation, unpack(written))
redis.call('PEXPIRE', KEYS[1], FORGOTTEN / 1000)
return {string.format('%.0f', at - now), slot, s.failures, string.format('%.0f', now), string.format('%.0f', s.since),
        s.answered, s.refused, s.epoch, adaptation}
"""

# What the calls counted so far mean has been judged here; nobody else has judged them since.
_ADAPT = """
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or '') ~= tonumber(ARGV[1]) or
   tonumber(redis.call('HGET', KEYS[1], 'since') or '') ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'since', ARGV[4], 'answered', 0, 'refused', 0, 'interval', ARGV[5],
           'adaptation', ARGV[6])
return 1
"""


def _with_constants(script: str) -> str:
    (until, first), (_, later) = PROBES
    seconds = {
        "FAILURES_FORGOTTEN": FAILURES_FORGOTTEN_AFTER,
        "FORGOTTEN": FORGOTTEN_AFTER,
        "SETTLING": SETTLING,
        "SLOWEST": interval_of(LEAST_RATE),
        "IDLE": IDLE,
        "LATE": LATE,
        "LOOK_AGAIN": LOOK_AGAIN,
        "PROBE_UNTIL": until,
        "PROBE_FIRST": first,
        "PROBE_LATER": later,
    }
    script = script.replace("LEAST_FAILURES", str(LEAST_FAILURES))
    for name, value in seconds.items():
        script = re.sub(rf"\b{name}\b", str(_micro(value)), script)
    return script


def _micro(seconds: float) -> int:
    return round(seconds * _MICRO)


TAKE = _with_constants(_TAKE)


class RedisLedger:
    """For all machines that reach one server. What is kept there is forgotten ten minutes after the last call."""

    blocks = True

    def __init__(self, documents: RedisDocuments, key: str) -> None:
        self._documents = documents
        self._name = f"kis_retry:{{{key}}}:pace"
        self._client: Any = None
        self._take: Any = None
        self._adapt: Any = None

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        """
        Take the next slot.

        Raises:
            Exception: redis-py's or valkey-py's own, where the server does not answer or refuses.
        """
        self._register()
        sent = time.monotonic()
        found = self._run(arguments(tally, rate, limit))
        # The server's clock was read between sending and now; half-way is right on average.
        at = (sent + time.monotonic()) / 2 + float(found[0]) / _MICRO
        if not math.isfinite(at):
            raise ValueError("the server's answer is no time")
        adaptation, changed = self._judged(found, rate)
        in_force = min(rate, adaptation.lowered) if adaptation.lowered else rate
        return Grant(at, bool(found[1]), in_force, changed, int(found[2]), adaptation.epoch)

    def after_fork(self) -> None:
        """Nothing is held between two calls; the documents see to the connection."""

    def _register(self) -> None:
        client = self._documents.client
        if client is not self._client:
            self._take, self._adapt = client.register_script(TAKE), client.register_script(_ADAPT)
            self._client = client

    def _run(self, arguments: list[int]) -> Any:
        try:
            return self._take(keys=[self._name], args=arguments)
        except Exception as error:  # of redis-py or valkey-py: they have no base in common
            if "WRONGTYPE" not in str(error):
                raise
            self._client.delete(self._name)  # somebody else's; what is kept here is a hash
            return self._take(keys=[self._name], args=arguments)

    def _judged(self, found: Any, rate: float) -> tuple[Adaptation, float | None]:
        """What is in force from the next slot on, and the rate before where that is another."""
        now, since = int(found[3]), int(found[4])
        adaptation = _decoded(found[8], epoch=int(found[7]))
        window = Window(since / _MICRO, 0.0, int(found[5]), int(found[6]))
        judged = adaptation.judge(window, now / _MICRO, rate)
        if judged is None:
            return adaptation, None
        same = judged.epoch == adaptation.epoch
        begins = now if same else now + _micro(SETTLING)
        interval = _micro(interval_of(judged.lowered))
        arguments = [adaptation.epoch, since, judged.epoch, begins, interval, json.dumps(asdict(judged))]
        if not int(self._adapt(keys=[self._name], args=arguments)) or same:
            return adaptation, None
        return judged, adaptation.lowered or rate


def arguments(tally: Tally, rate: float, limit: float | None) -> list[int]:
    """What the script takes after its key, in its order; times in microseconds, -1 for none."""
    return [
        _micro(interval_of(rate)),
        -1 if limit is None else _micro(limit),
        _micro(tally.late),
        tally.answered,
        tally.refused,
        tally.failures,
        _micro(tally.failed_ago),
        -1 if tally.through_ago is None else _micro(tally.through_ago),
        tally.epoch,
    ]


def _decoded(text: str | bytes, epoch: int) -> Adaptation:
    try:
        adaptation: Adaptation = restored(Adaptation, json.loads(text or "{}"))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return Adaptation(epoch=epoch)
    return adaptation if adaptation.epoch == epoch else Adaptation(epoch=epoch)
