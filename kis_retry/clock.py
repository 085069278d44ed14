"""The clock of a `TokenManager`: `time` for expiry, which tests may freeze, and `monotonic` for deadlines."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec
from time import sleep, time
from typing import Any

__all__ = ["LEAST_WAIT", "Monotonic", "monotonic", "sleep", "time"]

LEAST_WAIT = 0.01  # seconds; less is the rounding of a sum of waits

_spec: Any = sys.modules["time"].__spec__
_copy = module_from_spec(_spec)
_spec.loader.exec_module(_copy)


class Monotonic:
    """Seconds that only ever grow; `freezegun` knows nothing of a copy of the module `time`, and so cannot stop it."""

    now = staticmethod(_copy.monotonic)


monotonic = Monotonic.now
