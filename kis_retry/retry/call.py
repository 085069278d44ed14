"""
One call of a decorated function: its causes, its policy, its pace. Pure but for the slot that it waits for.

What only an expired token needs is in `token_expired`, what only a passing failure needs in `transient`; what is seen
of a call on the wire is in `context.Call`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..answers import code_of
from ..context import CURRENT, Call, Sighting, current_call
from ..events import EventName, RefreshEvent, emit
from ..policy import RetryPolicy
from ..token import AccessToken
from ..tokens.source import NonBlockingSource

if TYPE_CHECKING:
    from ..cause import Cause
    from .binding import TokenLocation
    from .decoration import Decoration
    from .token_expired import TokenExpired

__all__ = ["Pace", "ProtectedCall", "call_under_way"]


class Pace(Protocol):
    """What a call asks of a `RateLimiter`, or of the pace of the process where there is none."""

    @property
    def rate(self) -> float:
        """Calls a second; 0: no pace."""
        ...

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for a slot, `timeout` seconds at most; False where there was none in time."""
        ...

    async def acquire_async(self, timeout: float | None = None) -> bool:
        """`acquire`, without stopping the event loop or occupying a thread."""
        ...

    def report(self, outcome: str) -> None:
        """Be told what became of a request: "answered", "refused" (EGW00201) or "failed" (nobody answered)."""
        ...


