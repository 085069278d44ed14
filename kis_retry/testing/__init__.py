"""
What a batch is tested with: a gateway that behaves like KIS.

Names are looked up when asked for, so that the pytest plugin, which every run imports, costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gateway import KisGateway
    from .received import ReceivedRequest

__all__ = ["KisGateway", "ReceivedRequest"]

_MODULE_OF = {
    "KisGateway": ".gateway",
    "ReceivedRequest": ".received",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
