"""What an import takes, in processor time and in a fresh interpreter each time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from measuring import Line, side_by_side

__all__ = ["lines"]

MILLISECOND = 1e-3
BASE = "import tenacity, requests"
FACE = "from kis_retry import KisClient, TokenManager, protect, refresh_on_expired_token"
OTHERS = ("import kis_retry", "import stamina", "import backoff, requests", "import httpx")


def lines(*, quick: bool) -> Iterator[Line]:
    statements = (BASE, FACE, *OTHERS)
    measured = side_by_side({statement: _timed(statement) for statement in statements}, 5 if quick else 25)
    for statement in statements:
        yield Line(statement, measured.median(statement) / MILLISECOND, "ms")
    yield Line("those four names: of tenacity and requests", measured.ratio(FACE, BASE), "×", at_most=1.25)


def _timed(statement: str) -> Callable[[], float]:
    program = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    # Compiled once and kept, as an installed package is: the first round, which does not count, writes what is missing.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def seconds() -> float:
        return float(subprocess.check_output([sys.executable, "-c", program], env=environment))

    return seconds
