"""The clock of a `TokenManager`: `time` for expiry, which tests may freeze, and `monotonic` for deadlines."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec
from time import sleep, time
from typing import Any

__all__ = ["Monotonic", "monotonic", "sleep", "time"]


def _copy_of(module: Any) -> Any:
    copy = module_from_spec(module.__spec__)
    module.__spec__.loader.exec_module(copy)
    return copy


class Monotonic:
    """Seconds that only ever grow; `freezegun` knows nothing of a copy of the module `time`, and so cannot stop it."""

    now = staticmethod(_copy_of(sys.modules["time"]).monotonic)


monotonic = Monotonic.now
