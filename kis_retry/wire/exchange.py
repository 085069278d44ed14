"""
One request, until its outcome is final: pace, send, judge, refresh or wait, send again.

The card of an expired token is inside, the one of failures that pass by themselves outside, and each counts for itself.
A good request passes here once and never meets tenacity. Nothing here knows a library or blocks: what takes time is
yielded to the engine.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..answers import PASSING, Meaning, Verdict
from ..clock import Monotonic
from ..engine import Flow, Send, Sleep, Wait
from ..events import RefreshEvent, emit, warn_once
from ..pace.limiter import RateLimiter
from ..pace.waiting import Reservation
from ..policy import RetryPolicy
from ..retrying import passing, refreshing, renewed, repeat
from ..token import AccessToken
from ..tokens.source import LiveSource, Replacement
from .account import token_flow
from .orders import LOST, is_lost, kept
from .protection import UNDER_WAY, Protection, policy_of
from .request import UNREPEATABLE, KisRequest, LibraryCall, Sent

__all__ = ["flow_of"]

_ORDER_AGAIN = frozenset((Meaning.LIMITED, Meaning.NEVER_LEFT))
_NOT_ACTED_UPON = frozenset((Meaning.EXPIRED, Meaning.LIMITED, Meaning.NEVER_LEFT))
_MOST_ADOPTED = 3  # tokens of somebody else's that may be dead as well, in a row
_LEAST_ORDER_WAIT = 5.0  # seconds that a first token may take where orders leave once

_WRONG_ENVIRONMENT = {
    "EGW02004": "a paper key, or the tr_id of paper trading (V…), went to the host of real trading",
    "EGW02006": "a real key, or the tr_id of real trading (T…, J…, C…), went to the host of paper trading",
}


def flow_of(call: LibraryCall, protections: tuple[Protection, ...]) -> Flow[Sent]:
    """Return the way of one request, for an engine; the innermost protection comes first."""
    if not call.request.is_about_token:
        return _Exchange(call, protections).flow()
    names_account = call.request.app_key is not None and call.request.app_secret is not None
    refreshing = (each for each in protections if names_account and each.rules.refreshes and each.rules.watches)
    sources = (each.source_of(call) for each in refreshing)
    return token_flow(call, next((source for source in sources if source is not None), None))


class _Exchange:
    """
    The way of one request to the API. Each rule is that of the innermost protection that has it.

    `_source` is that of its account, None where nobody knows whose it is, and `_owner` the protection that knows it.
    `_policy` bounds a refresh, `_patience` a repeat after failures that pass, and what an order waits for.
    """

    def __init__(self, call: LibraryCall, protections: tuple[Protection, ...]) -> None:
        self._call = call
        self._request: KisRequest = call.request  # its `token` is what it leaves with
        self._protections = protections
        self._slot: Reservation | None = None  # of the last attempt
        self._sends = 0
        self._last: Sent | None = None
        self._adopted = False  # the token that it leaves with is of somebody else's
        self._leave_by: float | None = None  # no attempt begins after it
        self._is_over = False  # nothing can be done any more, and it has been told
        self._resolve()

    def _resolve(self) -> None:
        request, protections, call = self._request, self._protections, self._call
        refreshing = [each for each in protections if each.rules.refreshes]
        repeating = [each for each in protections if each.rules.repeats]
        owner = source = None
        for each in refreshing:
            source = each.source_of(call) if each.rules.watches else None
            if source is not None or not each.rules.watches:
                owner = each
                break
        self._owner: Protection | None = owner
        self._source: LiveSource | None = source
        self._is_left_to_function = owner is not None and source is None
        self._refreshes = bool(refreshing) and not self._is_left_to_function
        self._is_watched = any(each.rules.watches for each in protections)  # else it is only noticed
        whose = owner or protections[0]
        self._policy: RetryPolicy = policy_of(whose.rules, whose.first, source) or whose.policy
        self._patience = repeating[0].policy if repeating else self._policy
        idempotent = repeating[0].rules.idempotent if repeating else None
        self._is_order = not (request.is_read or idempotent)
        self._again = _ORDER_AGAIN if self._is_order else PASSING
        waiting = [each for each in repeating if each.rules.watches and repeating[0].rules.watches]
        self._repeats = bool(waiting) and idempotent is not False and self._patience.transient_deadline > 0
        limiters = (each.limiter(request, source) for each in waiting if request.is_paced)
        self._limiter: RateLimiter | None = next((found for found in limiters if found is not None), None)
        call.codes = self._policy.expired_codes
        call.alone = self._is_watched and (self._is_order or self._repeats)

    def flow(self) -> Flow[Sent]:
        """Send the request until its outcome is final; run once."""
        for protection in self._protections:
            if protection.rules.watches or not self._is_left_to_function:
                protection.seen = True
        if self._is_order:
            held = self._held_back()
            if held is not None:
                return held
            self._leave_by = Monotonic.now() + (self._patience.order_deadline or _LEAST_ORDER_WAIT)
        sent = yield from self._renewed()
        if self._repeats and sent.verdict.meaning in self._again and self._may_leave_again(sent):
            sent = yield from self._repeated(sent)
        source, token = self._source, self._request.token
        if sent.verdict.meaning is Meaning.EXPIRED and not self._is_over and source is not None and token is not None:
            source.note_refused(token)
        self._tell_end(sent)
        return sent

    def _renewed(self) -> Flow[Sent]:
        """Send it, and once more with another token where it was refused for the one it had."""
        sent = yield from self._attempt()
        if sent.verdict.meaning is not Meaning.EXPIRED or not self._request.needs_token:
            return sent
        if self._source is None and self._refreshes:
            advice = "pass tokens=TokenManager.from_env(), or send the headers appkey and appsecret"
            warn_once("account_unknown", request=self._request.name, advice=advice)
        if self._source is not None and self._may_leave_again(sent):
            sent = yield from repeat(partial(refreshing, self._policy), sent, self._resend, self._renew)
        return sent

    def _repeated(self, first: Sent) -> Flow[Sent]:
        deadline = Monotonic.now() + self._patience.transient_deadline
        if not self._is_order:
            self._leave_by = deadline
        deadline = min(deadline, self._leave_by or deadline)
        again = self._again  # tenacity keeps what is asked, and would keep this call
        is_paced = self._limiter is not None and self._limiter.rate > 0
        cause = partial(passing, lambda sent: sent.verdict.meaning in again, deadline, is_paced)
        return (yield from repeat(cause, first, self._renewed, self._await_repeat))

    def _resend(self) -> Flow[Sent]:
        """Send it again; a token of somebody else's that is dead as well costs no attempt."""
        sent = yield from self._attempt()
        for _ in range(_MOST_ADOPTED):
            is_dead_too = self._adopted and sent.verdict.meaning is Meaning.EXPIRED
            if not is_dead_too or not (yield from self._renew(sent, 0.0)):
                break
            sent = yield from self._attempt()
        return sent

    def _attempt(self) -> Flow[Sent]:
        while True:
            was_alive = yield from self._put_token()
            slot = yield from self._take_slot()
            if slot is None or self._put_current() or not was_alive:
                break  # else its token died in the queue, and is being renewed
        ended = None
        if self._last is not None and self._is_late():
            ended = self._last
        elif self._is_order:
            ended = self._held_back()  # the same one may have been lost while this one waited
        if ended is not None:
            self._is_over = True
            return ended
        self._sends += 1
        sent_at = Monotonic.now()
        if self._is_order:
            self._leave_by = sent_at + self._patience.order_deadline if self._sends == 1 else self._leave_by
            for protection in self._protections:
                protection.orders_left += 1
        UNDER_WAY.set(self._call)
        try:
            sent: Sent = yield Send()
        except BaseException as error:  # its caller gave it up
            words = f"nobody waited for the answer to this order ({type(error).__name__})"
            self._note_lost(Sent(Verdict(Meaning.TRANSIENT), error=TimeoutError(words)))
            raise
        finally:
            if UNDER_WAY.get() is self._call:  # else it is a coroutine that is collected, and this is another's
                UNDER_WAY.set(None)
        self._note(sent, sent_at, slot)
        return sent

    def _note(self, sent: Sent, sent_at: float, slot: Reservation | None) -> None:
        meaning, unanswered = sent.verdict.meaning, sent.verdict.unanswered
        self._last = sent
        if slot is not None and self._limiter is not None:
            failed = meaning is Meaning.NEVER_LEFT or (unanswered and meaning is Meaning.TRANSIENT)
            self._limiter.report(slot, "limited" if meaning is Meaning.LIMITED else "failed" if failed else "answered")
        if self._is_order:
            if is_lost(sent):
                self._note_lost(sent)
            elif meaning in _NOT_ACTED_UPON:
                for protection in self._protections:
                    protection.orders_left -= 1
        elif self._request.shows_orders and meaning is Meaning.GOOD and not unanswered:
            LOST.looked(self._request, sent_at)

    def _put_token(self) -> Flow[bool]:
        """Have it leave with a token that is not known to be dead, and with one at all; False where that cannot be."""
        source, request = self._source, self._request
        if source is None or not request.needs_token:
            return True
        if not self._put_current():
            found = yield from self._wait_for_token(source.replace_future(request.token))
        elif request.token is None or source.handed_out(request.token):
            found = source.peek() or (yield from self._wait_for_token(source.token_future()))
        else:  # of nobody here: KIS will say whether it is good
            return True
        if found is not None and found.value != request.token:
            self._put(found)
        return found is not None or not source.is_dead(request.token or "")

    def _put_current(self) -> bool:
        """Look in memory for another token than one that is known to be dead; False where there is none."""
        source, token = self._source, self._request.token
        if source is None or token is None or not self._request.needs_token or not source.is_dead(token):
            return True
        found = source.current_unless(token)
        if found is not None:
            self._put(found)
        return found is not None

    def _put(self, token: AccessToken) -> None:
        before, self._request.token = self._request.token, token.value
        for protection in self._protections:
            if protection is self._owner:
                protection.call_back(token, self._source)
            if before is not None:  # an empty place may be meant for a token of somebody else's
                protection.rebind(before, token)

    def _wait_for_token(self, future: Any) -> Flow[AccessToken | None]:
        """Wait for a token; None where none can be had in time, so that KIS's own answer reaches the caller."""
        if not (yield Wait(future, self._seconds_left())) or future.exception() is not None:
            return None  # what comes of it is told with the refusal; raised here, the error would keep this call alive
        found = future.result()
        return found.token if isinstance(found, Replacement) else found

    def _take_slot(self) -> Flow[Reservation | None]:
        limiter = self._limiter
        if limiter is None:
            return None
        slot = self._slot = limiter.reserve(order=self._is_order, earlier=self._slot)
        try:
            is_first = self._last is None  # that one waits for its slot as long as it takes
            if not slot.done() and not (yield Wait(slot, self._seconds_left())) and is_first and not limiter.is_away:
                yield Wait(slot)
        finally:
            if not slot.done():  # given up, or too late
                slot.cancel()
        return slot

    def _renew(self, sent: Sent, seconds: float) -> Flow[bool]:
        """Get another token than the one that was refused; False where none can be had."""
        source, code = self._source, sent.verdict.code
        if source is None or self._is_over:
            return False
        replacement = yield from renewed(source, self._request.token, code, self._seconds_left(), self._tell)
        if replacement is not None:
            self._put(replacement.token)
            self._adopted = replacement.origin != "issued"
        if replacement is None or self._is_late(seconds):
            self._is_over = True
            return False
        self._tell("call_retried", quiet=True, msg_cd=code, token=replacement.token.fingerprint, wait=seconds)
        yield Sleep(seconds)
        return True

    def _await_repeat(self, sent: Sent, seconds: float) -> Flow[bool]:
        if not self._may_leave_again(sent):
            return False
        self._tell("call_retried", wait=seconds, **sent.verdict.reason)
        yield Sleep(seconds)
        return True

    def _may_leave_again(self, sent: Sent) -> bool:
        if self._is_over or sent.replayed or self._request.body is UNREPEATABLE:
            return False
        return not self._is_order or (not sent.redirected and self._patience.order_deadline > 0)

    def _seconds_left(self) -> float | None:
        return max(self._leave_by - Monotonic.now(), 0.0) if self._leave_by is not None else None

    def _is_late(self, seconds: float = 0.0) -> bool:
        return self._leave_by is not None and Monotonic.now() + seconds > self._leave_by

    def _held_back(self) -> Sent | None:
        """Return how the same order ended, where its answer was lost."""
        if self._request.body is UNREPEATABLE or not self._is_watched:
            return None
        ending = LOST.ending_of(self._request, self._patience.order_hold)
        if ending is None:
            return None
        self._tell("order_held_back", msg_cd=ending.verdict.code, error=ending.verdict.error)
        if ending.error is None:
            sent = self._call.answer(ending.status, ending.body, ending.location)
        else:
            sent = kept(ending, self._call.lost)  # made again: whoever raises it leaves his frames there
        return sent._replace(verdict=ending.verdict, replayed=True)

    def _note_lost(self, sent: Sent) -> None:
        if self._is_order and self._request.body is not UNREPEATABLE and self._patience.order_hold > 0:
            LOST.note(self._request, kept(sent, self._call.lost))

    def _tell_end(self, sent: Sent) -> None:
        meaning, code = sent.verdict.meaning, sent.verdict.code
        if code in _WRONG_ENVIRONMENT:
            warn_once("wrong_environment", request=self._request.name, msg_cd=code, advice=_WRONG_ENVIRONMENT[code])
        is_of_repeats = self._repeats and (meaning in PASSING or meaning is Meaning.UNCERTAIN)
        if (self._refreshes if meaning is Meaning.EXPIRED else is_of_repeats) and not sent.replayed:
            self._tell("call_given_up", **sent.verdict.reason)
        elif self._sends > 1:
            self._tell("call_recovered", quiet=self._adopted)

    def _tell(self, name: Any, *, quiet: bool = False, **found: Any) -> None:
        function = next((each.rules.name for each in self._protections if each.rules.name), None)
        found |= {"callable": function, "request": self._request.name, "attempt": self._sends or None}
        emit(RefreshEvent(name=name, **found), quiet=quiet)
