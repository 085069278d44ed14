"""Documents in a folder: a file for each, and a lock file beside it."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .documents import TOKEN
from .file_lock import FileLock
from .private_files import (
    ForeignFileError,
    is_own_folder,
    make_private_folder,
    overwrite_private,
    read_trusted,
    remove_foreign,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FileDocuments"]

T = TypeVar("T")


class FileDocuments:
    """
    Documents in `folder`, which is made when something is written or locked.

    `<key>.json` and `<key>.lock` are the token and its lock, `<key>.<kind>.json` and `<key>.<kind>.lock` those of any
    other kind. `filelock` locks: the operating system releases it when its holder dies, however it dies.

    A file of another owner (root excepted) is not believed, and not waited for. Where such a file stands in the way
    and cannot be removed, which is so in a folder with the sticky bit, all processes of this user go on in a folder
    of their own inside it, `kis_retry-<uid>`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Not at the first lock: a child that is forked while a thread imports a module never gets to import it.
        import_module("filelock")

    def read(self, key: str, kind: str) -> bytes | None:
        """
        Read the file.

        Raises:
            OSError: the folder or the disk cannot be read.
        """
        return read_trusted(_path(self._current(), key, kind, "json"))

    def write(self, key: str, kind: str, data: bytes, ttl: float | None) -> None:
        """
        Write a temporary file and put it in the document's place in one step.

        It is not fsynced: a document lost with the power is a miss and costs one token request, which is cheaper than
        waiting for the disk under the lock.

        Raises:
            OSError: the folder cannot be made or written, or the disk is full. The old document is as it was then,
                and no temporary file stays.
        """
        self._where_allowed(lambda folder: write_private(_path(folder, key, kind, "json"), data))

    def overwrite(self, key: str, kind: str, data: bytes) -> None:
        """
        Write over the file in place, which costs a fifth of `write`: for a document that is read under its lock alone.

        Raises:
            OSError: the folder cannot be made or written, or the disk is full.
        """
        self._where_allowed(lambda folder: overwrite_private(_path(folder, key, kind, "json"), data))

    def delete(self, key: str, kind: str) -> None:
        """
        Remove the file.

        Raises:
            OSError: it is there and cannot be removed.
        """
        _path(self._current(), key, kind, "json").unlink(missing_ok=True)

    @contextmanager
    def lock(self, key: str, kind: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """
        Wait up to `timeout` seconds for the lock on this machine; `lease` means nothing here.

        Raises:
            OSError: the lock file cannot be made or opened.
        """

        def acquire(folder: Path) -> FileLock | None:
            # Before the lock, or who locks here could write elsewhere, while others lock there.
            remove_foreign(_path(folder, key, kind, "json"))
            return FileLock.acquire(_path(folder, key, kind, "lock"), timeout)

        lock = self._where_allowed(acquire)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                with suppress(OSError):
                    lock.release()

    def _where_allowed(self, action: Callable[[Path], T]) -> T:
        """Do `action` in the folder; where a file of another owner forbids it there, in this user's own inside it."""
        folder = self._current()
        try:
            return _where_made(folder, action)
        except ForeignFileError:
            own = self._own()
            make_private_folder(own)
            if not is_own_folder(own):
                raise
            return action(own)

    def _current(self) -> Path:
        """The user's own folder once it is there, so that all of the user's processes meet in the same one."""
        own = self._own()
        return own if is_own_folder(own) else self.folder

    def _own(self) -> Path:
        return _own_of(self.folder, os.geteuid()) if hasattr(os, "geteuid") else self.folder


def _where_made(folder: Path, action: Callable[[Path], T]) -> T:
    """Do `action` in a folder, which is nearly always there: making it first would cost each time."""
    try:
        return action(folder)
    except FileNotFoundError:
        make_private_folder(folder)
        return action(folder)


# Kept, since making a path takes as long as asking the disk for it.
@lru_cache(maxsize=64)
def _own_of(folder: Path, user: int) -> Path:
    return folder / f"kis_retry-{user}"


@lru_cache(maxsize=256)
def _path(folder: Path, key: str, kind: str, suffix: str) -> Path:
    name = _name(key) if kind == TOKEN else f"{_name(key)}.{kind}"
    return folder / f"{name}.{suffix}"


def _name(key: str) -> str:
    """`key` as a file name: `key_of` makes such keys; any other is hashed, so that none leads out of the folder."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key):
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
