"""
Which `.env` file counts: the nearest one at or above a folder that nobody but this user or root can have written.

Whoever can put a file named `.env` above a working directory could otherwise send somebody's secret to a host of his
own. One that does not count is passed over, as if it were not there.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .ownership import is_trusted, may_be_written_by_strangers

__all__ = ["EnvFile", "find_env_file"]


@dataclass(frozen=True)
class EnvFile:
    """`path` is the file that counts, if there is one; `ignored` those passed over, with the reason of each."""

    path: Path | None
    ignored: tuple[tuple[Path, str], ...]


def find_env_file(start: Path) -> EnvFile:
    """Look for it from `start` upwards. Nothing is opened: a FIFO would wait for its writer for ever."""
    ignored: list[tuple[Path, str]] = []
    for folder in (start, *start.parents):
        path = folder / ".env"
        try:
            reason = _why_not(path)
        except OSError:  # none there, or none that this user can get to
            continue
        if reason is None:
            return EnvFile(path, tuple(ignored))
        ignored.append((path, reason))
    return EnvFile(None, tuple(ignored))


def _why_not(path: Path) -> str | None:
    """
    Why the file does not count, None if it does.

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
