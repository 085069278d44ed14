"""Where documents go in a folder in which another owner's file cannot be removed, and where no owner has a number."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry.stores import file_lock, private_files
from kis_retry.stores.folder import FileDocuments
from kis_retry.stores.private_files import ForeignFileError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "0123456789abcdef0123456789abcdef"


class Strangers:
    """Files of another owner, in a folder with the sticky bit: nobody else removes or replaces them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._files: set[int] = set()
        for module, name in (
            (private_files, "is_of_this_user"),
            (private_files, "is_trusted"),
            (file_lock, "is_of_this_user"),
        ):
            monkeypatch.setattr(module, name, lambda found: found.st_ino not in self._files)
        unlink, replace = Path.unlink, Path.replace

        def unlink_own(path: Path, missing_ok: bool = False) -> None:
            self._forbid(path)
            unlink(path, missing_ok)

        def replace_own(path: Path, target: Path) -> Path:
            self._forbid(target)
            return replace(path, target)

        monkeypatch.setattr(Path, "unlink", unlink_own)
        monkeypatch.setattr(Path, "replace", replace_own)

    def plant(self, path: Path) -> None:
        """Put one there."""
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"planted")
        self._files.add(path.stat().st_ino)

    def _forbid(self, path: Path) -> None:
        if path.exists() and path.stat().st_ino in self._files:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Strangers:
    return Strangers(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def own(folder: Path) -> Path:
    """This user's own folder inside it."""
    return folder / f"kis_retry-{os.geteuid()}"


@pytest.fixture
def documents(folder: Path) -> FileDocuments:
    return FileDocuments(folder)


def lock(documents: FileDocuments) -> bool:
    with documents.lock(KEY, "pace", timeout=0, lease=1) as held:
        return held


def write(documents: FileDocuments) -> None:
    documents.write(KEY, "pace", b"mine", None)


def overwrite(documents: FileDocuments) -> None:
    documents.overwrite(KEY, "pace", b"mine")


@pytest.mark.parametrize(("ask", "planted"), [(write, "json"), (overwrite, "json"), (lock, "json"), (lock, "lock")])
def test_where_a_strangers_file_is_in_the_way_all_goes_on_in_a_folder_of_ones_own(
    *,
    strangers: Strangers,
    documents: FileDocuments,
    folder: Path,
    own: Path,
    ask: Callable[[FileDocuments], object],
    planted: str,
) -> None:
    strangers.plant(folder / f"{KEY}.pace.{planted}")
    ask(documents)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    write(documents)
    assert (own / f"{KEY}.pace.json").read_bytes() == b"mine"
    assert FileDocuments(folder).read(KEY, "pace") == b"mine"
    assert lock(documents) is True
    assert (own / f"{KEY}.pace.lock").exists()
    documents.delete(KEY, "pace")
    assert documents.read(KEY, "pace") is None
    assert (folder / f"{KEY}.pace.{planted}").read_bytes() == b"planted"


def test_the_token_has_the_name_of_its_key_alone(documents: FileDocuments, folder: Path) -> None:
    documents.write(KEY, "-token-".strip("-"), b"1", None)
    documents.write(KEY, "zeal", b"2", None)
    assert sorted(path.name for path in folder.iterdir()) == [f"{KEY}.json", f"{KEY}.zeal.json"]


def test_a_document_of_a_stranger_is_not_believed(strangers: Strangers, documents: FileDocuments, folder: Path) -> None:
    strangers.plant(folder / f"{KEY}.pace.json")
    assert documents.read(KEY, "pace") is None


def test_one_that_can_be_removed_is_replaced_where_it_is(
    documents: FileDocuments, folder: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    (folder / f"{KEY}.pace.json").write_bytes(b"planted")
    (folder / f"{KEY}.pace.lock").write_bytes(b"planted")
    for name in ("is_of_this_user", "is_trusted"):
        monkeypatch.setattr(private_files, name, lambda found: found.st_size != len(b"planted"))
    assert lock(documents) is True
    documents.write(KEY, "pace", b"mine", None)
    assert documents.read(KEY, "pace") == b"mine"
    assert sorted(path.name for path in folder.iterdir()) == [f"{KEY}.pace.json", f"{KEY}.pace.lock"]
    assert not own.exists()


@pytest.mark.parametrize("taken_by", ["a folder that others may write to", "a file"])
def test_where_that_folder_is_taken_too_it_is_an_error(
    strangers: Strangers, documents: FileDocuments, folder: Path, own: Path, taken_by: str
) -> None:
    strangers.plant(folder / f"{KEY}.pace.json")
    if taken_by == "a file":
        own.write_bytes(b"")
    else:
        own.mkdir()
        own.chmod(0o777)
    with pytest.raises(OSError) as caught:
        documents.write(KEY, "pace", b"mine", None)
    assert type(caught.value) is (FileExistsError if taken_by == "a file" else ForeignFileError)
    assert documents.read(KEY, "pace") is None
    assert list(own.iterdir() if own.is_dir() else []) == []


def test_a_strangers_file_in_the_own_folder_as_well_is_an_error_that_names_it(
    strangers: Strangers, documents: FileDocuments, folder: Path, own: Path
) -> None:
    strangers.plant(folder / f"{KEY}.pace.json")
    documents.write(KEY, "pace", b"mine", None)
    (own / f"{KEY}.pace.json").unlink()
    strangers.plant(own / f"{KEY}.pace.json")
    with pytest.raises(ForeignFileError, match="another owner") as caught:
        documents.write(KEY, "pace", b"mine", None)
    assert (caught.value.errno, caught.value.filename) == (errno.EPERM, str(own / f"{KEY}.pace.json"))


def test_another_refusal_of_the_folder_is_no_strangers_file(
    strangers: Strangers, documents: FileDocuments, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents.write(KEY, "pace", b"first", None)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError, match="read-only") as caught:
        documents.write(KEY, "pace", b"second", None)
    assert type(caught.value) is PermissionError
    assert not own.exists()


def test_where_no_owner_is_told_by_a_number_there_is_the_one_folder(
    documents: FileDocuments, folder: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.mkdir(0o700, parents=True)
    monkeypatch.delattr(os, "geteuid")
    documents.write(KEY, "pace", b"1", None)
    assert lock(documents) is True
    assert documents.read(KEY, "pace") == (folder / f"{KEY}.pace.json").read_bytes() == b"1"
    assert list(own.iterdir()) == []


def test_a_folder_of_ones_own_counts_only_while_nobody_else_may_write_to_it(
    documents: FileDocuments, folder: Path, own: Path
) -> None:
    own.mkdir(0o700, parents=True)
    documents.write(KEY, "pace", b"1", None)
    assert (own / f"{KEY}.pace.json").exists()
    own.chmod(0o770)
    assert documents.read(KEY, "pace") is None
    documents.write(KEY, "pace", b"2", None)
    assert (folder / f"{KEY}.pace.json").read_bytes() == b"2"


def test_a_file_in_the_place_of_the_folder_is_told_as_that(documents: FileDocuments, folder: Path) -> None:
    folder.write_text("in the way")
    for ask in (write, overwrite, lock):
        with pytest.raises(OSError) as caught:
            ask(documents)
        assert str(folder) in str(caught.value)
    assert folder.read_text() == "in the way"
