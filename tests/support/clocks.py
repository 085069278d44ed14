"""Time that passes when a test says so."""

from __future__ import annotations


class FakeClock:
    """
    Takes the place of the module `time`: only `sleep` and the test move it.

    Attributes:
        now: what KIS's clock and the monotonic one show, seconds.
        skew: how far this machine's wall clock is off, seconds.
        slept: every sleep, seconds.
    """

    def __init__(self, now: float = 1_900_000_000.0) -> None:
        self.now = now
        self.skew = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.skew

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
