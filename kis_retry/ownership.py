"""Tell whose a file is, and who may write it. Windows tells no owner by a number: there all is believed."""

from __future__ import annotations

import os
import stat

__all__ = ["is_owned", "may_be_written_by_strangers"]

_ROOT = 0  # could change everything anyway


def is_owned(found: os.stat_result, *, or_by_root: bool = False) -> bool:
    """Say whether this process's user owns it."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid() or (or_by_root and found.st_uid == _ROOT)


def may_be_written_by_strangers(found: os.stat_result) -> bool:
    """
    Say whether somebody who is neither this user nor root may write it, or put files into it if it is a folder.

    The sticky bit changes nothing: in /tmp everybody may put a file where there is none. A group counts as strangers
    unless it is root's or this user's own without other members, which many systems give to each user with umask 002.
    """
    if not hasattr(os, "geteuid"):
        return False
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != _ROOT and not _is_private_group(found.st_gid)
    return bool(by_group or found.st_mode & stat.S_IWOTH) or not is_owned(found, or_by_root=True)


def _is_private_group(gid: int) -> bool:
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:  # without an entry nobody knows who else is in it
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
