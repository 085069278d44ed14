"""Whose a file is, and who may write it: by its owner, its group and its rights."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry.ownership import _is_private_group, is_of_this_user, is_trusted, may_be_written_by_strangers

if TYPE_CHECKING:
    from types import ModuleType

grp: Any = pytest.importorskip("grp")
pwd: Any = pytest.importorskip("pwd")

USER, GROUP = "kim", 4_000


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """This user, whose number is 4000, and a group that is alone theirs."""
    entries = {
        "user": pwd.struct_passwd((copied(USER), "x", copied(4_000), copied(GROUP), "", "/", "/bin/sh")),
        "group": grp.struct_group((copied(USER), "x", copied(GROUP), [])),
    }
    monkeypatch.setattr(os, "geteuid", lambda: copied(4_000))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entries["user"])
    monkeypatch.setattr(grp, "getgrgid", lambda _: entries["group"])
    return entries


def copied(value: Any) -> Any:
    """The same value as another object, as the operating system gives it each time."""
    return type(value)(f"{value} ".strip())


def file_of(uid: int, gid: int = GROUP, rights: int = 0o600) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | rights, 0, 0, 1, copied(uid), copied(gid), 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("uid", "of_this_user", "trusted"),
    [(4_000, True, True), (3_999, False, False), (4_001, False, False), (0, False, True), (1, False, False)],
)
def test_a_file_is_its_owners_and_root_is_trusted_too(uid: int, of_this_user: bool, trusted: bool) -> None:
    assert (is_of_this_user(file_of(uid)), is_trusted(file_of(uid))) == (of_this_user, trusted)


@pytest.mark.parametrize(
    ("uid", "gid", "rights", "open_to_others"),
    [
        (4_000, GROUP, 0o600, False),
        (4_000, GROUP, 0o755, False),
        (4_000, GROUP, 0o660, False),
        (4_000, GROUP, 0o602, True),
        (4_000, GROUP, 0o666, True),
        (4_000, GROUP, 0o1777, True),
        (4_000, 4_001, 0o640, False),
        (4_000, 4_001, 0o755, False),
        (4_000, 4_001, 0o620, True),
        (4_000, 3_999, 0o620, True),
        (4_000, 1, 0o620, True),
        (4_000, 0, 0o660, False),
        (4_000, 0, 0o662, True),
        (0, 4_001, 0o644, False),
        (0, 4_001, 0o664, True),
        (0, 0, 0o664, False),
        (4_001, GROUP, 0o600, True),
        (3_999, 0, 0o400, True),
    ],
)
def test_strangers_are_all_but_this_user_and_root_and_their_own_groups(
    uid: int, gid: int, rights: int, open_to_others: bool
) -> None:
    assert may_be_written_by_strangers(file_of(uid, gid, rights)) is open_to_others


def test_where_no_owner_is_told_by_a_number_all_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "geteuid")
    found = file_of(4_001, 4_001, 0o666)
    assert (is_of_this_user(found), is_trusted(found), may_be_written_by_strangers(found)) == (True, True, False)


def test_a_group_of_ones_own_name_is_private(own: dict[str, Any]) -> None:
    assert _is_private_group(copied(GROUP))
    own["group"] = grp.struct_group((copied(USER), "x", copied(GROUP), [copied(USER)]))
    assert _is_private_group(copied(GROUP))


@pytest.mark.parametrize(
    ("gid", "name", "members"),
    [
        *((4_001, USER, []), (3_999, USER, []), (4_000, "users", []), (4_000, "adm", [])),
        *((4_000, USER, [USER, "lee"]), (4_000, USER, ["lee"])),
    ],
)
def test_a_group_of_others_is_not(own: dict[str, Any], gid: int, name: str, members: list[str]) -> None:
    own["group"] = grp.struct_group((name, "x", gid, members))
    assert not _is_private_group(gid)


@pytest.mark.parametrize(("module", "asked"), [(pwd, "getpwuid"), (grp, "getgrgid")], ids=["user", "group"])
def test_where_nobody_knows_who_is_in_it_a_group_is_not_private(
    module: ModuleType, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(module, asked, unknown)
    assert not _is_private_group(GROUP)
