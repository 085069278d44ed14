"""
Who waits for a slot in this process, and the slots that it has reserved. Pure; the time is a parameter.

Slots are reserved so far ahead that the store's next answer comes before the last of them is due, so a store that is
far away does not slow the calls down. A slot is bound to a waiter only when it is due: orders overtake reads, and
whoever has gone costs nothing.
"""

from __future__ import annotations

import itertools
import math
import queue
from bisect import insort
from collections import deque
from concurrent.futures import Future
from dataclasses import replace

from .schedule import LATE, Ask, Block, interval_of

__all__ = ["Reservation", "WaitingLine"]

KEEPS_PLACE = 12  # slots in a row: a call that is refused for another reason must not starve the rest
LEAD = 0.55  # of a trip: so long is an answer under way
ANSWER_WAIT = 0.5  # seconds that a waiter whose time is over waits for the answer that may have a slot for it

_numbers = itertools.count()


class Reservation(Future[None]):
    """
    A request that waits for its slot: a future that is done when it may leave, or when its time is over.

    Made with the same request's `earlier` one, it keeps that one's place in the queue, for a while.
    """

    def __init__(self, deadline: float, *, order: bool = False, earlier: Reservation | None = None) -> None:
        super().__init__()
        if earlier is not None and earlier.slots >= KEEPS_PLACE:
            earlier = None
        self.number: int = next(_numbers) if earlier is None else earlier.number
        self.slots: int = 0 if earlier is None else earlier.slots  # that were had at this place
        self.order, self.deadline = order, deadline
        self.granted = False  # there was a slot in time
        self.generation = -1  # of its slot
        self.gone = False  # nothing of the future's, whose lock an interrupted caller may have left locked
        # To wait for without the lock of a future, which whoever is interrupted in it would leave locked behind.
        over = self.over = queue.SimpleQueue[None]()
        self.add_done_callback(lambda _: over.put(None))

    def __lt__(self, other: Reservation) -> bool:
        return (not self.order, self.number) < (not other.order, other.number)

    def cancel(self) -> bool:
        """Wait no longer. That costs nothing, or the slot where there is one already."""
        self.gone = True
        return super().cancel()

    def end(self, *, granted: bool, generation: int = -1) -> bool:
        """Let the request leave, or tell that there was no slot in time; return whether a slot was used."""
        if self.gone:
            return False
        self.gone, self.granted, self.generation = True, granted, generation
        try:
            self.set_result(None)
        except BaseException:  # it was cancelled; or its event loop is closed, and a log handler raises at that
            self.granted = False
        return self.granted


