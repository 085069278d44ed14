"""A signal that comes at a moment of the test's choice, and not after a time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from patience import PATIENCE, until

__all__ = ["alarm_once"]


@contextmanager
def alarm_once(condition: Callable[[], object]) -> Iterator[None]:
    """Send SIGALRM to this thread once `condition` holds."""
    me = threading.get_ident()

    def send() -> None:
        until(condition)
        signal.pthread_kill(me, signal.SIGALRM)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        sending.join(PATIENCE)
