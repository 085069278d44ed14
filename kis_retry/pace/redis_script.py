"""`PaceState.reserve` on a Redis or Valkey server, but for the verdict on a window, which the next ask brings along."""

from __future__ import annotations

import re

from . import adaptation, state

__all__ = ["SCRIPT"]

_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local ask = cjson.decode(ARGV[1])
local _, s = pcall(cjson.decode, redis.call('GET', KEYS[1]) or '')
if type(s) ~= 'table' or now < s.written - 1 or now > s.written + FORGOTTEN
   or s.next > s.written + 2 * FORGOTTEN then s = ask.fresh end
if ask.verdict and ask.verdict.windows == s.adaptation.windows + 1 then s.adaptation = ask.verdict end
local a = s.adaptation
s.written = now

local ended = false
if ask.through_ago >= 0 and now - ask.through_ago >= s.failed_at then
    ended, s.failures, s.away_since = s.away_since > 0, 0, 0
end
if ask.failures > 0 then
    local failed_at = now - ask.failed_ago
    if s.away_since == 0 and failed_at - s.failed_at > APART then s.failures = 0 end
    s.failures, s.failed_at = s.failures + ask.failures, math.max(s.failed_at, failed_at)
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
"""With the constants of the pure modules."""
