"""
One caller asks, the others share what it got, its success and its failure: `SingleFlight`.

Nothing here is a lock: who asks is decided by one atomic `dict.setdefault`, and each waiter waits on a lock of its own.
So there is nothing that an interrupt, a signal handler or a fork could leave locked.
"""

from __future__ import annotations

import contextvars
import copy
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

from ..errors import KisRetryError
from ..forking import after_fork
from ..signals import is_from_signal_handler

__all__ = ["AskedWithinError", "Flight", "SingleFlight", "StillUnderWayError", "fresh"]

T = TypeVar("T")

_LOOK = 1.0  # seconds after which a waiter makes sure that what it waits for is still under way


class StillUnderWayError(Exception):
    """The time to wait is over, and what was waited for, since `seconds`, is not."""

    def __init__(self, flight: Flight[Any], seconds: float) -> None:
        super().__init__()
        self.flight = flight
        self.seconds = seconds


class AskedWithinError(Exception):
    """What is asked for can only be answered by the thread that asks, once it is done with the same question."""


class Flight(Generic[T]):
    """
    One request: for what, on which thread, and what came of it.

    Attributes:
        key: what it is about; who asks for the same shares its outcome.
        thread: the identity of the thread that it runs on; None before a thread of its own begins.
        began: when, on the monotonic clock.
        state: "abandoned" where an interrupt ended it: that is nobody else's failure.
    """

    def __init__(self, key: object, thread: int | None = None) -> None:
        self.key = key
        self.thread = thread
        self.began = time.monotonic()
        self.state: Literal["under way", "answered", "failed", "abandoned"] = "under way"
        self._answer: T | None = None
        self._error: Exception | None = None
        self._waiters: list[Callable[[], object]] = []
        self._right_to_run = [True]  # popped by who runs it, or by who makes sure that nobody will

    def claim(self) -> bool:
        """Whether the caller is the one who may run it."""
        try:
            return self._right_to_run.pop()
        except IndexError:
            return False

    def answer(self, answer: T) -> None:
        """End it well."""
        self._answer = answer
        self._end("answered")

    def fail(self, error: Exception) -> None:
        """End it badly; `error` has no traceback, since that would hold on to whatever its frames saw."""
        self._error = error
        self._end("failed")

    def abandon(self) -> None:
        """End it without an outcome, unless it has one."""
        if self.state == "under way":
            self._end("abandoned")

    def outcome(self) -> T:
        """What it got, nothing where it was abandoned; its failure as an exception of the caller's own."""
        if self._error is not None:
            raise fresh(self._error)
        return self._answer  # type: ignore[return-value]  # None where it was abandoned

    def when_done(self, call: Callable[[], object]) -> None:
        """Have `call` called once when it has ended, at once where it has."""
        self._waiters.append(call)
        if self.state != "under way":
            self._wake()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after waiting for `seconds` at most."""
        woken = threading.Lock()
        woken.acquire()
        self.when_done(woken.release)
        return woken.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))

    def _end(self, state: Literal["answered", "failed", "abandoned"]) -> None:
        self.state = state
        self._wake()

    def _wake(self) -> None:
        while True:
            try:
                call = self._waiters.pop()
            except IndexError:
                return
            call()


class SingleFlight(Generic[T]):
    """
    At most one request at a time, whatever it is about.

    Args:
        name: of the threads that requests run on.
        own_thread: False to run a request on the thread of who asks first. On a thread of its own no exception of a
            signal handler and no Ctrl-C ends what others wait for, and who asked can stop waiting for it.
    """

    def __init__(self, name: str = "kis_retry", *, own_thread: bool = True) -> None:
        self._name = name
        self._own_thread = own_thread
        self._current: dict[str, Flight[T]] = {}
        after_fork(self, SingleFlight._forget)

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._current)

    def run(self, key: object, ask: Callable[[], T], *, look: Callable[[], T | None], seconds: float) -> tuple[T, bool]:
        """
        What `look` finds, or `ask` gets, or what somebody gets who has asked for the same; and whether it was `ask`.

        A request under way that is about something else is waited for; then `look` is asked again.

        Args:
            key: what it is about.
            ask: makes the request.
            look: finds what makes the request needless, without waiting; None where there is nothing.
            seconds: how long to wait in all.

        Raises:
            StillUnderWayError: `seconds` were not enough. What is under way goes on.
            AskedWithinError: this thread is the one that the request under way runs on.
            Exception: of `ask`, a copy for each who shares it.
        """
        ends = time.monotonic() + seconds
        while True:
            found = look()
            if found is not None:
                return found, False
            flight, mine = self.begin(key, lambda: _first(look(), ask))
            if not self.wait(flight, ends):
                raise StillUnderWayError(flight, time.monotonic() - flight.began)
            if flight.state != "abandoned" and (mine or flight.key == key):
                return flight.outcome(), mine

    def begin(self, key: object, ask: Callable[[], T]) -> tuple[Flight[T], bool]:
        """The request under way, whatever it is about, or a new one; and whether it is new."""
        flight: Flight[T] = Flight(key, None if self._own_thread else threading.get_ident())
        try:
            current = self._current.setdefault("", flight)
            if current is not flight:
                return current, False
            if not self._own_thread or not self._start(flight, ask):
                self._fly(flight, ask)
        except BaseException:  # an interrupt, at any point: either its thread goes on with it, or nobody does
            if flight.claim() or flight.thread == threading.get_ident():
                self._end(flight, flight.abandon)
            raise
        return flight, True

    def wait(self, flight: Flight[T], ends: float) -> bool:
        """Wait for `flight` until the monotonic clock says `ends`; whether it has ended."""
        if flight.thread == threading.get_ident() and flight.state == "under way":
            raise AskedWithinError
        while True:
            left, lost = ends - time.monotonic(), self._current.get("") is not flight
            if flight.wait(min(_LOOK, left)):
                return True
            if left <= _LOOK:
                return False
            if lost:  # it had time to end since: it was interrupted on the way out, or given up
                flight.abandon()

    def give_up(self, flight: Flight[T] | None = None) -> None:
        """Let the next who asks begin anew, though the request (`flight`, or any) has not ended."""
        current = self._current.get("")
        if current is not None and flight in (None, current):
            self._current.pop("", None)

    def _start(self, flight: Flight[T], ask: Callable[[], T]) -> bool:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._fly, flight, ask), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, as while the interpreter shuts down: the caller's own does it
            return False
        return True

    def _fly(self, flight: Flight[T], ask: Callable[[], T]) -> None:
        if not flight.claim():
            return
        flight.thread = threading.get_ident()
        try:
            self._settle(flight, ask)
        finally:  # whatever happened on the way out: those who wait must not wait for ever
            self._end(flight, flight.abandon)

    def _settle(self, flight: Flight[T], ask: Callable[[], T]) -> None:
        try:
            answer = ask()
        except Exception as error:
            copied = fresh(error)
            theirs = is_from_signal_handler(error)  # of nobody who only waits
            self._end(flight, flight.abandon if theirs else lambda: flight.fail(copied))
            if not self._own_thread:
                raise
        else:
            self._end(flight, lambda: flight.answer(answer))

    def _end(self, flight: Flight[T], end: Callable[[], None]) -> None:
        # Before those who wait are woken, or one of them would find it under way still.
        if self._current.get("") is flight:
            self._current.pop("", None)
        end()

    def _forget(self) -> None:
        """In a forked child: the thread that it ran on does not exist there."""
        self._current = {}


def fresh(error: Exception) -> Exception:
    """
    A copy of `error` without its traceback and context.

    One exception raised by many grows a traceback with every raise, and keeps alive what each of their frames held.
    """
    try:
        copied = copy.copy(error)
    except Exception:  # its class takes other arguments than it shows
        copied = error
    if copied is error or type(copied) is not type(error):
        return KisRetryError(f"what was waited for failed ({type(error).__name__})")
    return copied


def _first(found: T | None, ask: Callable[[], T]) -> T:
    return ask() if found is None else found
