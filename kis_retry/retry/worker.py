"""Asking a source from an event loop: `kis_retry.tokens.worker`, under the name that the decorators know."""

from __future__ import annotations

from ..tokens.worker import replace, token

__all__ = ["replace", "token"]
