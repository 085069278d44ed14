"""Which store `KIS_TOKEN_STORE` names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..forking import no_fork
from ..settings import Environment
from .file import FileTokenStore
from .memory import PROCESS_MEMORY

if TYPE_CHECKING:
    from .base import TokenStore

__all__ = ["STORE_VARIABLE", "store_from_env", "store_named"]

STORE_VARIABLE = "KIS_TOKEN_STORE"
_TAKES = "file, memory, a folder's path with a / in it (./tokens), redis://… or rediss://…"
_ADDRESS = re.compile(r"(?![A-Za-z]:)[^/\\]*:")  # a mistyped address is no folder; one letter is a drive
_REDIS = ("redis://", "rediss://", "unix://", "valkey://", "valkeys://")


def store_from_env() -> TokenStore:
    """Return the store that `KIS_TOKEN_STORE` names, by default `file`; `ConfigurationError` where it names none."""
    setting = Environment().find(STORE_VARIABLE)
    return store_named(setting.text if setting else "file")


def store_named(name: str) -> TokenStore:
    """Return the store for one value of the variable; no error shows what may hold a password."""
    word = name.lower()
    is_path = os.sep in name or "/" in name or name.startswith(("~", "."))
    try:
        if word == "memory":
            return PROCESS_MEMORY
        if word.startswith(_REDIS):
            with no_fork():
                from .redis import RedisTokenStore

            return RedisTokenStore(name)
        if word == "file" or (is_path and not _ADDRESS.match(name)):
            return FileTokenStore(None if word == "file" else name)
    except ConfigurationError as error:
        problem = f"{STORE_VARIABLE} is not usable: {error}"
    else:
        # Of what looks like an address the scheme alone is shown, for a password may be anywhere in it.
        shown = re.sub(r"(?<=://).*|^(?!.*://).*[:@?=].*", "…", name, flags=re.DOTALL)
        problem = f"{STORE_VARIABLE}={shown!r} is not usable: it takes {_TAKES}"
    del name, word  # what reports an error shows the locals of its frames, too
    raise ConfigurationError(problem)
