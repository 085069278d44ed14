"""
One caller asks, the others share what it got, its success and its failure: `SingleFlight`.

What is asked for runs on a thread of its own. So callers may stop waiting when they like (a time limit, a cancelled
task, an exception of a signal handler), and the refresh goes on for the others.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..bypass import unprotected
from ..errors import TokenIssueError
from ..forking import after_fork
from .cache import SYSTEM_CLOCK

__all__ = ["SingleFlight", "done", "failed", "then", "without_traceback"]

T = TypeVar("T")
U = TypeVar("U")

_GRACE = 0.75  # seconds more than its own bound that a refresh gets to say how it ended
_WITHIN = (
    "a token was asked for by what runs while it is being issued (a hook of on_event, a session or store of your own), "
    "which would wait for itself"
)


@dataclass(eq=False)
class _Job:
    key: Hashable
    ask: Callable[[], Any]
    seconds: float
    when_late: Callable[[Exception], object] | None
    ends: float
    waiters: list[Future[Any]] = field(default_factory=list)


class SingleFlight:
    """
    One thing at a time, each on the thread of this flight; who asks for the same meanwhile shares its outcome.

    Args:
        name: of the thread, which lives for as long as there is something to do.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._runner: threading.Thread | None
        self._reset()
        after_fork(self, SingleFlight._reset)

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return bool(self._jobs)

    def submit(
        self,
        key: Hashable,
        ask: Callable[[], T],
        seconds: float,
        when_late: Callable[[Exception], object] | None = None,
    ) -> tuple[Future[T], bool]:
        """
        Have `ask` called, or join who asks for the same. Never blocks.

        Args:
            key: what it is about. What is about something else runs afterwards, so `ask` looks whether it is needed.
            ask: may block.
            seconds: after which those who wait get a `TokenIssueError`, and the next one asks anew.
            when_late: is told of that error.

        Returns:
            A future of the caller's own, which may be cancelled, and whether it was this caller who asked.
        """
        waiter: Future[T] = Future()
        if threading.current_thread() is self._runner:
            return failed(TokenIssueError(_WITHIN, retryable=True)), False
        made = _Job(key, ask, seconds, when_late, SYSTEM_CLOCK.monotonic() + seconds + _GRACE)
        try:
            with self._lock:
                job = self._jobs.setdefault(key, made)
                job.waiters.append(waiter)
            self._run_if_idle()
        except BaseException:  # of a signal handler: whoever joined, or will, waits for it
            self._run_if_idle()
            raise
        return waiter, job is made

    def _run_if_idle(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        with self._lock:
            runner = self._runner
            if not self._jobs or (runner is not None and runner.ident is not None):
                return
            self._runner = thread
        try:
            # With no context: it must neither keep the caller's arguments alive nor be protected as he is.
            Context().run(thread.start)
        except RuntimeError:  # no more threads, as while the interpreter shuts down: the caller's own does it
            self._runner = threading.current_thread()
            self._run()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            watch = threading.Timer(job.ends - SYSTEM_CLOCK.monotonic(), self._give_up, [job])
            watch.daemon, watch.name = True, f"{self._name}-deadline"
            with suppress(RuntimeError):  # as above
                watch.start()
            try:
                with unprotected():
                    outcome = done(job.ask())
            except BaseException as error:  # of somebody's code that exits, too: those who wait are told
                outcome = failed(error)
            watch.cancel()
            self._end(job, outcome)

    def _next(self) -> _Job | None:
        with self._lock:
            if self._runner is not threading.current_thread():  # it was given up, and another one goes on
                return None
            job = next(iter(self._jobs.values()), None)
            if job is None:
                self._runner = None
            return job

    def _give_up(self, job: _Job) -> None:
        """Go on with what else there is, on this thread: the other one hangs, most likely in code of the user's."""
        with self._lock:
            if self._jobs.get(job.key) is not job:
                return
            self._runner = threading.current_thread()
        late = TokenIssueError(f"no token could be had in {job.seconds:g} seconds", retryable=True)
        if job.when_late is not None:
            job.when_late(late)
        self._end(job, failed(late))
        self._run()

    def _end(self, job: _Job, outcome: Future[Any]) -> None:
        with self._lock:
            if self._jobs.get(job.key) is not job:
                return
            del self._jobs[job.key]
        for waiter in reversed(job.waiters):  # who asked is last: a hook of his may take its time
            with suppress(BaseException):  # of what a caller does next: the others have to be told all the same
                _settle(waiter, outcome)

    def _reset(self) -> None:
        """Begin with nothing, in a forked child too: the thread that it ran on does not exist there."""
        self._lock = threading.RLock()  # guards the two below; a signal handler may ask in the middle of it
        self._jobs: dict[Hashable, _Job] = {}  # the first one is running
        self._runner = None


def done(value: T) -> Future[T]:
    """Make a future that is done."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def failed(error: BaseException) -> Future[Any]:
    """Make a future that failed, with an exception that keeps nothing alive."""
    future: Future[Any] = Future()
    future.set_exception(without_traceback(error))
    return future


def then(future: Future[T], change: Callable[[Future[T]], U]) -> Future[U]:
    """Make a future of what `change` makes of `future` once that is done; cancelling it leaves the other alone."""
    changed: Future[U] = Future()

    def settle(ended: Future[T]) -> None:
        try:
            outcome = done(change(ended))
        except BaseException as error:  # it is whose future it is that has to know
            outcome = failed(error)
        _settle(changed, outcome)

    future.add_done_callback(settle)
    return changed


def without_traceback(error: BaseException) -> Exception:
    """
    Copy `error` without its traceback and context.

    One exception raised by many grows a traceback with every raise, and keeps alive what each of their frames held.
    """
    copied: object = None
    if isinstance(error, Exception):
        with suppress(Exception):  # its class takes other arguments than it shows
            copied = copy.copy(error)
    if isinstance(copied, Exception) and type(copied) is type(error) and copied is not error:
        return copied
    return TokenIssueError(f"no token could be had ({type(error).__name__})", retryable=True)


def _settle(waiter: Future[T], outcome: Future[T]) -> None:
    error = outcome.exception()
    if not waiter.set_running_or_notify_cancel():
        return
    if error is None:
        waiter.set_result(outcome.result())
    else:
        waiter.set_exception(without_traceback(error))
