"""Whose a file is, where its group may write."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry.ownership import _is_private_group, may_be_written_by_strangers

if TYPE_CHECKING:
    from types import ModuleType

grp: Any = pytest.importorskip("grp")
pwd: Any = pytest.importorskip("pwd")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """This user, and a group that is alone theirs."""
    entries = {
        "user": pwd.struct_passwd(("kim", "x", os.geteuid(), 4_000, "", "/", "/bin/sh")),
        "group": grp.struct_group(("kim", "x", 4_000, [])),
    }
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entries["user"])
    monkeypatch.setattr(grp, "getgrgid", lambda _: entries["group"])
    return entries


def test_a_group_of_ones_own_name_is_private(own: dict[str, Any]) -> None:
    assert _is_private_group(4_000)
    own["group"] = grp.struct_group(("kim", "x", 4_000, ["kim"]))
    assert _is_private_group(4_000)


@pytest.mark.parametrize(
    ("gid", "name", "members"),
    [(4_001, "kim", []), (4_000, "users", []), (4_000, "adm", []), (4_000, "kim", ["kim", "lee"])],
)
def test_a_group_of_others_is_not(own: dict[str, Any], gid: int, name: str, members: list[str]) -> None:
    own["group"] = grp.struct_group((name, "x", gid, members))
    assert not _is_private_group(gid)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("module", "asked"), [(pwd, "getpwuid"), (grp, "getgrgid")], ids=["user", "group"])
def test_where_nobody_knows_who_is_in_it_a_group_is_not_private(
    module: ModuleType, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(module, asked, unknown)
    assert not _is_private_group(4_000)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("rights", "open_to_others"), [(0o640, False), (0o755, False), (0o660, True)])
def test_the_group_of_a_file_counts_where_it_may_write(rights: int, open_to_others: bool) -> None:
    found = os.stat_result((stat.S_IFREG | rights, 0, 0, 1, os.geteuid(), 4_001, 0, 0, 0, 0))
    assert may_be_written_by_strangers(found) is open_to_others
