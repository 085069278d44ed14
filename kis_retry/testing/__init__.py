"""What a batch is tested with: a gateway that behaves like KIS."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gateway import KisGateway
    from .rules import Counts, ReceivedRequest

__all__ = ["Counts", "KisGateway", "ReceivedRequest"]


def __getattr__(name: str) -> Any:  # late: every run of pytest imports the plugin, which is in this folder
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".gateway", __name__), name)
