"""Where a token is shared by the processes of one machine: `FileTokenStore`."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ConfigurationError
from ..forking import no_fork
from ..settings import is_owned
from .base import MAX_DOCUMENT, TOKEN, DocumentStore

__all__ = ["FileTokenStore"]

_POLL = 0.01  # seconds between two tries for a lock that somebody else holds
_STALE = 60.0  # seconds; a temporary file lives for milliseconds, one this old has lost its writer

# As good as none is an entry that is gone, not ours to read, a folder, a symbolic link, a socket.
_MISSES = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EAGAIN}
# No link is followed, no planted FIFO waited for.
_READ = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class FileTokenStore(DocumentStore):
    """
    Tokens shared by every process of one machine and user. The default, and the right one for cron jobs and pools.

    A folder that is made here is 0700, the files are 0600, whatever the umask. Files of another owner (root excepted)
    are neither believed nor waited for: they are replaced, and where the folder forbids that (/tmp), this store cannot
    be used. The operating system releases the lock of a holder that dies, however it dies.

    Args:
        directory: the folder, `~` expanded; by default the user's cache folder (~/.cache/kis_retry on Linux).

    Raises:
        ConfigurationError: `directory` is no path, or nobody knows the home folder; the message says so.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        with suppress(RuntimeError):  # nobody knows the home folder
            with no_fork():
                import filelock  # noqa: F401  # for the locks; a fifth of the package's import
                import platformdirs
            name = platformdirs.user_cache_dir("kis_retry") if directory is None else os.fspath(directory)
            if isinstance(name, str) and name.strip() and "\0" not in name:
                self.folder = Path(name).expanduser().absolute()  # whatever the working directory is later
                return
        takes = "FileTokenStore takes a path, or None for the user's cache folder, which needs HOME"
        raise ConfigurationError(f"{directory!r} is no folder, or one in a home that is not known: {takes}")

    def read(self, key: str, kind: str) -> bytes | None:
        try:
            with open(self._path(key, kind, "json"), "rb", opener=lambda path, _: os.open(path, _READ)) as file:
                found = os.fstat(file.fileno())
                believed = stat.S_ISREG(found.st_mode) and is_owned(found, or_by_root=True)
                return file.read(MAX_DOCUMENT + 1) if believed else None
        except OSError as error:
            if error.errno in _MISSES:
                return None
            raise

    def write(self, key: str, kind: str, data: bytes, ttl: float) -> None:
        # Not fsynced: a token lost with the power costs one request, which is cheaper than a wait for the disk.
        path = self._path(key, kind, "json")
        self._make_folder()
        for left in self.folder.glob(f".{path.stem}.*.tmp"):  # by writers that were killed: it holds a token
            with suppress(OSError):
                if time.time() - left.lstat().st_mtime > _STALE:
                    left.unlink()
        descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            _make_way(path)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def delete(self, key: str, kind: str = TOKEN) -> None:
        path = self._path(key, kind, "json")
        _make_way(path)
        path.unlink(missing_ok=True)

    @contextmanager
    def lock(self, key: str, kind: str = TOKEN, *, timeout: float, lease: float) -> Iterator[bool]:
        """Wait for the lock on this machine; OSError where the document could not be written either."""
        path = self._path(key, kind, "lock")
        self._make_folder()
        _make_way(path)
        _make_way(self._path(key, kind, "json"), or_by_root=True)
        with tempfile.TemporaryFile(dir=self.folder, buffering=0) as probe:
            probe.write(b"\0")  # a token that could not be shared then must not be asked for
        import filelock  # by now it is loaded

        lock = filelock.FileLock(path, mode=0o600, thread_local=False)
        with suppress(filelock.Timeout):
            lock.acquire(timeout=max(timeout, 0.0), poll_interval=_POLL)
        try:
            yield lock.is_locked
        finally:
            with suppress(OSError):
                lock.release()

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self.folder)!r})"

    def _path(self, key: str, kind: str, suffix: str) -> Path:
        return self.folder / (f"{key}.{suffix}" if kind == TOKEN else f"{key}.{kind}.{suffix}")

    def _make_folder(self) -> None:
        """Make the folder and those above it, each 0700; one that was there keeps its mode, for others may share it."""
        for folder in reversed([self.folder, *self.folder.parents]):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)  # another process may be faster


def _make_way(path: Path, *, or_by_root: bool = False) -> None:
    """Remove what is at `path` unless it is a file with no other name, of this user."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            path.rmdir()
        elif not (stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and is_owned(found, or_by_root=or_by_root)):
            path.unlink()
