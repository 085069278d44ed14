"""
Read settings from the environment and from a `.env` file.

A variable that is set but blank counts as not set, and hides a line of the `.env` file all the same. Quotes around a
value are taken off, since Docker's `--env-file` leaves them on. Nothing in a `.env` is expanded, and one that somebody
else could have written does not count: it could send the user's secret to another host.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import ConfigurationError
from .events import warn_once
from .forking import no_fork

__all__ = ["Environment", "Setting", "boolean", "credential_variables", "is_owned", "without_password"]

T = TypeVar("T")

_NAMES = {  # ours, which a prefix goes before, then the one that people have set already for another library
    "app_key": ("APP_KEY", "KOREA_INVESTMENT_API_KEY"),
    "app_secret": ("APP_SECRET", "KOREA_INVESTMENT_API_SECRET"),
    "account": ("ACCOUNT_NO", "KOREA_INVESTMENT_ACCOUNT_NO"),
}
_ROOT = 0  # could change everything anyway
_TRUE, _FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")


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
    above that, since cron starts a script somewhere else. One that cannot be read is a `ConfigurationError`.

    Args:
        prefix: begins the names of the credentials that `KIS_BASE_URL` and `KIS_TOKEN_STORE` of a `.env` belong to.
    """

    def __init__(self, prefix: str = "KIS_") -> None:
        self._prefix = prefix
        self._lines: dict[str, str | None] = {}
        self.env_file: Path | None = None  # the one that counts
        self.searched: list[Path] = []  # the folders where the search began
        self.ignored: list[tuple[Path, str]] = []  # what does not count of `.env` files, with the reason of each
        try:
            self._read()
            return
        except (OSError, UnicodeDecodeError) as error:
            place = self.env_file or "at or above the working directory"
            problem = f"the .env file {place} cannot be read ({type(error).__name__})"
        # Out here, for what it is raised from would keep the lines that were read.
        raise ConfigurationError(f"{problem}; it takes lines of NAME=value in UTF-8")

    def find(self, *variables: str) -> Setting | None:
        """Return the first of `variables` that is set and not blank."""
        for variable in variables:
            text = (os.environ.get(variable, self._lines.get(variable)) or "").strip()
            quoted = re.fullmatch(r"""(["'])(.*)\1""", text, re.DOTALL)
            text = quoted[2].strip() if quoted else text
            if text:
                return Setting(text, variable, "environment" if variable in os.environ else ".env")
        return None

    def read(self, convert: Callable[[str], T], takes: str, *variables: str) -> T | None:
        """Return the first of `variables` that is set, converted; `ConfigurationError` where that cannot be."""
        setting = self.find(*variables)
        if setting is None:
            return None
        try:
            return convert(setting.text)
        except ValueError:
            pass  # what is raised in here would keep the text, which may hold a password
        shown = f"{setting.variable}={without_password(setting.text)!r}"
        raise ConfigurationError(f"{shown} is not usable: it takes {takes}")

    def where(self) -> str:
        """Say where was looked, for an error about what is not set."""
        above = "a .env file at or above " + " or ".join(map(str, self.searched))
        reasons = "".join(f"; {path} is ignored: {reason}" for path, reason in self.ignored)
        return f"neither in the environment nor in {self.env_file or above}{reasons}"

    def unknown(self, known: Collection[str]) -> list[str]:
        """Return the variables `KIS_RETRY_…` that are none of `known`, as a typo makes them."""
        names = {*os.environ, *self._lines}
        return sorted(name for name in names if name.startswith("KIS_RETRY_") and name not in known)

    def _read(self) -> None:
        self.searched = _starting_folders()
        self.env_file = self._file()
        if self.env_file is None:
            return
        with no_fork():
            from dotenv import dotenv_values

        self._lines = dotenv_values(self.env_file, interpolate=False)
        names = credential_variables(self._prefix)
        found = [self.find(*names[name]) for name in ("app_key", "app_secret")]
        is_whole = all(setting and setting.origin == ".env" for setting in found)
        for variable in () if is_whole else (f"{self._prefix}BASE_URL", "KIS_TOKEN_STORE"):
            if self._lines.pop(variable, None) and variable not in os.environ:
                self._ignore(self.env_file, f"{variable} counts only beside the app key and secret in force")

    def _file(self) -> Path | None:
        folders = dict.fromkeys(folder for start in self.searched for folder in (start, *start.parents))
        for path in (folder / ".env" for folder in folders):
            with suppress(OSError):  # none there, or none that this user can get to
                reason = _why_not(path)
                if reason is None:
                    return path
                self._ignore(path, reason)
        return None

    def _ignore(self, path: Path, reason: str) -> None:
        self.ignored.append((path, reason))
        warn_once("env_file_ignored", path=str(path), error=reason)


