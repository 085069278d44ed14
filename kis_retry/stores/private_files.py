"""Files of this user alone: read without believing others', written in one step, with no rights for anybody else."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..events import warn
from ..ownership import is_of_this_user, is_trusted
from .documents import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ForeignFileError",
    "is_own_folder",
    "make_private_folder",
    "overwrite_private",
    "prepare_lock_file",
    "read_trusted",
    "remove_foreign",
    "write_private",
]

_STALE = 60.0  # seconds; a temporary file lives for milliseconds, one this old has lost its writer

# An entry that cannot be opened is as good as none: gone, not ours to read, a folder, a symbolic link, a socket.
_MISSES = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EAGAIN}
_READ, _OVERWRITE = os.O_RDONLY, os.O_WRONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # no link is followed, no planted FIFO waited for
    _READ |= getattr(os, _flag, 0)
    _OVERWRITE |= getattr(os, _flag, 0)

_ignored: set[Path] = set()  # files of another owner that this process has warned of


class ForeignFileError(PermissionError):
    """A file of another owner stands in the way and cannot be removed."""


def read_trusted(path: Path) -> bytes | None:
    """
    The beginning of a file; None where it is not there, is no file, or is owned by neither this user nor root.

    Raises:
        OSError: the folder or the disk cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if error.errno in _MISSES:
            return None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        if not is_trusted(found):
            _warn_once(path, found.st_uid)
            return None
        return os.read(descriptor, MAX_DOCUMENT + 1)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes) -> None:
    """
    Put a file with `data` at `path` in one step, 0600 whatever the umask.

    Raises:
        ForeignFileError: what is there is another owner's, and the folder forbids to replace it.
        OSError: it cannot be written; what was there is as it was, and no temporary file stays.
    """
    prefix = f".{path.stem}."
    _sweep(path.parent, prefix)
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _close_to_others(descriptor)
            file.write(data)
        _replace(Path(name), path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def overwrite_private(path: Path, data: bytes) -> None:
    """
    Write over this user's own file at `path` in place; where there is none, do what `write_private` does.

    Raises:
        ForeignFileError: what is there is another owner's, and the folder forbids to replace it.
        OSError: it cannot be written.
    """
    if not _overwritten(path, data):
        write_private(path, data)


def _overwritten(path: Path, data: bytes) -> bool:
    try:
        descriptor = os.open(path, _OVERWRITE)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not is_of_this_user(found):
            return False
        if os.write(descriptor, data) < found.st_size:
            os.ftruncate(descriptor, len(data))
        return True
    finally:
        os.close(descriptor)


def prepare_lock_file(path: Path) -> None:
    """
    Have an empty file of this user at `path`, 0600 whatever the umask.

    Anything else there is removed: another owner could hold its lock for ever, and a file that is hard-linked there is
    one of somebody's.

    Raises:
        ForeignFileError: what is there is another owner's, and the folder forbids to remove it.
        OSError: it cannot be made.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and is_of_this_user(found):
            return
        with _telling_foreign(path):
            path.unlink()
    with suppress(FileExistsError):  # another process was faster
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _close_to_others(descriptor)
        finally:
            os.close(descriptor)


def remove_foreign(path: Path) -> None:
    """
    Remove a file at `path` that is not believed, since another owner put it there.

    Raises:
        ForeignFileError: the folder forbids it.
    """
    with suppress(FileNotFoundError, IsADirectoryError):
        if not is_trusted(path.lstat()):
            with _telling_foreign(path):
                path.unlink()


def make_private_folder(folder: Path) -> None:
    """
    Like `Path.mkdir(parents=True)`, with 0700 for every folder that is made here, whatever the umask.

    One that was there keeps its mode: it may be a home folder, or one that others share on purpose.
    """
    try:
        _mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        make_private_folder(folder.parent)
        with suppress(FileExistsError):
            _mkdir(folder)


def is_own_folder(folder: Path) -> bool:
    """Whether it is a folder, not a link to one, that belongs to this user and that nobody else may write to."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and is_of_this_user(found) and not found.st_mode & 0o022


@contextmanager
def _telling_foreign(path: Path) -> Iterator[None]:
    """What another owner's file at `path` forbids is a `ForeignFileError`."""
    try:
        yield
    except PermissionError as error:
        with suppress(FileNotFoundError):
            if not is_of_this_user(path.lstat()):
                raise ForeignFileError(error.errno, "a file of another owner is in the way", str(path)) from None
        raise


def _warn_once(path: Path, owner: int) -> None:
    if path not in _ignored:
        _ignored.add(path)
        warn("store_entry_ignored", store=str(path), error=f"it belongs to another user (uid {owner})")


def _mkdir(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    if folder.stat().st_mode & 0o700 != 0o700:  # a umask that takes the owner's rights
        folder.chmod(0o700)


def _close_to_others(descriptor: int) -> None:
    if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
        with suppress(PermissionError):  # a file system without rights
            os.fchmod(descriptor, 0o600)


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what writers left that were killed between writing and replacing: it holds a token."""
    for path in folder.glob(f"{prefix}*.tmp"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _STALE:
                path.unlink()


def _replace(source: Path, target: Path) -> None:
    """Put `source` at `target`. A link or FIFO there is replaced itself; an empty folder has to go first."""
    try:
        with _telling_foreign(target):
            source.replace(target)
    except IsADirectoryError:
        target.rmdir()
        source.replace(target)