class WaitingLine:
    """The waiters and slots of one pace in this process, and what became of its calls. For one thread alone."""

    def __init__(self, rate: float, published: float) -> None:
        self.rate, self.published = rate, published
        self.fit, self.away = 0.0, False
        self.waiters: list[Reservation] = []  # the next one first
        self._slots: deque[Block] = deque()  # each of one slot
        self._step = self._interval = interval_of(rate)  # of the pace that all share; of this process
        self._home = 0.0  # when this process may send next by its own rate
        self._trips: deque[float] = deque(maxlen=8)  # seconds from asking the store to its answer
        self._trip, self._horizon = 0.0, self._step  # their mean; for so long slots must be there until others come
        self._asking = False
        self._asked_at = self._again_at = 0.0
        self._waited = 0.0  # seconds from asking to the slot
        self._used = 0  # slots since the store was asked
        self._told = Ask(rate, published)  # what is to be said when the store is asked next

    @property
    def in_force(self) -> float:
        """Calls a second that this process may send as far as it knows."""
        return min(self.rate, self.fit or self.rate)

    def add(self, reservation: Reservation) -> None:
        """Have a reservation wait: orders before reads, earlier numbers before later ones."""
        insort(self.waiters, reservation)

    def report(self, generation: int, outcome: str, now: float) -> None:
        """Count a call: "answered", "limited" (EGW00201) or "failed" (nobody answered)."""
        told = self._told
        if outcome == "failed":
            told.failures, told.failed_at = told.failures + 1, now
            return
        told.failures, told.through_at = 0, now
        if generation == told.generation:
            told.passed, told.refused = told.passed + (outcome != "limited"), told.refused + (outcome == "limited")

    def hand_out(self, now: float) -> None:
        """Give the slots that are due to the first waiters, and dismiss those whose time is over."""
        while self._slots and self._slots[0].at + self._interval <= now:
            self._slots.popleft()
            self._used -= 1
        while self._slots and self.waiters and (due := self._due()) <= now:
            reservation = self.waiters.pop(0)
            if reservation.end(granted=True, generation=self._slots[0].generation):
                self._slots.popleft()
                self._told.late = max(self._told.late, now - due)
                self._home = max(self._home, now) + self._interval
                reservation.slots += 1
        for reservation in self.waiters:
            if self._dismissed_at(reservation) <= now:
                reservation.end(granted=False)
        self.waiters = [reservation for reservation in self.waiters if not reservation.gone]

    def wake_at(self, now: float) -> float:
        """Return when there is something to do even if nothing happens before."""
        wake = min(map(self._dismissed_at, self.waiters), default=math.inf)
        if self._slots and self.waiters:
            wake = min(wake, self._due())
        return min(wake, self._ask_at(now))

    def ask(self, now: float) -> Ask | None:
        """Return what the store has to be asked now; None: nothing."""
        if self._ask_at(now) > now:
            return None
        asked, self._told = self._told, Ask(self.rate, self.published, generation=self._told.generation)
        asked.count, asked.now, asked.lead = self._count(now), now, LEAD * self._trip
        self._asking, self._asked_at, self._used = True, now, 0
        return asked

    def learn(self, block: Block, now: float) -> None:
        """Take in what the store answered."""
        self._trips.append(now - self._asked_at)
        self._trip = sum(self._trips) / len(self._trips)
        self._asking = False
        if block.generation != self._told.generation:
            self._told.generation, self._told.passed, self._told.refused = block.generation, 0, 0
        self.fit, self.away = block.fit, block.away
        self._step, self._interval = block.interval, max(interval_of(self.rate), block.interval)
        self._horizon = 1.25 * self._trip + self._step
        self._waited, self._used = block.at - self._asked_at, self._used + block.count
        self._again_at = 0.0 if block.count else block.at
        for number in range(block.count):
            at = block.at + number * block.interval
            # The first may come late, with its answer: a slow store would have no slot at all else.
            self._slots.append(replace(block, at=at if number else max(at, now), count=1))

    def _dismissed_at(self, reservation: Reservation) -> float:
        return max(reservation.deadline, self._asked_at + ANSWER_WAIT if self._asking else 0.0)

    def _due(self) -> float:
        """Return when the first slot is due: by a distant clock slots may seem nearer to each other than they are."""
        return max(self._slots[0].at, self._home - min(self._interval / 2, LATE + self._trip / 2))

    def _ask_at(self, now: float) -> float:
        """Return when the store is to be asked if nobody else comes."""
        enough = len(self._slots) >= len(self.waiters) + self._used_in_a_trip(now)
        if self._asking or not self.waiters or enough:
            return math.inf
        ahead = self._horizon
        if not self._slots and self._interval > self._step:  # a slow process asks as early as its turn takes to come
            ahead = max(ahead, self._waited)
        at = self._home + len(self._slots) * self._interval - ahead  # by its own rate
        if self._slots:
            at = max(at, self._slots[-1].at - self._horizon)
        return at if self.away and self._told.through_at else max(at, self._again_at)

    def _used_in_a_trip(self, now: float) -> float:
        return 1.25 * self._used * self._trip / max(now - self._asked_at, self._trip, 1e-9)

    def _count(self, now: float) -> int:
        """As many as were used in a trip's time and a few more; as many as wait would make newcomers wait for long."""
        used, waiting = self._used_in_a_trip(now), len(self.waiters)
        if self._waited < self._horizon:  # the schedule has slots to spare
            used *= 2
        wanted = round(used) + (waiting > max(round(used), 1))
        return max(1, min(wanted, math.ceil(self._horizon / self._interval)))
