"""
Ready-made hooks for `on_event`: structlog and Prometheus.

Each needs its library (the extras `structlog` and `prometheus`) when it is made, not when it is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .prometheus_hook import PrometheusHook
    from .structlog_hook import StructlogHook

__all__ = ["PrometheusHook", "StructlogHook"]

# A room is not called as its library: where this folder is on the path, it would stand in for it.
_MODULE_OF = {"PrometheusHook": ".prometheus_hook", "StructlogHook": ".structlog_hook"}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
