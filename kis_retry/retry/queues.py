"""What functions without a limiter share: no pace, but in an outage of this process a few probes a second."""

from __future__ import annotations

from ..forking import after_fork
from .ledger import MemoryLedger
from .slots import SlotQueue

__all__ = ["process_queue"]

process_queue = SlotQueue(MemoryLedger(), 0.0)

after_fork(process_queue, SlotQueue.after_fork)