def credential_variables(prefix: str = "KIS_") -> dict[str, tuple[str, ...]]:
    """Return the variables of app key, secret and account; the other library's names stand in for `KIS_` alone."""
    names = _NAMES.items()
    return {name: (prefix + ours, theirs) if prefix == "KIS_" else (prefix + ours,) for name, (ours, theirs) in names}


def boolean(text: str) -> bool:
    """Convert true/false, yes/no, on/off or 1/0, in any case; `ValueError` for anything else."""
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError("not a boolean")
    return text.lower() in _TRUE


def without_password(text: str) -> str:
    """Mask what may be a password in an address: all before its last "@", since it may hold anything, and a query."""
    found = re.match(r"[\w+.-]*:?//", text)
    scheme = found[0] if found else ""
    before, at, host = text[len(scheme) :].rpartition("@")
    if "?" in before:  # that may be a password before the host, or in the query
        return f"{scheme}***"
    host, query, _ = host.partition("?")
    return f"{scheme}{'***@' if at else ''}{host}{'?***' if query else ''}"


def _starting_folders() -> list[Path]:
    """Return the working directory and the script's folder, unless the script came with an installation, as pytest."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(script, str):
        return [Path.cwd()]
    folder = Path(script).resolve().parent
    installed = folder == Path(sys.executable).parent or {"site-packages", "dist-packages"} & set(folder.parts)
    return [Path.cwd()] if installed or folder == Path.cwd() else [Path.cwd(), folder]


def _why_not(path: Path) -> str | None:
    """Say why the file does not count, None if it does. Nothing is opened: a FIFO would wait for its writer."""
    found = path.lstat()
    if not is_owned(found, or_by_root=True):
        return f"it belongs to another user (uid {found.st_uid})"
    if _may_be_written_by_strangers(path.parent.stat()):  # those above do not matter: this one stays this user's
        return "others may write to its folder"
    if stat.S_ISLNK(found.st_mode):
        try:
            return _why_not(path.resolve(strict=True))
        except (OSError, RuntimeError):  # the latter: a loop, before 3.13
            return "it is a link to nothing"
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    return "others may write it" if _may_be_written_by_strangers(found) else None


def is_owned(found: os.stat_result, *, or_by_root: bool = False) -> bool:
    """Say whether this process's user owns a file. Windows tells no owner by a number: there all is believed."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid() or (or_by_root and found.st_uid == _ROOT)


def _may_be_written_by_strangers(found: os.stat_result) -> bool:
    """
    Say whether somebody who is neither this user nor root may write it, or put files into it if it is a folder.

    A group counts as strangers unless it is root's or this user's own, which many systems give to each with umask 002.
    """
    if not hasattr(os, "geteuid"):
        return False
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != _ROOT and not _is_private_group(found.st_gid)
    return bool(by_group or found.st_mode & stat.S_IWOTH) or not is_owned(found, or_by_root=True)


def _is_private_group(gid: int) -> bool:
    import grp
    import pwd

    with suppress(KeyError):  # without an entry nobody knows who else is in it
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return False
