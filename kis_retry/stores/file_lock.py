"""
A lock on a file, which the operating system lets go of when its holder dies, however it dies: `FileLock`.

`filelock` locks and unlocks; the file is opened here. Its own class for a whole lock costs thirty times as much, for
reentrancy, fallbacks and polling that a lock of a tenth of a millisecond has no use for.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from ..forking import after_fork
from ..ownership import is_of_this_user
from .private_files import prepare_lock_file

__all__ = ["FileLock"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02  # seconds between two tries to get a lock that somebody else holds

_FLAGS = os.O_RDWR | os.O_CREAT
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # no link is followed, no planted FIFO waited for
    _FLAGS |= getattr(os, _flag, 0)

_held: dict[int, int] = {}  # descriptors, by the numbers of the locks that this process holds
_numbers = itertools.count()  # no number comes twice, as a descriptor does


class FileLock:
    """
    The lock of one file, held from `acquire`, which alone makes it, to `release`. Not reentrant.

    One that is forgotten is let go of.
    """

    def __init__(self, descriptor: int) -> None:
        self._number = next(_numbers)
        _held[self._number] = descriptor

    @classmethod
    def acquire(cls, path: Path, timeout: float) -> FileLock | None:
        """
        Wait up to `timeout` seconds for the lock of `path`, which is made where it is not there.

        Raises:
            ForeignFileError: a file of another owner is there, and the folder forbids to remove it.
            OSError: the file cannot be made, opened or locked.
        """
        ends, pause = time.monotonic() + timeout, _FIRST_PAUSE
        while True:
            prepare_lock_file(path)
            lock = cls._acquire_at_once(path)
            left = ends - time.monotonic()
            if lock is not None or left <= 0:
                return lock
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    @classmethod
    def _acquire_at_once(cls, path: Path) -> FileLock | None:
        from filelock import lock_descriptor  # late: a process without a file store does without

        descriptor = os.open(path, _FLAGS, 0o600)
        lock = cls(descriptor)
        try:
            if lock_descriptor(descriptor, blocking=False) and _is_there(descriptor):
                return lock
        except BaseException:
            lock._close()
            raise
        lock._close()
        return None

    def release(self) -> None:
        """
        Let go of it. In a child that was forked under it this does nothing: the lock is the parent's.

        Raises:
            OSError: it cannot be unlocked. Its file is closed then, too, which unlocks it.
        """
        from filelock import unlock_descriptor

        descriptor = _held.get(self._number)
        if descriptor is not None:
            try:
                unlock_descriptor(descriptor)  # closing alone does not, where a child has the file open, too
            finally:
                self._close()

    def _close(self) -> None:
        descriptor = _held.pop(self._number, None)
        if descriptor is not None:
            os.close(descriptor)

    __del__ = _close


def _is_there(descriptor: int) -> bool:
    """Whether a file was not removed before it was locked, and is no stranger's who put it there just now."""
    found = os.fstat(descriptor)
    return found.st_nlink > 0 and is_of_this_user(found)


def _leave_to_parent(_: object) -> None:
    """Close what a child has inherited: it would hold on to the lock of a parent that is killed."""
    while _held:
        os.close(_held.popitem()[1])


after_fork(sys.modules[__name__], _leave_to_parent)
