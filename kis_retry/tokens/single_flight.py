"""
One caller asks, the others share what it got, its success and its failure: `SingleFlight`.

What is asked for runs on a thread of its own. So callers may stop waiting when they like (a time limit, a cancelled
task, an exception of a signal handler), and the refresh goes on for the others. Nothing here is a lock that a signal
handler or a fork could meet locked.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from ..bypass import unprotected
from ..errors import TokenIssueError
from ..forking import after_fork

__all__ = ["SingleFlight", "done", "failed", "then", "without_traceback"]

T = TypeVar("T")
U = TypeVar("U")

_GRACE = 0.75  # seconds more than its own bound that a refresh gets to say how it ended
_WITHIN = (
    "a token was asked for by what runs while it is being issued (a hook of on_event, a session or store of your own), "
    "which would wait for itself"
)


class _Job(Generic[T]):
    def __init__(
        self, key: Hashable, ask: Callable[[], T], seconds: float, when_late: Callable[[Exception], object] | None
    ) -> None:
        self.key, self.seconds, self.when_late = key, seconds, when_late
        self.turns = [ask]  # popped by the one thread that runs it
        self.ends = [True]  # popped by the one that ends it
        self.thread: threading.Thread | None = None
        self.asker: Future[T] = Future()
        self.joiners: Future[T] = Future()


class SingleFlight:
    """
    Whatever is asked for under one key runs once at a time; who asks for it meanwhile shares its outcome.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
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
        Have `ask` called, which may block, or join who asks for the same `key`.

        After `seconds` those who wait get a `TokenIssueError`, of which `when_late` is told, and the next asks anew.

        Returns:
            A future of the caller's own, which may be cancelled, and whether it was this caller who asked.
        """
        if any(job.thread is threading.current_thread() for job in list(self._jobs.values())):
            return failed(TokenIssueError(_WITHIN, retryable=True)), False
        job = made = _Job(key, ask, seconds, when_late)
        try:
            job = self._jobs.setdefault(key, made)  # atomic: one of those who come together asks
            self._start(job)
        except BaseException:  # of a signal handler: others wait for it, or will
            if self._jobs.get(key) is job:
                self._start(job)
            raise
        return (job.asker, True) if job is made else (then(job.joiners, Future.result), False)

    def _start(self, job: _Job[T]) -> None:
        if job.thread is not None:
            return
        thread = threading.Thread(target=self._run, args=[job], name=self._name, daemon=True)
        try:
            # With no context: it must neither keep the caller's arguments alive nor be protected as he is.
            Context().run(thread.start)
        except RuntimeError:  # no more threads, as while the interpreter shuts down: the caller's own does it
            self._run(job)

    def _run(self, job: _Job[T]) -> None:
        try:
            ask = job.turns.pop()
        except IndexError:  # a signal handler asked while another thread was begun
            return
        job.thread = threading.current_thread()
        watch = threading.Timer(job.seconds + _GRACE, self._give_up, [job])
        watch.daemon, watch.name = True, f"{self._name}-deadline"
        with suppress(RuntimeError):  # as above
            watch.start()
        try:
            with unprotected():
                outcome = done(ask())
        except BaseException as error:  # of somebody's code that exits, too: those who wait are told
            outcome = failed(error)
        watch.cancel()
        self._end(job, outcome)

    def _give_up(self, job: _Job[T]) -> None:
        late = TokenIssueError(f"no token could be had in {job.seconds:g} seconds", retryable=True)
        if job.ends and job.when_late is not None:
            job.when_late(late)
        self._end(job, failed(late))

    def _end(self, job: _Job[T], outcome: Future[T]) -> None:
        try:
            job.ends.pop()
        except IndexError:  # it was given up, or came to its end just now
            return
        self._jobs.pop(job.key, None)
        _settle(job.joiners, outcome)
        _settle(job.asker, outcome)  # last: a hook may take its time over what it tells

    def _reset(self) -> None:
        """Begin with nothing, in a forked child too: the threads do not exist there."""
        self._jobs: dict[Hashable, _Job[Any]] = {}


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
            outcome = failed(error.with_traceback(None))  # which would keep everything that waits here alive
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
    if not waiter.set_running_or_notify_cancel():
        return
    error = outcome.exception()
    if error is None:
        waiter.set_result(outcome.result())
    else:
        waiter.set_exception(without_traceback(error))
