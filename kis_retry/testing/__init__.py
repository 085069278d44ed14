"""
What a batch is tested with: a gateway that behaves like KIS, and a suite for token stores of your own.

Both are looked up when asked for, so that the pytest plugin, which every run imports, costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compliance import TokenStoreCompliance
    from .gateway import KisGateway

__all__ = ["KisGateway", "TokenStoreCompliance"]


def __getattr__(name: str) -> Any:
    if name == "KisGateway":
        from .gateway import KisGateway

        return KisGateway
    if name == "TokenStoreCompliance":
        from .compliance import TokenStoreCompliance

        return TokenStoreCompliance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
