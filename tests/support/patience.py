"""Waiting for what will happen, however slow the machine: never for a time in which it ought to have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["PATIENCE", "until", "until_async"]

PATIENCE = 60.0
"""Seconds after which what has not happened never will: far more than a busy machine needs."""

_LOOK = 0.002  # seconds between two looks


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; fail where it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(_LOOK)


async def until_async(condition: Callable[[], object]) -> None:
    """`until`, while the other tasks of the event loop go on."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(_LOOK)
