"""
Read settings from the environment and from a `.env` file.

A variable that is set but blank counts as not set, since that is what compose files and CI systems make of a missing
one (and it hides a line of the `.env` file, as any variable does). Quotes around a value are taken off: Docker's
`--env-file` leaves them on. Nothing in a `.env` file is expanded, and a file that somebody else could have written does
not count: whoever can put one above a working directory could otherwise send somebody's secret to a host of his own.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import ConfigurationError
from .events import warn
from .forking import no_fork
from .ownership import is_trusted, may_be_written_by_strangers

__all__ = [
    "CREDENTIAL_VARIABLES",
    "PREFIX",
    "RETRY_VARIABLES",
    "Environment",
    "Setting",
    "boolean",
    "credential_variables",
    "unknown_variables",
    "without_password",
]

T = TypeVar("T")

PREFIX = "KIS_"
CREDENTIAL_VARIABLES = {
    "app_key": ("KIS_APP_KEY", "KOREA_INVESTMENT_API_KEY"),
    "app_secret": ("KIS_APP_SECRET", "KOREA_INVESTMENT_API_SECRET"),
    "account": ("KIS_ACCOUNT_NO", "KOREA_INVESTMENT_ACCOUNT_NO"),
}
"""Our name first, then the one that people have set already for another library."""

RETRY_VARIABLES = tuple(
    f"KIS_RETRY_{name}"
    for name in (
        *("ENABLED", "MAX_RETRIES", "WAIT", "REFRESH_MARGIN", "ISSUE_TIMEOUT", "ISSUE_WAIT", "ISSUE_COOLDOWN"),
        *("TRANSIENT_DEADLINE", "ORDER_DEADLINE", "ORDER_HOLD", "EXPIRED_CODES"),
    )
)
"""Those of `RetryPolicy`. No other variable begins so."""

_BOOLEANS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
_warned: set[tuple[str, str]] = set()  # path and reason of what this process has warned of


@dataclass(frozen=True, repr=False)
class Setting:
    """A text as it was found: `variable` is the name under which it was, `origin` is "environment" or ".env"."""

    text: str
    variable: str
    origin: str


class Environment:
    """
    The process's environment, and behind it the nearest `.env` file that counts.

    The file is looked for in the working directory and the folders above it, then in the script's folder and those
    above that, since cron starts a script somewhere else.

    Args:
        prefix: begins the names of the credentials that `KIS_BASE_URL` and `KIS_TOKEN_STORE` of a `.env` belong to.

    Attributes:
        env_file: the file that counts, if there is one.
        searched: the folders where the search began.
        ignored: what does not count of `.env` files, with the reason of each.

    Raises:
        ConfigurationError: the file cannot be read.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        with no_fork():
            from environs import Env

        self._env = Env()
        self._prefix = prefix
        self._lines: dict[str, str | None] = {}
        self.env_file: Path | None = None
        self.searched: list[Path] = []
        self.ignored: list[tuple[Path, str]] = []
        problem = self._load()
        if problem is not None:
            raise ConfigurationError(problem)

    def find(self, *variables: str) -> Setting | None:
        """Return the first of `variables` that is set and not blank."""
        for variable in variables:
            is_set = variable in os.environ
            text = _unquoted((self._env.str(variable, "") if is_set else self._lines.get(variable)) or "")
            if not text:
                continue
            if is_set:
                return Setting(text, variable, "environment")
            if variable in (f"{self._prefix}BASE_URL", "KIS_TOKEN_STORE") and not self._holds_credentials():
                self._ignore(self.env_file, f"{variable} counts only beside the app key and secret in force")
                continue
            return Setting(text, variable, ".env")
        return None

    def read(self, convert: Callable[[str], T], takes: str, *variables: str) -> T | None:
        """
        Return the first of `variables` that is set, converted; None where none is.

        Raises:
            ConfigurationError: `convert` raised `ValueError`; the message names the variable and what it `takes`.
        """
        setting = self.find(*variables)
        if setting is None:
            return None
        try:
            return convert(setting.text)
        except ValueError:
            pass  # what is raised in here would keep the text, which may hold a password
        raise ConfigurationError(
            f"{setting.variable}={without_password(setting.text)!r} is not usable: it takes {takes}"
        )

    def where(self) -> str:
        """Say where was looked, for an error about what is not set."""
        if self.env_file is not None:
            file = f"in {self.env_file}"
        else:
            file = "in a .env file at or above " + " or ".join(map(str, self.searched))
        reasons = "".join(f"; {path} is ignored: {reason}" for path, reason in self.ignored)
        return f"neither in the environment nor {file}{reasons}"

    def unknown(self) -> list[str]:
        """Return the variables `KIS_RETRY_…` that nobody reads, as a typo makes them."""
        names = {*os.environ, *self._lines}
        return sorted(name for name in names if name.startswith("KIS_RETRY_") and name not in RETRY_VARIABLES)

    def _load(self) -> str | None:
        """Read the file that counts. Gives back what is wrong, since an exception would keep the lines that it met."""
        place: object = "at or above the working directory"
        try:
            for start in _starting_folders():
                self.searched.append(start)
                self.env_file = self.env_file or self._file_from(start)
            if self.env_file is not None:
                with no_fork():
                    from dotenv import dotenv_values  # by itself: through environs it always expands ${…}

                place = self.env_file
                self._lines = dotenv_values(self.env_file, interpolate=False)
        except (OSError, UnicodeDecodeError) as error:
            self.env_file = None
            return (
                f"the .env file {place} cannot be read ({type(error).__name__}); it takes lines of NAME=value in UTF-8"
            )
        return None

    def _file_from(self, start: Path) -> Path | None:
        """Look from `start` upwards. Nothing is opened here: a FIFO would wait for its writer for ever."""
        for folder in (start, *start.parents):
            path = folder / ".env"
            try:
                reason = _why_not(path)
            except OSError:  # none there, or none that this user can get to
                continue
            if reason is None:
                return path
            self._ignore(path, reason)
        return None

    def _holds_credentials(self) -> bool:
        """Say whether the app key and secret in force are the `.env` file's own."""
        names = credential_variables(self._prefix)
        found = [self.find(*names[name]) for name in ("app_key", "app_secret")]
        return all(setting is not None and setting.origin == ".env" for setting in found)

    def _ignore(self, path: Path | None, reason: str) -> None:
        if path is None or (path, reason) in self.ignored:
            return
        self.ignored.append((path, reason))
        if (str(path), reason) not in _warned:
            _warned.add((str(path), reason))
            warn("env_file_ignored", path=str(path), error=reason)


