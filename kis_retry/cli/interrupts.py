"""
Ctrl-C, such that none is lost and none does harm.

Python raises KeyboardInterrupt wherever the main thread is. In a destructor or a callback of the garbage collector it
is dropped. In the middle of an import, which runs such a callback too, it may leave the lock of all imports locked, and
every other thread waits at its next import.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["check_interrupt", "remembering_interrupts"]

_came = False


@contextmanager
def remembering_interrupts() -> Iterator[None]:
    """
    Have each Ctrl-C end what is inside, at the latest when that is done, even if its exception is dropped or replaced.

    Where SIGINT is ignored or somebody else's, and on any but the main thread, all stays as it is.
    """
    global _came
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    tell = sys.unraisablehook

    def tell_others(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            tell(dropped)

    sys.unraisablehook = tell_others
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = tell
        came, _came = _came, False
        if came:
            raise KeyboardInterrupt


def check_interrupt() -> None:
    """
    For what runs long to call now and then.

    Raises:
        KeyboardInterrupt: a Ctrl-C has come inside `remembering_interrupts`.
    """
    if _came:
        raise KeyboardInterrupt


def _interrupt(_: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    if frame is None or not frame.f_code.co_filename.startswith("<frozen importlib"):
        raise KeyboardInterrupt
