"""A signal that comes at a moment of the test's choice, and not after a time."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from patience import PATIENCE, until

__all__ = ["alarm_once"]

_LOOKS = 10


@contextmanager
def alarm_once(condition: Callable[[], object]) -> Iterator[None]:
    """
    Send SIGALRM to this thread once `condition` holds and the thread waits for something.

    In the middle of its work the signal could meet coverage's tracer, whose lock stays locked when a handler raises.
    """
    me = threading.get_ident()
    places: list[tuple[int, int]] = []

    def stands_still() -> bool:
        frame = sys._current_frames()[me]
        places.append((id(frame), frame.f_lasti))
        return places[-_LOOKS:] == [places[-1]] * _LOOKS

    def send() -> None:
        until(condition)
        until(stands_still)
        signal.pthread_kill(me, signal.SIGALRM)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        sending.join(PATIENCE)
