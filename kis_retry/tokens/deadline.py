"""How long a refresh may still take, in real seconds: `Deadline`."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Deadline"]


class Deadline:
    """
    Counts what has passed on the clock, or what has been slept where the clock stands still, as in a test.

    Args:
        seconds: from now on.
        clock: monotonic.
        sleep: waits, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._slept = 0.0

    def left(self) -> float:
        """Seconds; not below 0."""
        return max(self._seconds - max(self._clock() - self._began, self._slept), 0.0)

    def sleep(self, seconds: float, step: float, is_over: Callable[[], bool]) -> None:
        """Sleep, and look every `step` seconds whether there is a reason to get up; looking takes time too."""
        ends, slept = self._clock() + seconds, 0.0
        while (left := min(ends - self._clock(), seconds - slept)) > 0:
            nap = min(step, left)
            self._sleep(nap)
            self._slept += nap
            slept += nap
            if is_over():
                return
