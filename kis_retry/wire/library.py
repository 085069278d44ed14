"""What an exchange needs of the library that sends, and what came of sending once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..answers import Verdict, judge_answer, judge_error
from .orders import Ending, rebuilt
from .protection import UNDER_WAY

__all__ = ["LibraryCall", "Sent"]


@dataclass(frozen=True)
class Sent:
    """
    What came of sending a request once.

    Attributes:
        verdict: how it was judged.
        response: the library's own, its body read or still to be read as the caller wants it.
        error: what the library raised instead.
        redirected: the answer is of another request, to which the first one led.
        ending: how it ended, as it can be told again without it.
        replayed: it was not sent at all: the same order was, and its answer was lost.
    """

    verdict: Verdict
    response: Any = None
    error: Exception | None = None
    redirected: bool = False
    ending: Ending | None = None
    replayed: bool = False

    def end(self) -> Any:
        """Give the caller the outcome."""
        error = self.error
        try:
            if error is not None:
                raise error
            return self.response
        finally:
            del error, self  # a circle would keep the connection open


class LibraryCall:
    """
    One call of the function with which a library sends.

    Attributes:
        codes: KIS's codes that count as an expired token.
        alone: nobody underneath may repeat the request.
    """

    codes: tuple[str, ...] = ()
    alone = False
    lost: type[Exception] = ConnectionError
    """The error of this library for a connection that broke, where that of a lost order cannot be made again."""

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Have whatever sends inside leave the request alone."""
        UNDER_WAY.set(self)
        try:
            yield
        finally:
            if UNDER_WAY.get() is self:  # else it is a coroutine that is collected unfinished, and this is another's
                UNDER_WAY.set(None)

    def new_session(self) -> Any:
        """Return a session for token requests with the proxies and certificates of this one; None: the usual ones."""
        return None

    def answer(self, status: int, body: bytes) -> Sent:
        """Return an answer of KIS's that is made here."""
        raise NotImplementedError

    def retold(self, ending: Ending) -> Sent:
        """Return how an order ended before."""
        if ending.error is None:
            return self.answer(ending.status, ending.body)
        return Sent(ending.verdict, error=rebuilt(ending, self.lost))

    def judged(self, response: Any, status: int, body: bytes | None, *, redirected: bool) -> Sent:
        """Judge an answer."""
        verdict = judge_answer(status, body, self.codes)
        return Sent(verdict, response, None, redirected, Ending(verdict, status, body or b""))

    def failed(self, error: Exception, *, redirected: bool = False) -> Sent:
        """Judge an error, and let go of the frame of this package, which would keep it alive."""
        trace = error.__traceback__
        verdict = judge_error(error, self.codes)
        ending = Ending(verdict, error=type(error), text=str(error))
        error = error.with_traceback(trace.tb_next if trace is not None else None)
        return Sent(verdict, error=error, redirected=redirected, ending=ending)
