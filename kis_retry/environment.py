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
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .tokens.token import Credentials

__all__ = ["CREDENTIAL_VARIABLES", "Environment", "Setting", "credentials_from_env", "without_password"]

T = TypeVar("T")

CREDENTIAL_VARIABLES = {
    "app_key": ("KIS_APP_KEY", "KOREA_INVESTMENT_API_KEY"),
    "app_secret": ("KIS_APP_SECRET", "KOREA_INVESTMENT_API_SECRET"),
    "account": ("KIS_ACCOUNT_NO", "KOREA_INVESTMENT_ACCOUNT_NO"),
}
"""Our name first, then the one that people have set already for another library."""

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


def credentials_from_env() -> Credentials:
    """What `Credentials.from_env()` promises."""
    from .tokens.token import Credentials

    environment = Environment()
    found = {name: environment.find(*variables) for name, variables in CREDENTIAL_VARIABLES.items()}
    missing = [CREDENTIAL_VARIABLES[name][0] for name in ("app_key", "app_secret") if found[name] is None]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: take them from the KIS developer "
            "portal and set KIS_APP_KEY and KIS_APP_SECRET (or KOREA_INVESTMENT_API_KEY and …_API_SECRET) "
            "in the environment or in a .env file"
        )
    texts = {name: setting.text if setting else None for name, setting in found.items()}
    base_url = environment.read(_url, "an address that begins with http:// or https://", "KIS_BASE_URL")
    paper = environment.read(boolean, "true or false", "KIS_PAPER")
    return Credentials(
        texts["app_key"] or "",
        texts["app_secret"] or "",
        texts["account"],
        paper=bool(paper),
        base_url=base_url,
    )


def _url(text: str) -> str:
    if not re.match(r"https?://[^/\s]", text):
        raise ValueError("not an http address")
    return text
