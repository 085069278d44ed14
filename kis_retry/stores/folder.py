"""Documents in a folder: a file for each, and a lock file beside it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .documents import MAX_DOCUMENT, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from filelock import BaseFileLock

__all__ = ["FileDocuments"]

_POLL = 0.02  # seconds between two looks at a lock that somebody else holds
_STALE = 60.0  # seconds; a temporary file lives for milliseconds, one this old has lost its writer

# An entry that cannot be opened is as good as none: gone, not ours to read, a folder, a symbolic link, a socket.
_MISSES = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EAGAIN}
_READ = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # no link is followed, no planted FIFO waited for
    _READ |= getattr(os, _flag, 0)

# Locks that a child was forked under. It shares their descriptors, so letting go of one, or only forgetting it, would
# release the parent's lock.
_inherited: list[BaseFileLock] = []


class FileDocuments:
    """
    Documents in `folder`, which is made when something is written or locked.

    `<key>.json` and `<key>.lock` are the token and its lock, `<key>.<kind>.json` and `<key>.<kind>.lock` those of any
    other kind. `filelock` locks: the operating system releases it when its holder dies, however it dies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str, kind: str) -> bytes | None:
        """
        Read the file.

        Raises:
            OSError: the folder or the disk cannot be read.
        """
        try:
            return _read(self._path(key, kind, "json"))
        except OSError as error:
            if error.errno in _MISSES:
                return None
            raise

    def write(self, key: str, kind: str, data: bytes, ttl: float | None) -> None:
        """
        Write a temporary file and put it in the document's place in one step.

        It is not fsynced: a document lost with the power is a miss and costs one token request, which is cheaper than
        waiting for the disk under the lock.

        Raises:
            OSError: the folder cannot be made or written, or the disk is full. The old document is as it was then,
                and no temporary file stays.
        """
        self._make_folder()
        target = self._path(key, kind, "json")
        prefix = f".{target.stem}."
        self._sweep(prefix)
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=self.folder)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            _replace(Path(name), target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def delete(self, key: str, kind: str) -> None:
        """
        Remove the file.

        Raises:
            OSError: it is there and cannot be removed.
        """
        self._path(key, kind, "json").unlink(missing_ok=True)

    @contextmanager
    def lock(self, key: str, kind: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """
        Wait up to `timeout` seconds for the lock on this machine; `lease` means nothing here.

        Raises:
            OSError: the lock file cannot be made or opened.
        """
        self._make_folder()
        lock = _acquire(self._path(key, kind, "lock"), timeout)
        holder = os.getpid()
        try:
            yield lock is not None
        finally:
            if lock is not None and os.getpid() != holder:
                _inherited.append(lock)
            elif lock is not None:
                with suppress(OSError):
                    lock.release()

    def _path(self, key: str, kind: str, suffix: str) -> Path:
        name = _name(key) if kind == TOKEN else f"{_name(key)}.{kind}"
        return self.folder / f"{name}.{suffix}"

    def _make_folder(self) -> None:
        _make(self.folder)
        if os.name == "posix":  # pragma: no branch  # elsewhere the rights are the profile's
            _close_to_others(self.folder)

    def _sweep(self, prefix: str) -> None:
        """Remove what writers left that were killed between writing and replacing: it holds a token."""
        for path in self.folder.glob(f"{prefix}*.tmp"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > _STALE:
                    path.unlink()


def _acquire(path: Path, timeout: float) -> BaseFileLock | None:
    from filelock import FileLock, Timeout

    # A new one each time, so that neither threads nor a fork share its state.
    lock = FileLock(path, mode=0o600, thread_local=False)
    try:
        lock.acquire(timeout=max(timeout, 0.0), poll_interval=_POLL)
    except Timeout:
        return None
    return lock


def _name(key: str) -> str:
    """`key` as a file name: `key_of` makes such keys; any other is hashed, so that none leads out of the folder."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key):
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(path: Path) -> bytes:
    descriptor = os.open(path, _READ)
    try:
        return os.read(descriptor, MAX_DOCUMENT + 1)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    """Like `Path.mkdir(parents=True)`, which leaves the rights of the parents to the umask."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _close_to_others(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077 and not mode & stat.S_ISVTX:
        with suppress(PermissionError):  # somebody else's (a mounted volume); the files are 0600 all the same
            folder.chmod(mode & ~0o077)


def _replace(source: Path, target: Path) -> None:
    """Put `source` at `target`. A link or FIFO there is replaced itself; an empty folder has to go first."""
    try:
        source.replace(target)
    except IsADirectoryError:
        target.rmdir()
        source.replace(target)