class ProtectedCall(Call):
    """
    One call of a decorated function.

    Attributes:
        decoration: what is known of its function.
        policy: the bounds.
        source: where its tokens come from; None where they are not refreshed.
        location: where it keeps its token.
        used: the token that it begins with, bare, as far as that is known before anything is looked into.
        unbound: what is known of its token, where the source is to be asked for one before the first attempt.
        handed: the last token that the source handed out inside it.
        lenders: other sources, by what they handed out inside it: those of other accounts.
        limiter: the pace of its requests; None where failures that pass by themselves are not repeated.
        takes_slot_itself: nobody has seen a request of the function yet, so each attempt takes a slot.
        began: when, on the monotonic clock.
        deadline: seconds for which it is made again after failures that pass by themselves.
        begin_by: until when the next attempt must have begun, on the same clock; None: any time.
        gave_up: its last outcome stands, though a cause was met.
    """

    # Of the class: what a good call never sets costs it nothing.
    source: NonBlockingSource | None = None
    location: TokenLocation | None = None
    used: str | None = None
    unbound: TokenExpired | None = None
    handed: str | None = None
    lenders: Mapping[str, NonBlockingSource] = MappingProxyType({})
    limiter: Pace | None = None
    takes_slot_itself = False
    _has_slot = False
    deadline = 0.0
    begin_by: float | None = None
    gave_up = False

    def __init__(
        self,
        decoration: Decoration,
        parent: Call | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        policy: RetryPolicy,
    ) -> None:
        # Not by super(), which costs every good call more.
        self.name = decoration.name
        self.parent = parent
        self.args = args
        self.kwargs = kwargs
        self.decoration = decoration
        self.policy = policy
        self.began = time.monotonic()

    # Why it may be made again: only looked into where it did not just go well.

    @property
    def token_expired(self) -> TokenExpired | None:
        """The cause that is about its token; None where that is not refreshed."""
        if self.source is None:
            return None
        kept = vars(self)
        if "_token_expired" not in kept:
            kept.setdefault("_token_expired", self.decoration.token_expired(self))  # once, whatever threads ask
        found: TokenExpired = kept["_token_expired"]
        return found

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The reasons to make it again, in the order in which they are asked."""
        kept = vars(self)
        if "_causes" not in kept:
            kept.setdefault("_causes", self.decoration.causes(self))  # as above
        found: tuple[Cause, ...] = kept["_causes"]
        return found

    # What became of an attempt.

    def failed_with_value(self, value: object) -> bool:
        """Whether the attempt that returned `value` failed for one of the causes."""
        if self.failed is None and type(value) is dict and value.get("rt_cd") == "0":
            return False
        return any(cause.matches_value(value) for cause in self.causes)

    def failed_with_error(self, error: Exception) -> bool:
        """Whether the attempt that raised `error` failed for one of the causes."""
        return any(cause.matches_error(error) for cause in self.causes)

    def code_of(self, value: object, error: BaseException | None) -> str | None:
        """KIS's code in an outcome, or in the answer that was seen on the wire."""
        said = code_of(getattr(error, "response", None)) if error is not None else code_of(value)
        seen = self.last_failed
        return said or (code_of(seen.response) if seen is not None else None)

    def begin_attempt(self) -> None:
        """Before each attempt but the first."""
        self.attempt += 1
        self.forget_outcome()

    # On the wire; called by `observer`.

    @property
    def expired_codes(self) -> tuple[str, ...]:
        """The codes with which KIS refuses a request for its token, before it acts."""
        return self.policy.expired_codes

    def is_at_home(self, host: str) -> bool:
        """Whether `host` is that of the token source of this call, or of one around it."""
        return any(cause.is_at_home(host) for cause in self.token_causes())

    def successor_for(self, sighting: Sighting) -> AccessToken | None:
        """The token with which a request is to leave instead of its own, if this call or one around it knows one."""
        for cause in self.token_causes():
            if cause.holds_back(sighting):
                return None
            successor = cause.successor_for(sighting)
            if successor is not None:
                return successor
        return None

    def handed_out(self, source: object, value: str) -> None:
        call: Any = self
        while call is not None:  # as `chain`, without a generator in every good call
            if call.source is source:
                call.handed = value
            elif call.source is not None and isinstance(source, NonBlockingSource):
                call.lenders = {**call.lenders, value: source}
            call = call.parent

    def report(self, outcome: str) -> None:
        """Tell the pace what became of a request: "answered", "refused" or "failed"."""
        call = self._paced()
        if call is not None and call.limiter is not None:
            call.limiter.report(outcome)

    def token_causes(self) -> Iterator[TokenExpired]:
        """What is known of the token of this call and of those around it."""
        for call in self.chain():
            cause = cast("ProtectedCall", call).token_expired
            if cause is not None:
                yield cause

    # The pace.

    def is_paced(self) -> bool:
        """Whether the next attempt waits for a slot of a limiter."""
        call = self._paced()
        return call is not None and call.limiter is not None and call.limiter.rate > 0

    def take_slot(self) -> None:
        """Wait until a request may leave."""
        call = self._paced()
        if call is not None and not call.uses_slot():
            call.wait_for_slot()

    async def take_slot_async(self) -> None:
        """`take_slot`, without stopping the event loop."""
        call = self._paced()
        if call is not None and not call.uses_slot():
            await call.wait_for_slot_async()

    def take_slot_for_attempt(self) -> None:
        """Wait until an attempt may begin whose requests nobody sees; the first that is seen uses the same slot."""
        if not self.uses_slot():
            self.wait_for_slot()
        self._has_slot = True

    async def take_slot_for_attempt_async(self) -> None:
        """`take_slot_for_attempt`, without stopping the event loop."""
        if not self.uses_slot():
            await self.wait_for_slot_async()
        self._has_slot = True

    def take_slot_for_repeat(self) -> bool:
        """Wait for the slot of the next attempt, whose first request uses it; False where there is none in time."""
        self._has_slot = self.limiter is not None and self.limiter.acquire(self._seconds_left())
        return self.limiter is None or self._has_slot

    async def take_slot_for_repeat_async(self) -> bool:
        """`take_slot_for_repeat`, without stopping the event loop."""
        self._has_slot = self.limiter is not None and await self.limiter.acquire_async(self._seconds_left())
        return self.limiter is None or self._has_slot

    def wait_for_slot(self) -> None:
        """Wait as long as it takes; in an outage no longer than the deadline, for the caller is to have an outcome."""
        limiter = self.limiter
        while limiter is not None and not limiter.acquire(self._seconds_for_slot) and not _is_away(limiter):
            pass

    async def wait_for_slot_async(self) -> None:
        """`wait_for_slot`, without stopping the event loop."""
        limiter = self.limiter
        while limiter is not None and not await limiter.acquire_async(self._seconds_for_slot) and not _is_away(limiter):
            pass

    def uses_slot(self) -> bool:
        """Whether this attempt, or one around it, has a slot that no request has used yet; it is used now."""
        for call in self.chain():
            around = cast("ProtectedCall", call)
            if around.limiter is self.limiter and around._has_slot:  # noqa: SLF001  # of the same class
                around._has_slot = False  # noqa: SLF001
                return True
        return False

    @property
    def pace(self) -> Pace | None:
        """Its limiter, or that of a call around it."""
        call = self._paced()
        return call.limiter if call is not None else None

    @property
    def _seconds_for_slot(self) -> float:
        return max(self.deadline, 1.0)

    def _seconds_left(self) -> float | None:
        return None if self.begin_by is None else max(self.begin_by - time.monotonic(), 0.0)

    def _paced(self) -> ProtectedCall | None:
        for call in self.chain():
            if cast("ProtectedCall", call).limiter is not None:
                return cast("ProtectedCall", call)
        return None

    # The story, and its end.

    def emit(self, name: EventName, **fields: Any) -> None:
        """Emit an event of this call."""
        emit(RefreshEvent(name=name, callable=self.name, **{"attempt": self.attempt, **fields}))

    def emit_recovered(self) -> None:
        """Tell that an attempt went well after others had not."""
        self.emit("call_recovered", elapsed=time.monotonic() - self.began)

    def give_up(self, cause: Cause, value: object, error: BaseException | None) -> None:
        """Tell that the last outcome stands, and have no call around this one try it again."""
        self.gave_up = True
        self.mark_exhausted(cause.name)
        self.emit("call_given_up", msg_cd=self.code_of(value, error), elapsed=time.monotonic() - self.began)


def _is_away(limiter: Pace) -> bool:
    """Whether it knows of an outage; one that cannot say has had its time."""
    return bool(getattr(limiter, "is_away", True))


def call_under_way() -> ProtectedCall | None:
    """The innermost decorated call under way here."""
    return cast("ProtectedCall | None", current_call()) if CURRENT.get() is not None else None
