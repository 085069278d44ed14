"""
One caller asks, the others share what it got, its success and its failure: `SingleFlight`.

What is asked for runs on a thread of its own. So callers may stop waiting, and it goes on for the others.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from ..context import UNPROTECTED
from ..errors import TokenIssueError
from ..forking import after_fork

__all__ = ["SingleFlight", "done", "then", "without_traceback"]

T = TypeVar("T")
U = TypeVar("U")

_GRACE = 0.75  # seconds more than its own bound that a refresh gets to say how it ended
_WITHIN = "a hook, a session or a store asked for a token while it is being issued, and would wait for itself"


class SingleFlight:
    """Whatever is asked for under one key runs once at a time; `flights` are under way, by key."""

    def __init__(self) -> None:
        self._reset()
        after_fork(self, SingleFlight._reset)  # the threads do not exist in a child

    def _reset(self) -> None:
        self._starting = threading.RLock()  # guards additions to `flights`; a signal handler may ask, too
        self.flights: dict[str, _Flight] = {}

    def submit(self, key: str, ask: Callable[[], T], seconds: float) -> tuple[Future[T], bool]:
        """
        Have `ask` called, or join who asks for the same `key`; after `seconds` it has failed, and the next asks anew.

        Returns:
            A future that all of them share (`then` makes one's own of it), and whether it was this caller who asked.
        """
        with self._starting:
            if threading.current_thread() in list(self.flights.values()):
                return done(error=TokenIssueError(_WITHIN, retryable=True)), False
            flight = self.flights.get(key)
            if flight is not None and flight.ident is not None:  # else a signal handler interrupted its start
                return flight.shared, False
            flight = self.flights[key] = _Flight(key, ask, seconds, self.flights)
            try:
                # With no context: it must neither keep the caller's arguments alive nor be protected as he is.
                Context().run(flight.start)
            except RuntimeError as error:  # no more threads, as while the interpreter shuts down
                flight.end(Future.set_exception, error)
            return flight.shared, True


class _Flight(threading.Thread):
    def __init__(self, key: str, ask: Callable[[], Any], seconds: float, flights: dict[str, _Flight]) -> None:
        super().__init__(name="kis_retry-refresh", daemon=True)
        self.shared: Future[Any] = Future()
        self._key, self._ask, self._seconds, self._flights = key, ask, seconds, flights

    def run(self) -> None:
        late = TokenIssueError(f"no token could be had in {self._seconds:g} seconds", retryable=True)
        watch = threading.Timer(self._seconds + _GRACE, self.end, [Future.set_exception, late])
        watch.daemon = True
        UNPROTECTED.set(True)  # on this thread, which ends with this
        try:
            watch.start()
            self.end(Future.set_result, self._ask())
        except BaseException as error:  # of somebody's code that exits, too: those who wait are told
            self.end(Future.set_exception, without_traceback(error))
        finally:
            watch.cancel()

    def end(self, settle: Callable[[Future[Any], Any], None], outcome: object) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]
        with suppress(InvalidStateError):  # it was given up
            settle(self.shared, outcome)


def done(value: Any = None, error: BaseException | None = None) -> Future[Any]:
    """Make a future that is done with `value`, or that failed with `error`."""
    future: Future[Any] = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(without_traceback(error))
    return future


def then(future: Future[T], change: Callable[[Future[T]], U]) -> Future[U]:
    """Make a future of what `change` makes of `future` once that is done; cancelling it leaves the other alone."""
    own: Future[U] = Future()

    def settle(ended: Future[T]) -> None:
        if own.set_running_or_notify_cancel():
            try:
                own.set_result(change(ended))
            except BaseException as error:  # it is whose future it is that has to know
                own.set_exception(without_traceback(error.with_traceback(None)))

    future.add_done_callback(settle)
    return own


def without_traceback(error: BaseException) -> Exception:
    """Copy `error`: raised by many it would grow a traceback, which keeps alive what each of their frames held."""
    with suppress(Exception):  # its class takes other arguments than it shows
        copied = copy.copy(error)
        if isinstance(copied, Exception) and type(copied) is type(error) and copied is not error:
            return copied
    return TokenIssueError(f"no token could be had ({type(error).__name__})", retryable=True)
