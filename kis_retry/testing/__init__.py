"""
What a batch is tested with: a gateway that behaves like KIS, and suites for token stores of your own.

They are looked up when asked for, so that the pytest plugin, which every run imports, costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .corruption import DamagedEntryCompliance
    from .gateway import KisGateway
    from .received import ReceivedRequest
    from .store_contract import TokenStoreCompliance

__all__ = ["DamagedEntryCompliance", "KisGateway", "ReceivedRequest", "TokenStoreCompliance"]

_MODULE_OF = {
    "DamagedEntryCompliance": ".corruption",
    "KisGateway": ".gateway",
    "ReceivedRequest": ".received",
    "TokenStoreCompliance": ".store_contract",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
