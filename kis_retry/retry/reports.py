"""What became of this process's calls, until the ledger is told with the next slot."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .tally import LEAST_FAILURES, Tally

if TYPE_CHECKING:
    from .pace import Grant

__all__ = ["Reports"]


class Reports:
    """Counts outcomes. Adding one neither waits nor raises."""

    def __init__(self) -> None:
        self.trouble = False
        """Calls failed, and none has got through since, as far as the ledger and these reports know."""
        self.away = False
        """So many that it is an outage."""
        self.seconds_waited = 0.0
        """How long callers have waited for slots, all together."""
        self._lock = threading.Lock()  # guards the rest; held for a few additions
        self._tally = Tally()
        self._failed_at = 0.0
        self._through_at: float | None = None
        self._settled_at = 0.0

    def add(self, outcome: str) -> None:
        """Count one call: "answered", "refused" (EGW00201) or "failed"; nothing else is counted."""
        now = time.monotonic()
        with self._lock:
            tally = self._tally
            if outcome == "failed":
                tally.failures += 1
                self._failed_at, self.trouble = now, True
            elif outcome in ("answered", "refused"):
                tally.failures, self._through_at = 0, now
                if now >= self._settled_at:
                    tally.answered += outcome == "answered"
                    tally.refused += outcome == "refused"

    def add_late(self, seconds: float) -> None:
        """Note that a call goes out so long after its slot."""
        with self._lock:
            self._tally.late = max(self._tally.late, seconds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in which a caller waits for its slot, however that ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            waited = time.monotonic() - began
            with self._lock:
                self.seconds_waited += waited

    def got_through(self) -> bool:
        """Whether a call got through that the ledger has not been told of."""
        return self._through_at is not None

    def take(self) -> Tally:
        """Hand over what was counted, and begin anew."""
        now = time.monotonic()
        with self._lock:
            tally, self._tally = self._tally, Tally(epoch=self._tally.epoch)
            tally.failed_ago = now - self._failed_at
            tally.through_ago = None if self._through_at is None else now - self._through_at
            self._through_at = None
        return tally

    def learn(self, grant: Grant) -> None:
        """Take in what the ledger answered: calls of an earlier pace, still to be answered, are not counted."""
        with self._lock:
            if grant.epoch != self._tally.epoch:
                from .adaptive import SETTLING  # late: whoever changed the pace has loaded it

                self._tally.epoch = grant.epoch
                self._tally.answered = self._tally.refused = 0
                self._settled_at = time.monotonic() + SETTLING
            self.away = grant.failures >= LEAST_FAILURES
            self.trouble = grant.failures > 0 or self._tally.failures > 0
