"""A clock that nobody freezes, for deadlines."""

from __future__ import annotations

import time

__all__ = ["Monotonic"]


class Monotonic:
    """
    Seconds that only ever grow.

    `freezegun` replaces what modules hold, and leaves an attribute of a class alone: a test that freezes the wall clock
    does not stop a deadline.
    """

    now = staticmethod(time.monotonic)