def credential_variables(prefix: str = PREFIX) -> dict[str, tuple[str, ...]]:
    """Return the variables of app key, secret and account; the other library's names stand in for `KIS_` alone."""
    if prefix == PREFIX:
        return dict(CREDENTIAL_VARIABLES)
    return {name: (prefix + ours.removeprefix(PREFIX),) for name, (ours, _) in CREDENTIAL_VARIABLES.items()}


def unknown_variables() -> list[str]:
    """Return the variables `KIS_RETRY_…` that are set, here or in the `.env` file, and that nobody reads."""
    return Environment().unknown()


def boolean(text: str) -> bool:
    """Convert true/false, yes/no, on/off or 1/0, in any case; `ValueError` for anything else."""
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("not a boolean") from None


def without_password(text: str) -> str:
    """Mask what may be a password in an address: all before its last "@", since it may hold anything, and the query."""
    scheme, separator, rest = text.partition("//" if "//" in text else ":")
    if "?" in scheme:
        return f"{scheme.partition('?')[0]}?***"
    before, at, host = rest.rpartition("@")
    if "?" in before:  # that may be a password before the host, or in the query
        return f"{scheme}{separator}***"
    host, query, _ = host.partition("?")
    return scheme + separator + ("***@" if at else "") + host + ("?***" if query else "")


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].strip()
    return text


def _starting_folders() -> list[Path]:
    """Return the working directory and the script's folder, unless the script came with an installation, as pytest."""
    folders = [Path.cwd()]
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(script, str):
        folder = Path(script).resolve().parent
        installed = folder == Path(sys.executable).parent or {"site-packages", "dist-packages"} & set(folder.parts)
        if not installed and folder not in folders:
            folders.append(folder)
    return folders


def _why_not(path: Path) -> str | None:
    """
    Say why the file does not count, None if it does.

    The folders above its own need no look: whatever others move there, the file and its folder are this user's.
    """
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode):
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # the latter: a loop, before 3.13
            return "it is a link to nothing"
        return _why_not_there(path, link) or _why_not(target)
    if not stat.S_ISREG(link.st_mode):
        return "it is no regular file"
    if may_be_written_by_strangers(link) and is_trusted(link):
        return "others may write it"
    return _why_not_there(path, link)


def _why_not_there(path: Path, found: os.stat_result) -> str | None:
    if not is_trusted(found):
        return f"it belongs to another user (uid {found.st_uid})"
    if may_be_written_by_strangers(path.parent.stat()):
        return "others may write to its folder"
    return None
