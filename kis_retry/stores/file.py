"""Where a token is shared by the processes of one machine: `FileTokenStore`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError
from .documents import DocumentTokenStore
from .folder import FileDocuments

__all__ = ["FileTokenStore"]


class FileTokenStore(DocumentTokenStore):
    """
    Tokens shared by every process of one machine and user. The default, and the right one for cron jobs and pools.

    `<key>.json` holds the entry, `<key>.lock` is what `filelock` locks: the operating system releases it when its
    holder dies, however it dies.

    A folder that is made here is 0700, the files are 0600, whatever the umask. A folder that was there keeps its mode.
    Files of another owner (root excepted) are neither believed nor waited for: they are replaced, and in a folder that
    forbids this (/tmp, with its sticky bit) this user's processes go on together in a folder of their own inside it,
    `kis_retry-<uid>`. On Windows the rights are those of the user's profile.

    Args:
        directory: the folder, `~` expanded; by default the user's cache folder as `platformdirs` knows it
            (~/.cache/kis_retry on Linux).

    Raises:
        ConfigurationError: `directory` cannot be the name of a folder, or this user has no home folder for the default.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._folder = _folder_of(directory)
        super().__init__(FileDocuments(self._folder))

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self._folder)!r})"


def _folder_of(directory: str | os.PathLike[str] | None) -> Path:
    if directory is None:
        return _default_folder()
    text = os.fspath(directory)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ConfigurationError(f"{directory!r} names no folder: FileTokenStore takes a path, or None for the default")
    try:
        return Path(text).expanduser().absolute()  # absolute: a process that changes its folder keeps its store
    except RuntimeError:
        raise ConfigurationError(f"{text!r} cannot be expanded: there is no such user or home folder") from None


def _default_folder() -> Path:
    import platformdirs

    with suppress(RuntimeError):  # some versions raise it, others leave the "~" as it is
        folder = platformdirs.user_cache_path("kis_retry")
        if not folder.parts[0].startswith("~"):
            return folder.absolute()
    raise ConfigurationError(
        "there is no home folder for the default store: set HOME, or name a folder (KIS_TOKEN_STORE=/var/cache/batch)"
    )
