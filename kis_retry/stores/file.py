"""Where a token is shared by the processes of one machine: a file for each key, and a lock file beside it."""

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

from ..errors import ConfigurationError
from .codec import MAX_ENTRY, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from filelock import BaseFileLock

    from ..token import AccessToken

__all__ = ["FileTokenStore"]

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


class FileTokenStore:
    """
    Tokens shared by every process of one machine and user. The default, and the right one for cron jobs and pools.

    `<key>.json` holds the entry, `<key>.lock` is what `filelock` locks: the operating system releases it when its
    holder dies, however it dies.

    The folder is made, or closed down to, 0700 and the files are 0600, whatever the umask, so give it a folder of its
    own. Only a folder with the sticky bit (/tmp) keeps its rights: it is everybody's on purpose, and there nobody can
    replace somebody else's file. On Windows the rights are those of the user's profile.

    Args:
        directory: the folder, `~` expanded; by default the user's cache folder as `platformdirs` knows it
            (~/.cache/kis_retry on Linux).

    Raises:
        ConfigurationError: `directory` cannot be the name of a folder.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._folder = _folder_of(directory)

    def load(self, key: str) -> AccessToken | None:
        """
        Read the entry.

        Raises:
            OSError: the folder or the disk cannot be read.
        """
        try:
            data = _read(self._path(key, "json"))
        except OSError as error:
            if error.errno in _MISSES:
                return None
            raise
        return decode(data, key)

    def save(self, key: str, token: AccessToken) -> None:
        """
        Write a temporary file and put it in the entry's place in one step.

        It is not fsynced: an entry lost with the power is a miss and costs one token request, which is cheaper than
        waiting for the disk under the lock.

        Raises:
            OSError: the folder cannot be made or written, or the disk is full. The old entry is as it was then, and
                no temporary file stays.
        """
        self._make_folder()
        self._sweep(key)
        descriptor, name = tempfile.mkstemp(prefix=self._temporary(key), suffix=".tmp", dir=self._folder)  # 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(encode(key, token))
            _replace(Path(name), self._path(key, "json"))
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def delete(self, key: str) -> None:
        """
        Remove the entry's file.

        Raises:
            OSError: it is there and cannot be removed.
        """
        self._path(key, "json").unlink(missing_ok=True)

    @contextmanager
    def lock(self, key: str, *, timeout: float, lease: float) -> Iterator[bool]:
        """
        Wait up to `timeout` seconds for the lock of `key` on this machine; `lease` means nothing here.

        Raises:
            OSError: the lock file cannot be made or opened.
        """
        self._make_folder()
        lock = self._acquire(key, timeout)
        holder = os.getpid()
        try:
            yield lock is not None
        finally:
            if lock is not None and os.getpid() != holder:
                _inherited.append(lock)
            elif lock is not None:
                with suppress(OSError):
                    lock.release()

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self._folder)!r})"

    def _acquire(self, key: str, timeout: float) -> BaseFileLock | None:
        from filelock import FileLock, Timeout

        # A new one each time, so that neither threads nor a fork share its state.
        lock = FileLock(self._path(key, "lock"), mode=0o600, thread_local=False)
        try:
            lock.acquire(timeout=max(timeout, 0.0), poll_interval=_POLL)
        except Timeout:
            return None
        return lock

    def _path(self, key: str, suffix: str) -> Path:
        return self._folder / f"{_name(key)}.{suffix}"

    def _temporary(self, key: str) -> str:
        return f".{_name(key)}."

    def _make_folder(self) -> None:
        _make(self._folder)
        if os.name == "posix":  # pragma: no branch  # elsewhere the rights are the profile's
            _close_to_others(self._folder)

    def _sweep(self, key: str) -> None:
        """Remove what writers left that were killed between writing and replacing: it holds a token."""
        for path in self._folder.glob(f"{self._temporary(key)}*.tmp"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > _STALE:
                    path.unlink()


def _folder_of(directory: str | os.PathLike[str] | None) -> Path:
    if directory is None:
        import platformdirs

        return platformdirs.user_cache_path("kis_retry")
    text = os.fspath(directory)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ConfigurationError(f"{directory!r} names no folder: FileTokenStore takes a path, or None for the default")
    try:
        return Path(text).expanduser().absolute()  # absolute: a process that changes its folder keeps its store
    except RuntimeError:
        raise ConfigurationError(f"{text!r} cannot be expanded: there is no such user or home folder") from None


def _name(key: str) -> str:
    """`key` as a file name: `key_of` makes such keys; any other is hashed, so that none leads out of the folder."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key):
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(path: Path) -> bytes:
    descriptor = os.open(path, _READ)
    try:
        return os.read(descriptor, MAX_ENTRY + 1)
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
