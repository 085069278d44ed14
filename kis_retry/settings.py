"""
Reading settings from the environment and from a `.env` file, with `environs`.

The only room that does. A variable that is set but blank counts as not set, since that is what compose files and CI
systems make of a missing one (and it hides a line of the `.env` file, as any variable does). `environs` is imported
when the first variable is read, not with the package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import ConfigurationError

__all__ = ["Environment", "Setting", "boolean", "without_password"]

T = TypeVar("T")

_BOOLEANS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


@dataclass(frozen=True, repr=False)
class Setting:
    """A text as it was found: `variable` says under which name, `origin` where ("environment" or ".env")."""

    text: str
    variable: str
    origin: str


class Environment:
    """The process's environment, and behind it the nearest `.env` at or above the working directory."""

    def __init__(self) -> None:
        from environs import Env

        self._env: Any = Env()
        try:
            # A bare file name makes environs search from the working directory upwards.
            self._env.read_env(".env")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the .env file at or above the working directory cannot be read ({type(error).__name__}); "
                "it takes lines of NAME=value in UTF-8"
            ) from None

    def find(self, *variables: str) -> Setting | None:
        """The first of `variables` that is set and not blank."""
        for variable in variables:
            text = self._env.str(variable, None)
            if text is not None and text.strip():
                return Setting(text.strip(), variable, "environment" if variable in os.environ else ".env")
        return None

    def read(self, convert: Callable[[str], T], takes: str, *variables: str) -> T | None:
        """The first of `variables` that is set, converted; None where none is; a bad one is a `ConfigurationError`."""
        setting = self.find(*variables)
        if setting is None:
            return None
        try:
            return convert(setting.text)
        except ValueError:
            raise ConfigurationError(
                f"{setting.variable}={without_password(setting.text)!r} is not usable: it takes {takes}"
            ) from None


def boolean(text: str) -> bool:
    """true/false, yes/no, on/off, 1/0, in any case."""
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("not a boolean") from None


def without_password(text: str) -> str:
    """A URL without what stands before its last "@": that may be a password, and may hold anything."""
    return re.sub(r"//.*@", "//***@", text)
