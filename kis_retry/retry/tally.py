"""What is told of calls: `Tally`. Apart from what follows from it, which a call that goes well does without."""

from __future__ import annotations

__all__ = ["LEAST_FAILURES", "Tally"]

LEAST_FAILURES = 5
"""Failures in a row that make an outage: of calls that fail at 2 %, three in a thousand million begin such a row."""


class Tally:
    """
    What became of calls since it was told last: how many were answered, how many refused, and how they failed.

    Ages are seconds ago, since those who share a pace need not share a clock.

    Attributes:
        answered: calls that KIS answered, whatever it said, EGW00201 apart.
        refused: calls refused with EGW00201.
        failures: calls that nobody answered, in a row, after the last one that got through.
        failed_ago: age of the last of them.
        through_ago: age of the last call that was answered or refused; None where there was none.
        late: seconds by which a call went out after its slot.
        epoch: which pace the answered and refused calls were sent at (`Adaptation.epoch`).
    """

    __slots__ = ("answered", "epoch", "failed_ago", "failures", "late", "refused", "through_ago")

    def __init__(
        self,
        *,
        answered: int = 0,
        refused: int = 0,
        failures: int = 0,
        failed_ago: float = 0.0,
        through_ago: float | None = None,
        late: float = 0.0,
        epoch: int = 0,
    ) -> None:
        self.answered = answered
        self.refused = refused
        self.failures = failures
        self.failed_ago = failed_ago
        self.through_ago = through_ago
        self.late = late
        self.epoch = epoch
