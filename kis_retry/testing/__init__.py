"""
What a batch is tested with: a gateway that behaves like KIS.

The names are looked up when asked for, so that the pytest plugin, which every run imports, costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gateway import KisGateway, ReceivedRequest

__all__ = ["KisGateway", "ReceivedRequest"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import gateway

        return getattr(gateway, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
