"""
Tell whose a file is and who may write beside it, and so what may be believed of it.

Windows has no owner that is told by a number; there the rights are those of the user's profile, and all is believed.
"""

from __future__ import annotations

import os
import stat

__all__ = ["is_of_this_user", "is_trusted", "may_be_written_by_strangers"]

_ROOT = 0


def is_of_this_user(found: os.stat_result) -> bool:
    """Say whether this process's user owns it."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def is_trusted(found: os.stat_result) -> bool:
    """Say whether this process's user or root owns it; root could change everything anyway."""
    return is_of_this_user(found) or found.st_uid == _ROOT


def may_be_written_by_strangers(found: os.stat_result) -> bool:
    """
    Say whether somebody who is neither this user nor root may write it, or put files into it if it is a folder.

    The sticky bit changes nothing: in /tmp everybody may put a file where there is none. A group counts as strangers
    unless it is root's or this user's own group without other members, which many systems give to each user along
    with a umask of 002.
    """
    if not hasattr(os, "geteuid"):
        return False
    if not is_trusted(found) or found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and found.st_gid != _ROOT and not _is_private_group(found.st_gid)


def _is_private_group(gid: int) -> bool:
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:  # without an entry nobody knows who else is in it
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
