"""A store that fails is one warning, which names the store and the cause, and never a call's failure."""

from __future__ import annotations

import errno
import os
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from kis_retry import AccessToken, FileTokenStore, MemoryTokenStore, RedisTokenStore, TokenStore
from kis_retry.stores.entry import StoreEntry

PASSWORD = "r3d1s-p4ssw0rd"


class Failing(MemoryTokenStore):
    """Raises what it is given wherever it is asked."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def load(self, key: str) -> AccessToken | None:
        raise self.error


class Foreign:
    """Somebody else's store, whose `repr` shows what nobody may see."""

    def load(self, key: str) -> AccessToken | None:
        raise LookupError(PASSWORD)

    def __repr__(self) -> str:
        return f"Foreign(password={PASSWORD!r})"


class Unshowable(Foreign):
    def __repr__(self) -> str:
        raise RuntimeError


def warned(caplog: pytest.LogCaptureFixture, store: Any) -> str:
    assert StoreEntry(store, "key").load() is None
    (record,) = caplog.records
    assert vars(record)["kis_name"] == "store_unavailable"
    assert PASSWORD not in str(vars(record))
    return record.getMessage()


def test_a_folder_that_cannot_be_read_is_named_with_what_the_system_said(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FileTokenStore(tmp_path / "file" / "cache")
    cause = f"NotADirectoryError: {os.strerror(errno.ENOTDIR)}"
    assert warned(caplog, store) == f'kis_retry.store_unavailable store={store!r} operation=load error="{cause}"'
    assert str(tmp_path) in caplog.text


def test_a_server_that_is_not_there_is_named_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{bound_but_deaf.getsockname()[1]}/0"
        said = warned(caplog, RedisTokenStore(f"redis://somebody:{PASSWORD}@{place}"))
    assert f"store=RedisTokenStore('redis://{place}') operation=load" in said
    assert said.endswith(f'error="ConnectionError: {os.strerror(errno.ECONNREFUSED)}"')


@pytest.mark.parametrize("store", [Foreign(), Unshowable()])
def test_a_store_of_another_hand_is_named_by_its_class_and_its_error_by_its_type(
    caplog: pytest.LogCaptureFixture, store: Foreign
) -> None:
    said = f"kis_retry.store_unavailable store={type(store).__name__} operation=load error=LookupError"
    assert warned(caplog, store) == said


def test_the_text_of_an_error_is_never_said(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError(PASSWORD)
    error.__cause__ = OSError(PASSWORD)
    assert warned(caplog, Failing(error)).endswith(" error=ValueError")


@pytest.mark.parametrize(("links", "said"), [(0, True), (1, True), (7, True), (8, False)])
@pytest.mark.parametrize("through", ["__cause__", "__context__"])
def test_what_the_system_said_is_found_behind_seven_other_errors(
    caplog: pytest.LogCaptureFixture, links: int, through: str, said: bool
) -> None:
    first = link = ValueError(PASSWORD) if links else OSError(errno.ENOSPC, "no space")
    for left in reversed(range(links)):
        setattr(link, through, LookupError(PASSWORD) if left else OSError(errno.ENOSPC, "no space"))
        link = getattr(link, through)
    kind = type(first).__name__
    assert warned(caplog, Failing(first)).endswith(f' error="{kind}: no space"' if said else f" error={kind}")


def test_a_cause_is_believed_before_what_was_being_handled(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError()
    error.__cause__, error.__context__ = OSError(errno.EIO, "the cause"), OSError(errno.EIO, "beside it")
    assert warned(caplog, Failing(error)).endswith(' error="ValueError: the cause"')


def test_causes_that_go_in_a_ring_are_looked_at_once(caplog: pytest.LogCaptureFixture) -> None:
    one, other = ValueError(), LookupError()
    one.__cause__, other.__cause__ = other, one
    assert warned(caplog, Failing(one)).endswith(" error=ValueError")


def test_a_store_that_fails_is_warned_of_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    store = Failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    entry = StoreEntry(store, "key")
    assert [entry.load(), entry.load()] == [None, None]
    assert len(caplog.records) == 1
    assert isinstance(store, TokenStore)


def test_a_deletion_that_failed_is_forgotten_with_the_next_save_and_not_with_a_lock_let_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Keeping(MemoryTokenStore):
        def delete(self, key: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    entry, warnings = StoreEntry(Keeping(), "key"), []
    for _ in range(2):
        entry.delete()
        with entry.lock(timeout=0, lease=1) as held:
            assert held
        warnings.append(len(caplog.records))
    entry.save(AccessToken("t", datetime(2040, 1, 1, tzinfo=timezone.utc)))
    entry.delete()
    assert [*warnings, len(caplog.records)] == [1, 1, 2]
