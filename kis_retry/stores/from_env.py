"""Which store `KIS_TOKEN_STORE` names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..settings import Environment, without_password

if TYPE_CHECKING:
    from .base import TokenStore

__all__ = ["STORE_VARIABLE", "store_from_env", "store_named"]

STORE_VARIABLE = "KIS_TOKEN_STORE"
_TAKES = "file, memory, a folder's path with a / in it (./tokens), redis://… or rediss://…"
_ADDRESS = re.compile(r"(?![A-Za-z]:)[^/\\]*:")  # a mistyped address is no folder; one letter is a drive
_REDIS = ("redis://", "rediss://", "unix://", "valkey://", "valkeys://")

_shared_memory: TokenStore | None = None


def store_from_env() -> TokenStore:
    """
    The store that `KIS_TOKEN_STORE` names; `file` where it names none.

    Raises:
        ConfigurationError: it names something else, or Redis without the extra `redis`.
    """
    setting = Environment().find(STORE_VARIABLE)
    return store_named(setting.text if setting else "file")


def store_named(name: str) -> TokenStore:
    """The store for one value of the variable."""
    try:
        store = _store_named(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{STORE_VARIABLE} is not usable: {error}") from None
    if store is None:
        raise ConfigurationError(f"{STORE_VARIABLE}={_shown(name)!r} is not usable: it takes {_TAKES}")
    return store


def _store_named(name: str) -> TokenStore | None:
    if name.lower() == "memory":
        return _memory_of_this_process()
    if name.lower().startswith(_REDIS):
        from .redis import RedisTokenStore

        return RedisTokenStore(name)
    from .file import FileTokenStore

    if name.lower() == "file":
        return FileTokenStore()
    if not _ADDRESS.match(name) and (os.sep in name or "/" in name or name.startswith(("~", "."))):
        return FileTokenStore(name)
    return None


def _shown(name: str) -> str:
    return without_password(name) if "://" in name else re.sub(r":.*@", ":***@", name)


def _memory_of_this_process() -> TokenStore:
    """One for all: two clients that were both told `memory` must not issue twice within the minute."""
    global _shared_memory
    if _shared_memory is None:
        from .memory import MemoryTokenStore

        _shared_memory = MemoryTokenStore()
    return _shared_memory
