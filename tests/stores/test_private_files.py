"""Files of this user alone: their rights to the bit, what is swept away and when, and whose file is written over."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock
from kis_retry.stores import private_files
from kis_retry.stores.documents import MAX_DOCUMENT
from kis_retry.stores.private_files import (
    _close_to_others,
    is_own_folder,
    make_private_folder,
    overwrite_private,
    prepare_lock_file,
    read_trusted,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SOMEBODY = 4_321
"""A user who is not the one that made the file."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "entry.json"


@pytest.fixture
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def become_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every file that is there is another owner's."""
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)


# --- rights


@pytest.mark.parametrize("before", [0, 0o400, 0o577, 0o600, 0o601, 0o640, 0o644, 0o700, 0o777], ids=oct)
def test_a_file_is_closed_to_others_whatever_it_was_made_with(path: Path, before: int) -> None:
    path.touch()
    path.chmod(before)
    descriptor = os.open(path, os.O_RDWR) if os.geteuid() == 0 or before & 0o600 == 0o600 else None
    if descriptor is None:
        pytest.skip("only root opens a file that has no rights")
    _close_to_others(descriptor)
    os.close(descriptor)
    assert mode(path) == 0o600


def test_a_file_that_is_closed_already_is_not_touched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fchmod", lambda *_: pytest.fail("a needless call for each write"))
    write_private(path, b"{}")
    prepare_lock_file(path.with_suffix(".lock"))
    assert path.read_bytes() == b"{}"


@pytest.mark.usefixtures("_no_umask")
def test_a_lock_file_is_closed_to_others_from_its_first_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "_close_to_others", lambda _: None)
    prepare_lock_file(path)
    assert mode(path) == 0o600


@pytest.mark.usefixtures("_no_umask")
def test_a_folder_is_closed_to_others_from_its_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "chmod", lambda *_: pytest.fail("it has the rights that it is to have"))
    make_private_folder(tmp_path / "a" / "b")
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "b")] == [0o700, 0o700]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a folder takes the group of the one above it anyway")
def test_a_folder_keeps_the_group_bit_that_it_inherits(tmp_path: Path) -> None:
    tmp_path.chmod(0o2755)
    make_private_folder(tmp_path / "cache")
    assert mode(tmp_path / "cache") == 0o2700


def test_a_file_in_the_place_of_the_folder_is_an_error_and_a_folder_is_none(tmp_path: Path) -> None:
    make_private_folder(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")


# --- whose


@pytest.mark.parametrize(
    ("rights", "own"),
    [
        *((0o700, True), (0o701, True), (0o705, True), (0o750, True), (0o755, True), (0o744, True)),
        *((0o720, False), (0o702, False), (0o722, False), (0o775, False), (0o757, False), (0o1777, False)),
    ],
)
def test_a_folder_is_ones_own_where_nobody_else_may_write(tmp_path: Path, rights: int, own: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(rights)
    assert is_own_folder(folder) is own


def test_a_link_a_file_and_a_strangers_folder_are_not_ones_own(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir(0o700)
    link.symlink_to(folder)
    path.touch(0o600)
    found = [is_own_folder(place) for place in (folder, link, path, tmp_path / "none")]
    become_somebody_else(monkeypatch)
    assert [*found, is_own_folder(folder)] == [True, False, False, False, False]


def test_a_lock_file_that_is_ones_own_stays_as_it_is(path: Path) -> None:
    prepare_lock_file(path)
    before = path.stat().st_ino
    path.chmod(0o644)
    prepare_lock_file(path)
    assert (path.stat().st_ino, mode(path)) == (before, 0o644)


def test_a_lock_file_with_another_name_elsewhere_is_replaced(tmp_path: Path, path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"content")
    os.link(precious, path)
    prepare_lock_file(path)
    assert (path.stat().st_nlink, path.read_bytes(), precious.read_bytes()) == (1, b"", b"content")


def test_a_link_that_somebody_puts_there_at_the_last_moment_is_not_followed(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"content")
    precious.chmod(0o644)
    lstat = Path.lstat

    def before_it_is_there(found: Path) -> os.stat_result:
        monkeypatch.setattr(Path, "lstat", lstat)
        path.symlink_to(precious)
        raise FileNotFoundError(found)

    monkeypatch.setattr(Path, "lstat", before_it_is_there)
    prepare_lock_file(path)
    assert path.is_symlink()
    assert (mode(precious), precious.read_bytes()) == (0o644, b"content")


# --- reading


@pytest.mark.parametrize(
    ("size", "read"),
    [
        (0, 0),
        (MAX_DOCUMENT, MAX_DOCUMENT),
        (MAX_DOCUMENT + 1, MAX_DOCUMENT + 1),
        (MAX_DOCUMENT + 2, MAX_DOCUMENT + 1),
        (3 * MAX_DOCUMENT, MAX_DOCUMENT + 1),
    ],
)
def test_of_a_file_without_end_one_byte_more_than_a_document_is_read(path: Path, size: int, read: int) -> None:
    path.write_bytes(b"x" * size)
    assert read_trusted(path) == b"x" * read


# --- writing over


def test_an_own_file_is_written_over_in_its_place(path: Path) -> None:
    write_private(path, b"first, and longer")
    before = path.stat().st_ino
    for data in (b"second", b"third, the longest of them all", b"fourth"):
        overwrite_private(path, data)
        assert (path.read_bytes(), path.stat().st_ino) == (data, before)


def test_where_there_is_no_file_one_is_made(path: Path) -> None:
    overwrite_private(path, b"{}")
    assert (path.read_bytes(), mode(path)) == (b"{}", 0o600)


def test_a_file_with_another_name_elsewhere_is_replaced_and_not_written_over(tmp_path: Path, path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"content")
    os.link(precious, path)
    overwrite_private(path, b"{}")
    assert (precious.read_bytes(), path.read_bytes()) == (b"content", b"{}")


def test_a_file_that_is_removed_just_as_it_is_opened_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(path, b"first")
    fstat = os.fstat

    def after_a_removal(descriptor: int) -> os.stat_result:
        monkeypatch.setattr(os, "fstat", fstat)
        path.unlink()
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", after_a_removal)
    overwrite_private(path, b"second")
    assert path.read_bytes() == b"second"


def test_a_strangers_file_is_replaced_and_not_written_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(path, b"the stranger's")
    with path.open("rb") as opened:
        become_somebody_else(monkeypatch)
        overwrite_private(path, b"mine")
        assert (opened.read(), path.read_bytes()) == (b"the stranger's", b"mine")


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path, path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"content")
    path.symlink_to(precious)
    overwrite_private(path, b"{}")
    assert (precious.read_bytes(), path.read_bytes(), path.is_symlink()) == (b"content", b"{}", False)


def test_what_is_no_file_is_replaced_and_not_written_over(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        overwrite_private(path, b"{}")
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)
    assert path.read_bytes() == b"{}"


# --- what a writer that was killed has left


@pytest.mark.parametrize(("age", "swept"), [(-5, False), (0, False), (60, False), (60.5, True), (1_899_999_999, True)])
def test_a_temporary_file_is_swept_away_once_it_is_older_than_a_minute(
    path: Path, monkeypatch: pytest.MonkeyPatch, age: float, swept: bool
) -> None:
    clock: Any = FakeClock()
    monkeypatch.setattr(private_files, "time", clock)
    orphan = path.with_name(".entry.abc.tmp")
    orphan.touch()
    os.utime(orphan, (clock.now - age, clock.now - age))
    write_private(path, b"{}")
    assert orphan.exists() is not swept
