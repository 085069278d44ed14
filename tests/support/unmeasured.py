"""
Processes that a signal meets anywhere run without coverage.

Its tracer takes a lock at every call; an exception that a signal handler raises there leaves it locked, and the process
hangs (coverage 7.16 on Python 3.10).
"""

from __future__ import annotations

import os

__all__ = ["unmeasured"]


def unmeasured() -> dict[str, str]:
    """The environment for them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
