"""
Reading settings from the environment and from a `.env` file, with `environs`.

The only module that does. A variable that is set but blank counts as not set, since that is what compose files and CI
systems make of a missing one (and it hides a line of the `.env` file, as any variable does). `environs` is imported
when the first variable is read, not with the package. Which `.env` file counts is `env_file`'s to say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigurationError
from .events import warn

__all__ = ["CREDENTIAL_VARIABLES", "Environment", "Setting", "boolean", "without_password"]

T = TypeVar("T")

CREDENTIAL_VARIABLES = {
    "app_key": ("KIS_APP_KEY", "KOREA_INVESTMENT_API_KEY"),
    "app_secret": ("KIS_APP_SECRET", "KOREA_INVESTMENT_API_SECRET"),
    "account": ("KIS_ACCOUNT_NO", "KOREA_INVESTMENT_ACCOUNT_NO"),
}
"""Our name first, then the one that people have set already for another library."""

_WITH_CREDENTIALS = ("KIS_BASE_URL", "KIS_TOKEN_STORE")
"""Where secrets and tokens go: a `.env` file names that only for the key and secret that it holds itself."""

_warned: set[tuple[str, str]] = set()  # path and reason of what this process has warned of

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

        from .env_file import find_env_file

        self._env: Any = Env()
        self.env_file: Path | None = None
        self.ignored: list[tuple[Path, str]] = []  # what does not count of `.env` files, and why
        path: object = "at or above the working directory"
        try:
            found = find_env_file(Path.cwd())
            for ignored, reason in found.ignored:
                self._ignore(ignored, reason)
            if found.path is not None:
                path = found.path
                self._env.read_env(str(found.path), recurse=False)
                self.env_file = found.path
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the .env file {path} cannot be read ({type(error).__name__}); it takes lines of NAME=value in UTF-8"
            ) from None

    def find(self, *variables: str) -> Setting | None:
        """The first of `variables` that is set and not blank."""
        for variable in variables:
            origin = "environment" if variable in os.environ else ".env"
            # environs 15.0.0 has the file win.
            text = os.environ[variable] if variable in os.environ else self._env.str(variable, None)
            if text is None or not text.strip():
                continue
            if origin == ".env" and variable in _WITH_CREDENTIALS and not self._holds_credentials():
                self._ignore(self.env_file, f"{variable} counts only beside the app key and secret in force")
                continue
            return Setting(text.strip(), variable, origin)
        return None

    def _holds_credentials(self) -> bool:
        """Whether the app key and secret in force are the `.env` file's own."""
        found = [self.find(*CREDENTIAL_VARIABLES[name]) for name in ("app_key", "app_secret")]
        return all(setting is not None and setting.origin == ".env" for setting in found)

    def _ignore(self, path: Path | None, reason: str) -> None:
        if path is None or (path, reason) in self.ignored:
            return
        self.ignored.append((path, reason))
        if (str(path), reason) not in _warned:
            _warned.add((str(path), reason))
            warn("env_file_ignored", path=str(path), error=reason)

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
