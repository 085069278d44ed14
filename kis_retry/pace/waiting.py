"""
Who waits for a slot in this process, and the slots that it has reserved. Pure; the time is a parameter.

Slots are reserved so far ahead that the store's next answer comes before the last of them is due, so a store that is
far away does not slow the calls down. A slot is bound to a waiter only when it is due: orders overtake reads, and
whoever has gone costs nothing.
"""

from __future__ import annotations

import heapq
import itertools
import math
import queue
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple

from .state import LATE, Ask, Block, interval_of

__all__ = ["Reservation", "Ticket", "WaitingLine"]

KEEPS_PLACE = 12  # slots in a row: a call that is refused for another reason must not starve the rest
LEAD = 0.55  # of a trip: so long is an answer under way
QUICK = 0.004  # seconds: a store as near as that needs no lead
ANSWER_WAIT = 0.5  # seconds that a waiter whose time is over waits for the answer that may have a slot for it

_numbers = itertools.count()


class Ticket:
    """A place in the queue: earlier tickets go first. A call shows the same one at each of its repeats."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.slots = 0  # that it has had

    def renewed(self) -> Ticket:
        """Return this ticket, or a new one where it is no longer good."""
        return self if self.slots < KEEPS_PLACE else Ticket()


class Turn(Future[None]):
    """A future that is waited for without its lock: whoever is interrupted in that leaves nothing locked behind."""

    def __init__(self) -> None:
        super().__init__()
        over = self._over = queue.SimpleQueue[None]()
        self.add_done_callback(lambda _: over.put(None))

    def result(self, timeout: float | None = None) -> None:
        with suppress(queue.Empty):
            self._over.get(timeout=None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
            self._over.put(None)  # for whoever asks again
        super().result(0)


class Reservation:
    """
    One request that waits for its slot.

    Attributes:
        future: is done when the request may leave.
        ticket: to be shown when the request is repeated.
        granted: whether there was a slot in time.
    """

    def __init__(self, ticket: Ticket, *, arrived: float, order: bool = False, timeout: float = math.inf) -> None:
        self.future: Future[None] = Turn()
        self.ticket = ticket
        self.order = order
        self.arrived, self.deadline = arrived, arrived + timeout
        self.granted = False
        self.generation = -1  # of its slot
        self.gone = False  # apart from the future, whose lock an interrupted caller may have left locked

    def cancel(self) -> None:
        """Wait no longer. That costs nothing, or the slot where there is one already."""
        self.gone = True
        self.future.cancel()

    def end(self, *, granted: bool, generation: int = -1) -> bool:
        """Let the request leave, or tell that there was no slot in time; return whether a slot was used."""
        if self.gone:
            return False
        self.gone, self.granted, self.generation = True, granted, generation
        try:
            self.future.set_result(None)
        except BaseException:  # it was cancelled; or its event loop is closed, and a log handler raises at that
            self.granted = False
        return self.granted


class _Slot(NamedTuple):
    at: float
    good_until: float
    generation: int


class WaitingLine:
    """
    The waiters and slots of one pace in this process, and what became of its calls. For one thread alone.

    Args:
        rate: calls a second that the settings of this process allow.
        published: calls a second that KIS announces for such an account.
    """

    def __init__(self, rate: float, published: float) -> None:
        self.rate, self.published = rate, published
        self.fit = 0.0
        self.away = False
        self._waiters: list[tuple[bool, int, int, Reservation]] = []
        self._timed: list[Reservation] = []  # those of them who do not wait for ever
        self._arrivals = itertools.count()
        self._slots: deque[_Slot] = deque()
        self._step = self._interval = interval_of(rate)  # of the pace that all share; of this process
        self._home = 0.0  # when this process may send next by its own rate
        self._trips: deque[float] = deque([0.0], maxlen=8)  # seconds from asking the store to its answer
        self._known = self._asking = False  # the store has answered; it is being asked
        self._asked_at = self._answered_at = self._again_at = 0.0
        self._waited = 0.0  # seconds from asking to the slot
        self._used = 0  # slots since the store was asked
        self._late = 0.0
        self._generation = self._passed = self._refused = self._failures = 0
        self._failed_at = 0.0
        self._through_at: float | None = None

    @property
    def in_force(self) -> float:
        """Calls a second that this process may send as far as it knows."""
        return min(self.rate, self.fit or self.rate)

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits, and no answer is to come."""
        return not self._asking and not self._somebody_waits()

    def add(self, reservation: Reservation) -> None:
        """Have a reservation wait: orders before reads, earlier tickets before later ones."""
        arrival = next(self._arrivals)
        heapq.heappush(self._waiters, (not reservation.order, reservation.ticket.number, arrival, reservation))
        if reservation.deadline < math.inf:
            self._timed.append(reservation)

    def report(self, generation: int, outcome: str, now: float) -> None:
        """Count a call: "answered", "limited" (EGW00201) or "failed" (nobody answered)."""
        if outcome == "failed":
            self._failures, self._failed_at = self._failures + 1, now
            return
        self._failures, self._through_at = 0, now
        if generation == self._generation:
            self._passed, self._refused = self._passed + (outcome != "limited"), self._refused + (outcome == "limited")

    def hand_out(self, now: float) -> None:
        """Give the slots that are due to the first waiters, and dismiss those whose time is over."""
        while self._slots and self._slots[0].good_until <= now:
            self._slots.popleft()
            self._used -= 1
        while self._slots and self._somebody_waits() and (due := self._due()) <= now:
            reservation = heapq.heappop(self._waiters)[-1]
            if reservation.end(granted=True, generation=self._slots[0].generation):
                self._slots.popleft()
                self._late = max(self._late, now - max(due, self._answered_at))
                self._home = max(self._home, now) + self._interval
                reservation.ticket.slots += 1
        for reservation in self._timed:
            if self._dismissed_at(reservation) <= now:
                reservation.end(granted=False)
        self._timed = [reservation for reservation in self._timed if not reservation.gone]

    def wake_at(self, now: float) -> float:
        """Return when there is something to do even if nothing happens before."""
        wake = min(map(self._dismissed_at, self._timed), default=math.inf)
        if not self._somebody_waits():
            return wake
        if self._slots:
            wake = min(wake, self._due())
        return wake if self._asking or self._has_enough(now) else min(wake, self._ask_at())

    def ask(self, now: float) -> Ask | None:
        """Return what the store has to be asked now; None: nothing."""
        if self._asking or not self._somebody_waits() or self._has_enough(now) or self._ask_at() > now:
            return None
        self._asking = True
        asked = Ask(
            rate=self.rate,
            published=self.published,
            count=self._count(now),
            lead=LEAD * self._trip if self._trip > QUICK else 0.0,
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

    def learn(self, block: Block, now: float) -> None:
        """Take in what the store answered."""
        if not self._known:
            self._trips.clear()
        self._trips.append(now - self._asked_at)
        self._known, self._asking, self._answered_at = True, False, now
        if block.generation != self._generation:
            self._generation, self._passed, self._refused = block.generation, 0, 0
        self.fit, self.away = block.fit, block.away
        self._step, self._interval = block.interval, max(interval_of(self.rate), block.interval)
        self._waited, self._used = block.at - self._asked_at, self._used + block.count
        self._again_at = 0.0 if block.count else block.at
        for number in range(block.count):
            at = block.at + number * block.interval
            # The first may come late, with its answer: a slow store would have no slot at all else.
            self._slots.append(_Slot(at, max(at, 0.0 if number else now) + self._interval, block.generation))

    def _somebody_waits(self) -> bool:
        while self._waiters and self._waiters[0][-1].gone:
            heapq.heappop(self._waiters)
        return bool(self._waiters)

    def _dismissed_at(self, reservation: Reservation) -> float:
        return max(reservation.deadline, reservation.arrived + ANSWER_WAIT if self._asking else 0.0)

    def _due(self) -> float:
        """Return when the first slot is due: by a distant clock slots may seem nearer to each other than they are."""
        return max(self._slots[0].at, self._home - min(self._interval / 2, LATE + self._trip / 2))

    @property
    def _trip(self) -> float:
        return sum(self._trips) / len(self._trips)

    @property
    def _horizon(self) -> float:
        """Seconds for which slots must be there so that the next ones come in time."""
        return 1.25 * self._trip + self._step

    def _ask_at(self) -> float:
        ahead = self._horizon
        if not self._slots and self._interval > self._step:  # a slow process asks as early as its turn takes to come
            ahead = max(ahead, self._waited)
        at = self._home + len(self._slots) * self._interval - ahead  # by its own rate
        if self._slots:
            at = max(at, self._slots[-1].at - self._horizon)
        return at if self.away and self._through_at is not None else max(at, self._again_at)

    def _used_in_a_trip(self, now: float) -> float:
        return 1.25 * self._used * self._trip / max(now - self._asked_at, self._trip, 1e-9)

    def _has_enough(self, now: float) -> bool:
        return len(self._slots) >= len(self._waiters) + self._used_in_a_trip(now)

    def _count(self, now: float) -> int:
        """As many as were used in a trip's time and a few more; as many as wait would make newcomers wait for long."""
        used, waiting = self._used_in_a_trip(now), len(self._waiters)
        if self._waited < self._horizon:  # the schedule has slots to spare
            used *= 2
        wanted = round(used) + (waiting > max(round(used), 1))
        return max(1, min(wanted, math.ceil(self._horizon / self._interval)))
