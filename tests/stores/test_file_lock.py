"""`FileLock`: whose it is when files are removed, holders forget it, and processes are forked under it."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import filelock
import pytest

from children import in_child
from clocks import FakeClock
from kis_retry.stores import file_lock
from kis_retry.stores.file_lock import FileLock

FORKED_UNDER_IT = """
import os, signal, sys
from pathlib import Path
from kis_retry.stores.file_lock import FileLock

lock = FileLock.acquire(Path(sys.argv[1]), 0)
assert lock is not None
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


def held(path: Path, timeout: float = 0) -> FileLock:
    lock = FileLock.acquire(path, timeout)
    assert lock is not None
    return lock


def is_free(path: Path) -> bool:
    lock = FileLock.acquire(path, 0)
    if lock is not None:
        lock.release()
    return lock is not None


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_one_at_a_time(path: Path) -> None:
    lock = held(path)
    assert not is_free(path)
    lock.release()
    assert is_free(path)


def test_it_excludes_the_locks_of_filelock_and_they_exclude_it(path: Path) -> None:
    """An earlier version of this package locks with those."""
    lock = held(path)
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(path).acquire(timeout=0)
    lock.release()
    with filelock.FileLock(path):
        assert not is_free(path)


def test_who_waits_gets_it_once_it_is_free_and_not_before(path: Path) -> None:
    lock = held(path)
    got: list[FileLock] = []
    waiter = threading.Thread(target=lambda: got.append(held(path, 20)))
    waiter.start()
    time.sleep(0.05)
    assert got == []
    lock.release()
    waiter.join(20)
    assert len(got) == 1
    assert not is_free(path)
    got[0].release()


@pytest.mark.parametrize(
    ("timeout", "slept"),
    [
        (-1, []),
        (0, []),
        (0.0005, [0.0005]),
        (0.001, [0.001]),
        (0.1, [0.001, 0.002, 0.004, 0.008, 0.016, 0.02, 0.02, 0.02, 0.009]),
    ],
)
def test_who_waits_looks_again_after_a_millisecond_and_then_ever_more_rarely_up_to_twenty(
    path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float, slept: list[float]
) -> None:
    lock, clock = held(path), FakeClock(0.0)
    monkeypatch.setattr(file_lock, "time", clock)
    assert FileLock.acquire(path, timeout) is None
    assert clock.slept == pytest.approx(slept)
    lock.release()


def test_one_that_is_free_by_the_last_look_is_had(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, clock = held(path), FakeClock(0.0)
    monkeypatch.setattr(file_lock, "time", clock)
    clock.at(0.001, lock.release)
    held(path, 0.001).release()
    assert clock.slept == [0.001]


def test_releasing_twice_is_releasing_once(path: Path) -> None:
    lock = held(path)
    lock.release()
    other = held(path)
    lock.release()
    assert not is_free(path)
    other.release()


def test_one_that_is_forgotten_is_free(path: Path) -> None:
    held(path)
    gc.collect()
    assert is_free(path)


def test_a_file_that_is_removed_before_it_is_locked_is_nobodys_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_descriptor = filelock.lock_descriptor
    removed: list[Path] = []

    def after_a_removal(descriptor: int, *, blocking: bool) -> bool:
        if not removed:
            removed.append(path)
            path.unlink()
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", after_a_removal)
    lock = held(path, 20)
    assert removed
    assert path.exists()
    assert not is_free(path)
    lock.release()


def test_no_descriptor_stays_open_of_one_that_was_not_had_or_is_released(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    lock = held(path)
    assert not is_free(path)
    assert descriptors() == before + 1
    lock.release()

    def fail(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(filelock, "lock_descriptor", fail)
    with pytest.raises(OSError, match="no locks") as caught:
        FileLock.acquire(path, 1)
    assert descriptors() == before, f"while somebody still looks at {caught.value}"


def test_a_file_that_a_stranger_puts_there_just_before_it_is_locked_is_nobodys_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    monkeypatch.setattr(file_lock, "is_of_this_user", lambda found: found.st_size > 0)
    assert FileLock.acquire(path, 0) is None
    assert descriptors() == before
    path.write_bytes(b"mine")
    held(path).release()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 on, where some other thread is alive
def test_a_child_has_nothing_open_of_its_parents_locks(path: Path) -> None:
    locks = [held(path), held(path.with_name("b.lock"))]

    def is_open() -> bool:
        files = [found.resolve() for found in Path("/proc/self/fd").iterdir()]
        return any(file.parent == path.parent for file in files)

    assert is_open()
    assert in_child(lambda: not is_open())
    for lock in locks:
        lock.release()


def test_a_link_that_somebody_puts_there_at_the_last_moment_is_not_followed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "prepare_lock_file", lambda _: None)
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(OSError) as caught:
        FileLock.acquire(path, 0)
    assert caught.value.errno == errno.ELOOP
    assert not path.with_name("elsewhere").exists()


@pytest.mark.parametrize("kind", ["a link", "a FIFO"])
def test_what_is_no_file_in_its_place_is_replaced_and_never_waited_for(path: Path, kind: str) -> None:
    if kind == "a FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(path.with_name("elsewhere"))
    held(path).release()
    assert path.is_file()
    assert not path.is_symlink()
    assert not path.with_name("elsewhere").exists()


@pytest.mark.one_python
def test_a_child_does_not_hold_on_to_the_lock_of_a_parent_that_was_killed(path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKED_UNDER_IT, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == "forked\n"
        assert parent.wait(60) == -9
        assert is_free(path)
        parent.stdin.write("it lives\n")
        parent.stdin.flush()
    finally:
        with suppress(BrokenPipeError):
            parent.stdin.close()
        parent.stdout.close()
