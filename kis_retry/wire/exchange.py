"""
One request, until its outcome is final: pace, send, judge, refresh or wait, send again.

The card of an expired token is inside, the one of failures that pass by themselves outside, and each counts for itself.
A good request passes here once and never meets tenacity. Nothing here knows a library or blocks: what takes time is
yielded to the engine.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

from ..answers import Meaning, Verdict
from ..clock import Monotonic
from ..engine import Flow, Send, Sleep, Wait
from ..events import RefreshEvent, emit, warn_once
from ..pace.waiting import Reservation
from ..retrying import passing, refreshing, renewed, repeat
from ..token import AccessToken
from ..tokens.source import Replacement
from .account import guard_of
from .library import LibraryCall, Sent
from .orders import LOST, Ending, is_lost
from .protection import Protection
from .request import ApiRequest

__all__ = ["Exchange"]

_READ_AGAIN = frozenset((Meaning.LIMITED, Meaning.TRANSIENT, Meaning.NEVER_LEFT))
_ORDER_AGAIN = frozenset((Meaning.LIMITED, Meaning.NEVER_LEFT))
_REPORTED = {Meaning.LIMITED: "limited", Meaning.NEVER_LEFT: "failed"}
_MOST_ADOPTED = 3  # tokens of somebody else's that may be dead as well, in a row
_LEAST_ORDER_WAIT = 5.0  # seconds that a first token may take where orders leave once

_WRONG_ENVIRONMENT = {
    "EGW02004": "a paper key, or the tr_id of paper trading (V…), went to the host of real trading",
    "EGW02006": "a real key, or the tr_id of real trading (T…, J…, C…), went to the host of paper trading",
}


class Exchange:
    """
    The way of one request. `flow` is run once.

    Args:
        request: its `token` is what it leaves with.
        protections: the innermost first; at least one.
        library: that sends it.
    """

    def __init__(self, request: ApiRequest, protections: tuple[Protection, ...], library: LibraryCall) -> None:
        self._request = request
        self._protections = protections
        self._library = library
        guard = guard_of(request, protections, library.new_session)
        self._guard, self._source, self._is_order = guard, guard.source, guard.is_order
        self._is_left_to_function = guard.owner is not None and not guard.owner.rules.watches  # where it is refused
        self._refreshes = not self._is_left_to_function and any(each.rules.refreshes for each in protections)
        self._slot: Reservation | None = None  # of the last attempt
        self._sends = 0
        self._last: Sent | None = None
        self._refused: str | None = None  # the token with which the last one left, if KIS refused it
        self._adopted = False  # the token that it leaves with is of somebody else's
        self._leave_by: float | None = None  # no attempt begins after it
        self._is_over = False  # nothing can be done any more, and it has been told
        self._is_watched = any(each.rules.watches for each in protections)  # else it is only noticed
        library.codes = guard.policy.expired_codes
        library.alone = self._is_watched and (guard.is_order or guard.repeats)

    def flow(self) -> Flow[Sent]:
        """Send the request until its outcome is final."""
        self._mark_seen()
        held = self._held_back()
        if held is not None:
            return held
        if self._is_order:
            self._leave_by = Monotonic.now() + (self._order_deadline or _LEAST_ORDER_WAIT)
        sent = yield from self._renewed()
        if self._may_pass(sent):
            sent = yield from self._repeated(sent)
        if sent.verdict.meaning is Meaning.EXPIRED and self._source is not None and self._refused is not None:
            self._source.note_refused(self._refused)
        self._tell_end(sent)
        return sent

    # -- what drives it

    def _renewed(self) -> Flow[Sent]:
        """Send it, and once more with another token where it was refused for the one it had."""
        sent = yield from self._attempt()
        if sent.verdict.meaning is Meaning.EXPIRED and self._may_renew(sent):
            sent = yield from repeat(partial(refreshing, self._guard.policy), sent, self._resend, self._renew)
        return sent

    def _repeated(self, first: Sent) -> Flow[Sent]:
        """Send it until KIS answers, or until the deadline."""
        seconds = self._guard.transient_policy.transient_deadline
        deadline = Monotonic.now() + seconds
        if self._is_order:
            deadline = min(deadline, self._leave_by or deadline)
        else:
            self._leave_by = deadline
        again = _READ_AGAIN if not self._is_order else _ORDER_AGAIN
        cause = partial(passing, partial(_has_meaning, again), deadline, self._guard.limiter is not None)
        return (yield from repeat(cause, first, self._renewed, self._await_repeat))

    def _resend(self) -> Flow[Sent]:
        """Send it again; a token of somebody else's that is dead as well costs no attempt."""
        sent = yield from self._attempt()
        for _ in range(_MOST_ADOPTED):
            if sent.verdict.meaning is not Meaning.EXPIRED or not self._adopted:
                break
            if not (yield from self._renew(sent, 0.0)):
                break
            sent = yield from self._attempt()
        return sent

    # -- one attempt

    def _attempt(self) -> Flow[Sent]:
        yield from self._put_token()
        was_dead = self._has_dead_token()
        slot = yield from self._take_slot()
        if slot is not None and self._has_dead_token() and not was_dead:  # it died in the queue, and is being renewed
            slot.cancel()
            yield from self._put_token()
            slot = yield from self._take_slot()
        ended = self._last if self._last is not None and self._is_late() else self._held_back()
        if ended is not None:  # it is too late, or the same order was lost while this one waited
            if slot is not None:
                slot.cancel()
            self._is_over = True
            return ended
        self._put_newer_token()
        self._sends += 1
        sent_at = Monotonic.now()
        if self._sends == 1 and self._is_order:
            self._leave_by = sent_at + self._order_deadline
        self._count_order(1)
        try:
            sent: Sent = yield Send()
        except BaseException as error:  # its caller gave it up
            self._note_lost(Ending(Verdict(Meaning.TRANSIENT), error=TimeoutError, text=_given_up(error)))
            raise
        self._note(sent, sent_at)
        self._report(slot, sent)
        return sent

    def _note(self, sent: Sent, sent_at: float) -> None:
        """Remember what came of one attempt, and what is known of orders since."""
        self._last = sent
        self._refused = self._request.token if sent.verdict.meaning is Meaning.EXPIRED else None
        is_of_another = sent.redirected and sent.verdict.meaning is not Meaning.GOOD  # and says nothing of the order
        if self._is_order and sent.ending is not None and (is_of_another or is_lost(sent.ending)):
            self._note_lost(sent.ending)
        elif sent.verdict.meaning in (Meaning.EXPIRED, Meaning.LIMITED, Meaning.NEVER_LEFT):
            self._count_order(-1)  # it was not acted upon
        elif self._request.shows_orders and sent.verdict.meaning is Meaning.GOOD and not sent.verdict.unanswered:
            LOST.looked(self._request, sent_at)

    def _put_token(self) -> Flow[None]:
        """Have it leave with a token that is not known to be dead, and with one at all."""
        source, request = self._source, self._request
        if source is None or not request.needs_token:
            return
        if request.token is None:
            found = source.peek() or (yield from self._wait_for_token(source.token_future()))
        elif source.is_dead(request.token):
            found = source.current_unless(request.token)
            if found is None:
                found = yield from self._wait_for_token(source.replace_future(request.token))
        elif source.handed_out(request.token):
            found = source.peek() or (yield from self._wait_for_token(source.token_future()))
        else:  # of nobody here: KIS will say whether it is good
            return
        if found is not None:
            self._put(found)

    def _has_dead_token(self) -> bool:
        """Say whether its token is known to be dead, with no other in memory."""
        source, token = self._source, self._request.token
        if source is None or token is None or not source.is_dead(token):
            return False
        return source.current_unless(token) is None

    def _put_newer_token(self) -> None:
        """Look once more in memory: a queue must not leave with a token that died meanwhile."""
        source, request = self._source, self._request
        if source is not None and request.token is not None and source.is_dead(request.token):
            found = source.current_unless(request.token)
            if found is not None:
                self._put(found)

    def _put(self, token: AccessToken) -> None:
        before = self._request.token
        if token.value == before:
            return
        self._request.token = token.value
        for protection in self._protections:
            if protection is self._guard.owner and protection.owns(self._source):
                protection.call_back(token)
            if before is not None:  # an empty place may be meant for a token of somebody else's
                protection.rebind(before, token)

    def _wait_for_token(self, future: Any) -> Flow[AccessToken | None]:
        """Wait for a token; None where none can be had in time, so that KIS's own answer reaches the caller."""
        if not (yield Wait(future, self._seconds_left())) or future.exception() is not None:
            return None  # what comes of it is told with the refusal; raised here, the error would keep this call alive
        found = future.result()
        return found.token if isinstance(found, Replacement) else found

    def _take_slot(self) -> Flow[Reservation | None]:
        limiter = self._guard.limiter
        if limiter is None or not self._request.is_paced:
            return None
        slot = self._slot = limiter.reserve(order=self._is_order, earlier=self._slot)
        try:
            while not (yield Wait(slot, self._seconds_left())):
                if self._last is not None or limiter.is_away:  # a first attempt waits for its slot as long as it takes
                    break
                yield Wait(slot)
        except BaseException:
            slot.cancel()
            raise
        if not slot.done():
            slot.cancel()
        return slot

    def _report(self, slot: Reservation | None, sent: Sent) -> None:
        if slot is not None and self._guard.limiter is not None:
            failed = "failed" if sent.verdict.unanswered and sent.verdict.meaning is Meaning.TRANSIENT else "answered"
            self._guard.limiter.report(slot, _REPORTED.get(sent.verdict.meaning, failed))

    # -- before the next attempt

    def _renew(self, sent: Sent, seconds: float) -> Flow[bool]:
        """Get another token than the one that was refused; False where none can be had."""
        source, code = self._source, sent.verdict.code
        if source is None or self._is_over:
            return False
        replacement = yield from renewed(source, self._request.token, code, self._seconds_left(), self._tell)
        if replacement is None:
            self._is_over = True
            return False
        self._put(replacement.token)
        self._adopted = replacement.origin != "issued"
        if self._is_late():
            self._is_over = True
            return False
        self._tell("call_retried", quiet=True, msg_cd=code, token=replacement.token.fingerprint, wait=seconds)
        if seconds:
            yield Sleep(seconds)
        return True

    def _await_repeat(self, sent: Sent, seconds: float) -> Flow[bool]:
        """Tell why it leaves again, and let the wait pass."""
        if self._is_over:
            return False
        verdict = sent.verdict
        error = None if verdict.code is not None else verdict.error or "HTTPError"
        self._tell("call_retried", msg_cd=verdict.code, error=error, wait=seconds)
        if seconds:
            yield Sleep(seconds)
        return True

    # -- judgements

    @property
    def _order_deadline(self) -> float:
        return self._guard.transient_policy.order_deadline

    def _may_renew(self, sent: Sent) -> bool:
        if self._source is None:
            if self._refreshes:
                self._tell_unknown()
            return False
        if not self._request.is_repeatable or (sent.redirected and self._is_order) or not self._request.needs_token:
            return False
        return not self._is_order or self._order_deadline > 0

    def _may_pass(self, sent: Sent) -> bool:
        meaning = sent.verdict.meaning
        if not self._guard.repeats or not self._request.is_repeatable or sent.replayed or self._is_over:
            return False
        if not self._is_order:
            return meaning in _READ_AGAIN
        return meaning in _ORDER_AGAIN and not sent.redirected and self._order_deadline > 0

    def _seconds_left(self) -> float | None:
        return max(self._leave_by - Monotonic.now(), 0.0) if self._leave_by is not None else None

    def _is_late(self) -> bool:
        return self._leave_by is not None and Monotonic.now() > self._leave_by

    # -- orders

    def _held_back(self) -> Sent | None:
        if not self._is_order or not self._request.is_repeatable or not self._is_watched:
            return None
        ending = LOST.ending_of(self._request, self._guard.transient_policy.order_hold)
        if ending is None:
            return None
        self._tell("order_held_back", msg_cd=ending.verdict.code, error=ending.verdict.error)
        return replace(self._library.retold(ending), verdict=ending.verdict, replayed=True)

    def _note_lost(self, ending: Ending) -> None:
        if self._is_order and self._request.is_repeatable and self._guard.transient_policy.order_hold > 0:
            LOST.note(self._request, ending)

    def _mark_seen(self) -> None:
        for protection in self._protections:
            if protection.rules.watches or not self._is_left_to_function:
                protection.seen = True

    def _count_order(self, change: int) -> None:
        if self._is_order:
            for protection in self._protections:
                protection.orders_left += change

    # -- what is told

    def _tell_end(self, sent: Sent) -> None:
        verdict = sent.verdict
        if verdict.code in _WRONG_ENVIRONMENT:
            meaning = _WRONG_ENVIRONMENT[verdict.code]
            warn_once("wrong_environment", request=self._request.name, msg_cd=verdict.code, advice=meaning)
        if self._concerns(verdict.meaning) and not sent.replayed:
            error = None if verdict.code is not None else verdict.error or "HTTPError"
            self._tell("call_given_up", msg_cd=verdict.code, error=error)
        elif self._sends > 1:
            self._tell("call_recovered", quiet=self._adopted)

    def _concerns(self, meaning: Meaning) -> bool:
        """Say whether a rule that is in force is about such a failure."""
        if meaning is Meaning.EXPIRED:
            return self._refreshes
        return self._guard.repeats and (meaning in _READ_AGAIN or meaning is Meaning.UNCERTAIN)

    def _tell_unknown(self) -> None:
        """Warn once of a request that is refused and of which nobody knows whose it is."""
        advice = "pass tokens=TokenManager.from_env(), or send the headers appkey and appsecret"
        warn_once("account_unknown", request=self._request.name, advice=advice)

    def _tell(self, event: Any, *, quiet: bool = False, **found: Any) -> None:
        name = next((each.rules.name for each in self._protections if each.rules.name), None)
        told = RefreshEvent(name=event, callable=name, request=self._request.name, attempt=self._sends or None, **found)
        emit(told, level=logging.DEBUG if quiet else None)


def _has_meaning(meanings: frozenset[Meaning], sent: Sent) -> bool:
    return sent.verdict.meaning in meanings


def _given_up(error: BaseException) -> str:
    return f"nobody waited for the answer to this order ({type(error).__name__})"
