"""
Who waits for a slot in this process, and the slots that it has reserved: `WaitingLine`. Pure; the time is a parameter.

Slots are reserved so far ahead that the next answer of the store comes before the last of them is due, and a slot is
bound to a waiter only when it is due. So a store that is far away does not slow the calls down, an order overtakes
reads that came earlier, and whoever has gone costs nothing.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from .state import LATE, Ask, Block, interval_of

__all__ = ["Reservation", "Ticket", "WaitingLine"]

KEEPS_PLACE = 10.0  # seconds: a call that is refused for another reason must not starve the rest
TRIPS = 8  # to the store, whose mean is what a trip takes
QUICK = 0.004  # seconds: a store as near as that needs no lead
ANSWER_WAIT = 0.5  # seconds that a waiter whose time is over waits for an answer that may have a slot for it

_numbers = itertools.count()


@dataclass(frozen=True)
class Ticket:
    """A place in the queue: who drew an earlier one goes first. A call shows the same one at each of its repeats."""

    drawn_at: float
    number: int = field(default_factory=lambda: next(_numbers))

    def renewed(self, now: float) -> Ticket:
        """Return this ticket, or a new one where it is too old."""
        return self if now - self.drawn_at <= KEEPS_PLACE else Ticket(now)


class Reservation:
    """
    One request that waits for its slot.

    Attributes:
        future: is done when the request may leave.
        ticket: to be shown when the request is repeated.
        order: whether it goes before reads.
        arrived: when it began to wait.
        deadline: when it waits no longer; infinity: as long as it takes.
        granted: whether it has had its slot.
        generation: the pace that its slot belongs to; -1: none.
    """

    def __init__(self, ticket: Ticket, *, arrived: float, order: bool = False, timeout: float | None = None) -> None:
        self.future: Future[None] = Future()
        self.ticket = ticket
        self.order = order
        self.arrived = arrived
        self.deadline = arrived + (math.inf if timeout is None else timeout)
        self.granted = False
        self.generation = -1
        self.gone = False  # apart from the future, whose lock an interrupted caller may have left locked

    def cancel(self) -> None:
        """Wait no longer. It costs nobody anything, or a slot where there was one already."""
        self.gone = True
        self.future.cancel()

    def grant(self, generation: int = -1) -> bool:
        """Let the request leave; return False where nobody waits for it any more."""
        return self._end(granted=True, generation=generation)

    def dismiss(self) -> None:
        """Tell that there was no slot in time."""
        self._end(granted=False)

    def _end(self, *, granted: bool, generation: int = -1) -> bool:
        if self.gone:
            return False
        self.gone, self.granted, self.generation = True, granted, generation
        try:
            self.future.set_result(None)
        except InvalidStateError:  # a task that waited was cancelled
            self.granted = False
        except BaseException:  # what a log handler raises when a future's callback failed: its event loop is closed
            self.granted = False
        return self.granted


class _Slot(NamedTuple):
    at: float
    received: float
    first: bool
    generation: int


class WaitingLine:
    """
    The waiters and slots of one pace in this process, and what became of its calls. Not for several threads at once.

    Args:
        rate: calls a second that the settings of this process allow.
        published: calls a second that KIS announces for such an account.
    """

    def __init__(self, rate: float, published: float) -> None:
        self.rate = rate
        self.fit = 0.0
        self.away = False
        self._published = published
        self._waiters: list[tuple[int, int, int, Reservation]] = []
        self._deadlines: list[tuple[float, int, Reservation]] = []
        self._arrivals = itertools.count()
        self._slots: deque[_Slot] = deque()
        self._interval = interval_of(rate)
        self._home = 0.0  # when this process may send next by its own rate
        self._trips: deque[float] = deque([0.0], maxlen=TRIPS)
        self._asked_at = 0.0
        self._asking = False
        self._again = 0.0  # when to ask next in an outage
        self._idle = False  # the schedule had slots to spare
        self._used = 0  # slots since it was asked last
        self._late = 0.0
        self._generation = self._passed = self._refused = self._failures = 0
        self._failed_at = 0.0
        self._through_at: float | None = None

    @property
    def in_force(self) -> float:
        """Calls a second that this process may send as far as it knows."""
        return min(self.rate, self.fit) if self.fit else self.rate

    # Waiting.

    def add(self, reservation: Reservation) -> None:
        """Have a reservation wait: orders before reads, earlier tickets before later ones."""
        arrival = next(self._arrivals)
        rank = 0 if reservation.order else 1
        heapq.heappush(self._waiters, (rank, reservation.ticket.number, arrival, reservation))
        if reservation.deadline < math.inf:
            heapq.heappush(self._deadlines, (reservation.deadline, arrival, reservation))

    def hand_out(self, now: float) -> None:
        """Give the slots that are due to the first waiters, and dismiss those whose time is over."""
        while self._somebody_waits() and (due := self._slot_due(now)) <= now:
            slot = self._slots[0]
            *_, reservation = heapq.heappop(self._waiters)
            if reservation.grant(slot.generation):
                self._slots.popleft()
                self._used += 1
                self._late = max(self._late, now - max(due, slot.received))
                self._home = max(self._home, now) + self._interval
        while self._deadlines and self._dismissed_at() <= now:
            heapq.heappop(self._deadlines)[-1].dismiss()

    def wake_at(self) -> float:
        """Return when there is something to do if nothing happens before; infinity: not at all."""
        wake = self._dismissed_at() if self._deadlines else math.inf
        if not self._somebody_waits():
            return wake
        if self._slots:
            wake = min(wake, self._due(self._slots[0]))
        return wake if self._asking else min(wake, self._ask_at())

    def _somebody_waits(self) -> bool:
        while self._waiters and self._waiters[0][-1].gone:
            heapq.heappop(self._waiters)
        return bool(self._waiters)

    def _dismissed_at(self) -> float:
        deadline, _, reservation = self._deadlines[0]
        if reservation.gone:
            return 0.0
        return max(deadline, reservation.arrived + ANSWER_WAIT) if self._asking else deadline

    # Slots.

    def _slot_due(self, now: float) -> float:
        """Drop slots that are too old; return when the next is due."""
        while self._slots and self._expires(self._slots[0]) <= now:
            self._slots.popleft()
        return self._due(self._slots[0]) if self._slots else math.inf

    def _due(self, slot: _Slot) -> float:
        """A store's clock is known to half a trip, so that slots may seem nearer to each other than they are."""
        return max(slot.at, self._home - min(self._interval / 2, LATE + self._trip / 2))

    def _expires(self, slot: _Slot) -> float:
        """A first one may come late, with the answer, or a slow store would have none at all."""
        return (max(slot.at, slot.received) if slot.first else slot.at) + self._interval

    # The store.

    @property
    def _trip(self) -> float:
        return fmean(self._trips)

    @property
    def _horizon(self) -> float:
        """Seconds for which slots must be there so that the next ones come in time."""
        return 1.25 * self._trip + self._interval

    def _ask_at(self) -> float:
        got_through = self.away and self._through_at is not None
        ahead = self._home + len(self._slots) * self._interval  # when this process could use one slot more
        if self._slots:
            ahead = max(ahead, self._slots[-1].at)
        return max(ahead - self._horizon, 0.0 if got_through else self._again)

    def ask(self, now: float) -> Ask | None:
        """Return what the store has to be asked now; None: nothing."""
        if self._asking or not self._somebody_waits() or self._ask_at() > now:
            return None
        self._asking = True
        count = self._count(now)
        asked = Ask(
            rate=self.rate,
            published=self._published,
            count=count,
            lead=0.55 * self._trip if self._trip > QUICK else 0.0,
            late=self._late,
            generation=self._generation,
            passed=self._passed,
            refused=self._refused,
            failures=self._failures,
            failed_ago=now - self._failed_at,
            through_ago=-1.0 if self._through_at is None else now - self._through_at,
        )
        self._asked_at, self._used, self._late = now, 0, 0.0
        self._passed = self._refused = self._failures = 0
        self._through_at = None
        return asked

    def _count(self, now: float) -> int:
        """As many as were used in a trip's time and a few more; as many as wait would make newcomers wait for long."""
        used = 1.25 * self._used * self._trip / max(now - self._asked_at, self._trip, 1e-9)
        waiting = len(self._waiters)
        if self._idle and waiting > 1:
            used *= 2
        wanted = round(used) + (waiting > max(round(used), 1))
        return max(1, min(wanted, math.ceil(self._horizon / self._interval)))

    def learn(self, block: Block, now: float) -> None:
        """Take in what the store answered."""
        self._trips.append(now - self._asked_at)
        self._asking = False
        if block.generation != self._generation:
            self._generation, self._passed, self._refused = block.generation, 0, 0
        self.fit, self.away = block.fit, block.away
        self._interval = max(interval_of(self.rate), block.interval)
        self._idle = block.at - self._asked_at < 1.25 * self._trip + block.interval
        self._again = 0.0 if block.count else block.at
        for number in range(block.count):
            at = block.at + number * block.interval
            self._slots.append(_Slot(at, now, number == 0, block.generation))

    # What became of calls.

    def report(self, generation: int, outcome: str, now: float) -> None:
        """Count a call: "answered", "limited" (EGW00201) or "failed" (nobody answered)."""
        if outcome == "failed":
            self._failures, self._failed_at = self._failures + 1, now
            return
        self._failures, self._through_at = 0, now
        if generation == self._generation:
            self._passed += outcome != "limited"
            self._refused += outcome == "limited"
