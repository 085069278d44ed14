"""A signal that comes at a moment of the test's choice, and not after a time."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from patience import PATIENCE, until

__all__ = ["alarm_once"]

_LOOKS = 10  # that find the thread at the same place
_MOST_LOOKS = 500


@contextmanager
def alarm_once(handler: Callable[..., Any], condition: Callable[[], object]) -> Iterator[None]:
    """
    Have SIGALRM handled so, and send it to this thread once `condition` holds and the thread waits for something.

    In the middle of its work the signal could meet coverage's tracer, whose lock stays locked when a handler raises.
    """
    me = threading.get_ident()

    def place() -> tuple[CodeType, int]:
        gc.disable()  # up to Python 3.11, a collection in the next line waits for a lock that this thread holds itself
        frame = sys._current_frames()[me]
        gc.enable()
        return frame.f_code, frame.f_lasti

    def send() -> None:
        until(condition)
        seen = [place()]
        while seen[-_LOOKS:] != [seen[-1]] * _LOOKS and len(seen) < _MOST_LOOKS:
            time.sleep(0.002)
            seen.append(place())
        signal.pthread_kill(me, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handler)
    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        sending.join(PATIENCE)
        signal.signal(signal.SIGALRM, before)
