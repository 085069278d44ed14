"""Time that passes when a test says so, and the type of what makes managers on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from kis_retry import TokenManager, TokenStore


class FakeClock:
    """
    A clock for `TokenManager(clock=…)`: only `sleep` and the test move it.

    Attributes:
        now: what KIS's clock and the monotonic one show, seconds.
        skew: how far this machine's wall clock is off, seconds.
        slept: every sleep, seconds.

    `at` plans what happens when.
    """

    def __init__(self, now: float = 1_900_000_000.0) -> None:
        self.now = now
        self.skew = 0.0
        self.slept: list[float] = []
        self._planned: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.skew

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(seconds)

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        """Have `do` called in so many seconds."""
        self._planned.append((self.now + seconds, do))

    def pass_by(self, seconds: float) -> None:
        """Let time pass, in which nobody sleeps."""
        self.now += seconds
        for planned in [planned for planned in self._planned if planned[0] <= self.now]:
            self._planned.remove(planned)
            planned[1]()


def interrupt(*_: object) -> NoReturn:
    """What Ctrl-C comes to, also in a run in the background, which begins with the signal ignored."""
    raise KeyboardInterrupt


class Make(Protocol):
    """Make a manager; on a machine of its own where it is given no store."""

    def __call__(self, store: TokenStore | None = None, **policy: Any) -> TokenManager: ...
