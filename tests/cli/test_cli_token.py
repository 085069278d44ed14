"""`kis-retry token`: what it shows, what it does, and what it leaves alone."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from kis_retry import AccessToken, Credentials, FileTokenStore, MemoryTokenStore, RefreshEvent, TokenManager
from kis_retry.cli import main
from kis_retry.cli import token as command
from kis_retry.events import EVENT_NAMES
from kis_retry.stores.base import key_of
from kis_retry.stores.documents import DocumentTokenStore
from kis_retry.testing import KisGateway

Saver = Callable[[float], AccessToken]


@pytest.fixture
def kis() -> Iterator[KisGateway]:
    """A gateway that issues another token whenever asked."""
    with KisGateway(issue_interval=0, same_token_for=0) as running:
        yield running


@pytest.fixture
def store(kis: KisGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileTokenStore:
    """The store, the credentials and the host that the environment names."""
    name(kis, monkeypatch)
    folder = tmp_path / "store"
    monkeypatch.setenv("KIS_TOKEN_STORE", str(folder))
    return FileTokenStore(folder)


@pytest.fixture
def save(kis: KisGateway, store: FileTokenStore) -> Saver:
    """Put a token into the store that has so many seconds left."""

    def put(seconds: float) -> AccessToken:
        token = AccessToken("planted-token", datetime.now(timezone.utc) + timedelta(seconds=seconds))
        store.save(key_of(kis.credentials), token)
        return token

    return put


def name(kis: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", kis.credentials.app_key)
    monkeypatch.setenv("KIS_APP_SECRET", kis.credentials.app_secret)
    monkeypatch.setenv("KIS_BASE_URL", kis.url)


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["token", "--json", *words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def test_no_token_yet_is_a_state_and_issues_nothing(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ask(capsys)
    assert state["state"] == "none"
    assert state["fingerprint"] is None
    assert state["store"] == repr(store)
    assert kis.counts.token_requests == 0


@pytest.mark.parametrize(
    ("seconds", "word"),
    [(86_000, "valid"), (630, "valid"), (570, "expiring soon"), (30, "expiring soon"), (-1, "expired")],
)
def test_the_state_word_goes_by_expiry_and_margin(
    seconds: float, word: str, save: Saver, kis: KisGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    token = save(seconds)
    state = ask(capsys)
    assert state["state"] == word
    assert state["fingerprint"] == token.fingerprint
    assert max(seconds, 0) - 20 <= state["remaining_seconds"] <= max(seconds, 0)
    assert kis.counts.token_requests == 0


@pytest.mark.parametrize(
    ("left", "word", "remaining"),
    [(601, "valid", 601), (600, "expiring soon", 600), (1, "expiring soon", 1), (0, "expired", 0), (-5, "expired", 0)],
)
def test_the_state_word_changes_at_the_very_second(
    left: int,
    word: str,
    remaining: int,
    save: Saver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expires = save(10_000).expires
    monkeypatch.setattr("kis_retry.cli.token.time", SimpleNamespace(time=lambda: expires - left))
    state = ask(capsys)
    assert (state["state"], state["remaining_seconds"]) == (word, remaining)


def test_the_margin_is_that_of_the_environment(
    save: Saver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(1_000)
    monkeypatch.setenv("KIS_RETRY_REFRESH_MARGIN", "2000")
    assert ask(capsys)["state"] == "expiring soon"


def test_the_expiry_is_shown_in_utc_and_in_seoul(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save(key_of(kis.credentials), AccessToken("t", datetime(2099, 11, 23, 20, 30, tzinfo=timezone.utc)))
    state = ask(capsys)
    assert state["expires_at"] == "2099-11-23T20:30:00+00:00"
    assert state["expires_at_seoul"] == "2099-11-24T05:30:00+09:00"
    assert main(["token"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["expires", "2099-11-23 20:30:00 UTC"] in lines
    assert ["in", "Seoul     2099-11-24 05:30:00"] in lines
    assert ["state", "valid"] in lines


def test_people_are_told_what_was_done_and_to_which_token(
    save: Saver, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    token = save(3_710)
    assert main(["token"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(rows) == ["state", "fingerprint", "expires", "in", "remaining", "store"]
    assert (rows["fingerprint"], rows["store"]) == (token.fingerprint, repr(store))
    assert rows["remaining"].startswith("1:01:"), "hours, minutes and seconds"
    for action, done in (("--refresh", "renewed"), ("--revoke", "revoked"), ("--refresh", "issued")):
        assert main(["token", action]) == 0
        assert capsys.readouterr().out.splitlines()[0].split() == ["done", done]


def test_a_damaged_entry_reads_as_none(save: Saver, store: FileTokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    save(1_000)
    (entry,) = Path(repr(store).split("'")[1]).glob("*.json")
    entry.write_text("{not json", "utf-8")
    assert ask(capsys)["state"] == "none"


def test_a_refresh_where_there_is_no_token_issues_the_first(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ask(capsys, "--refresh")
    assert (state["state"], state["done"]) == ("valid", "issued")
    assert kis.counts.tokens_issued == 1
    shared = store.load(key_of(kis.credentials))
    assert shared is not None
    assert shared.value == kis.current_token
    assert state["fingerprint"] == shared.fingerprint


@pytest.mark.parametrize("seconds", [80_000, 100, -100])
def test_a_refresh_puts_a_new_token_in_the_place_of_the_current(
    seconds: float, save: Saver, kis: KisGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    old = save(seconds)
    state = ask(capsys, "--refresh")
    assert (state["state"], state["done"]) == ("valid", "renewed")
    assert state["fingerprint"] != old.fingerprint
    assert kis.counts.tokens_issued == 1


def test_the_same_token_again_is_said(
    store: FileTokenStore, kis: KisGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ask(capsys, "--refresh")
    kis.same_token()
    again = ask(capsys, "--refresh")
    assert again["fingerprint"] == first["fingerprint"]
    assert again["done"] == "KIS handed the same token out again, as it does within six hours of an issue"


def test_a_refused_refresh_is_status_1_and_leaves_the_token(
    save: Saver, kis: KisGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save(1_000)
    monkeypatch.setenv("KIS_APP_SECRET", "wrong-secret")
    assert main(["token", "--refresh"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "EGW00105" in said.err
    assert len(said.err.splitlines()) == 1
    assert kis.counts.token_requests == 1
    assert ask(capsys)["fingerprint"] == old.fingerprint


def test_a_host_that_is_away_is_status_1(
    store: FileTokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "0")
    monkeypatch.setenv("KIS_BASE_URL", "http://127.0.0.1:1")
    assert main(["token", "--refresh"]) == 1
    assert "could not be reached" in capsys.readouterr().err


def test_waiting_out_the_minute_is_said(
    gateway: KisGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name(gateway, monkeypatch)
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "0.8")
    gateway.issue_elsewhere()
    assert main(["token", "--refresh"]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first == "kis-retry: KIS issues one token a minute (EGW00133); waiting for up to 1 s"
    assert "one token a minute" in last


def test_waiting_for_an_endpoint_that_is_away_is_not_said_to_be_the_minute(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    kis.drop("tokens", times=1)
    assert main(["token", "--refresh"]) == 0
    said = capsys.readouterr().err
    assert re.fullmatch(r"kis-retry: the token endpoint is away; waiting for up to (6\d|70) s\n", said)


@pytest.mark.parametrize(
    ("code", "elapsed", "said"),
    [
        ("EGW00133", 59.6, "KIS issues one token a minute (EGW00133); waiting for up to 60 s"),
        (None, 4.2, "the token endpoint is away; waiting for up to 4 s"),
        ("EGW00105", None, "the token endpoint is away; waiting for up to 0 s"),
    ],
)
def test_a_wait_is_told_with_its_reason_and_its_seconds(
    code: str | None, elapsed: float | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command._say_waiting(RefreshEvent(name="token_issue_waiting", msg_cd=code, elapsed=elapsed))
    for name in EVENT_NAMES:
        if name != "token_issue_waiting":
            command._say_waiting(RefreshEvent(name=name, msg_cd=code, elapsed=elapsed))
    assert capsys.readouterr().err == f"kis-retry: {said}\n"


def stand_in(store: Any, issued: AccessToken | None = None) -> Any:
    """A manager whose refresh gives that token and saves it nowhere."""
    return SimpleNamespace(store=store, credentials=Credentials("key", "secret"), refresh=lambda _: issued)


@pytest.mark.parametrize(
    ("current", "done"),
    [
        (None, "issued"),
        ("a", "renewed"),
        ("b", "KIS handed the same token out again, as it does within six hours of an issue"),
        ("c", "renewed"),
    ],
)
def test_what_was_done_goes_by_the_token_that_was_there(current: str | None, done: str) -> None:
    expires = datetime(2099, 1, 1, tzinfo=timezone.utc)
    store, issued = MemoryTokenStore(), AccessToken("b", expires)
    manager = stand_in(store, issued)
    assert command._refresh(manager, None if current is None else AccessToken(current, expires)) == done
    assert store.load(key_of(manager.credentials)) == issued, "saved, where the manager could not"


def test_a_token_that_is_in_the_store_is_not_written_again(
    store: FileTokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save = FileTokenStore.save

    def note(self: FileTokenStore, key: str, token: AccessToken) -> None:
        saved.append(token.value)
        save(self, key, token)

    monkeypatch.setattr(FileTokenStore, "save", note)
    ask(capsys, "--refresh")
    assert len(saved) == 1


def test_a_store_is_tried_with_an_empty_document_that_is_gone_within_a_minute() -> None:
    done: list[tuple[object, ...]] = []

    class Documents:
        def write(self, *given: object) -> None:
            done.append(given)

        def delete(self, *given: object) -> None:
            done.append(given)

    documents: Any = Documents()
    manager = stand_in(DocumentTokenStore(documents))
    command._require_writable(manager)
    key = key_of(manager.credentials)
    assert done == [(key, "probe", b"", 60.0), (key, "probe")]


def test_a_store_that_somebody_else_wrote_is_not_tried() -> None:
    command._require_writable(stand_in(object()))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "OSError: No space left on device"),
        (OSError("at redis://name:password@host"), "OSError"),
        (ValueError("at redis://name:password@host"), "ValueError"),
    ],
)
def test_the_reason_of_a_failure_is_its_type_and_what_the_system_says(error: Exception, reason: str) -> None:
    assert command._reason(error) == reason


def test_revoking_ends_the_token_at_kis_and_in_the_store(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, "--refresh")
    state = ask(capsys, "--revoke")
    assert (state["state"], state["done"]) == ("none", "revoked")
    assert store.load(key_of(kis.credentials)) is None


def test_revoking_nothing_is_done_at_once(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(capsys, "--revoke")["done"] == "there was no token to revoke"


def test_a_refused_revocation_is_status_1_and_leaves_the_token(
    save: Saver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(1_000)
    monkeypatch.setenv("KIS_APP_SECRET", "wrong-secret")
    assert main(["token", "--revoke"]) == 1
    assert "not revoked" in capsys.readouterr().err
    assert ask(capsys)["state"] == "valid"


def test_an_entry_that_outlives_its_revocation_is_status_1(
    save: Saver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    save(1_000)
    monkeypatch.setattr(FileTokenStore, "delete", refuse)
    assert main(["token", "--revoke"]) == 1
    assert "still holds it" in capsys.readouterr().err


def test_a_token_that_the_store_cannot_keep_is_status_1(
    store: FileTokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileTokenStore, "save", refuse)
    assert main(["token", "--refresh"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot keep it (OSError: No space left on device)" in line


def test_a_refresh_on_an_unwritable_folder_says_so_and_asks_kis_for_nothing(
    kis: KisGateway, save: Saver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    token = save(1_000)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refuse)
        assert main(["token", "--refresh"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (OSError: Read-only file system), so KIS was not asked" in line
    assert kis.counts.token_requests == 0
    assert ask(capsys)["fingerprint"] == token.fingerprint


def test_a_refresh_on_a_server_that_takes_no_writes_says_so_and_asks_kis_for_nothing(
    kis: KisGateway,
    store: FileTokenStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    new_valkey_server: Callable[[], Any],
) -> None:
    server = new_valkey_server()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("min-replicas-to-write", 1)
    monkeypatch.setenv("KIS_TOKEN_STORE", server.url)
    assert main(["token", "--refresh"]) == 1
    assert "cannot be written (" in capsys.readouterr().err
    assert kis.counts.token_requests == 0


def test_a_refresh_leaves_nothing_but_the_token_in_the_store(
    store: FileTokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, "--refresh")
    assert {path.suffix for path in (tmp_path / "store").iterdir()} == {".json", ".lock"}
    assert len(list((tmp_path / "store").iterdir())) == 2


@pytest.mark.parametrize("words", [[], ["--refresh"], ["--revoke"]])
def test_a_store_that_is_away_is_status_1_and_nothing_is_issued(
    words: list[str],
    kis: KisGateway,
    store: FileTokenStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "redis://127.0.0.1:1/0")
    assert main(["token", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "redis://127.0.0.1:1/0" in line
    assert "cannot be read (ConnectionError)" in line
    assert kis.counts.token_requests == 0


def test_a_store_of_one_process_is_said(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    monkeypatch.setattr("kis_retry.stores.from_env._shared_memory", None)
    assert main(["token", "--refresh"]) == 0
    said = capsys.readouterr()
    assert "KIS_TOKEN_STORE=memory" in said.err
    assert "valid" in said.out


@pytest.mark.parametrize("words", [[], ["--refresh"], ["--revoke"], ["--json"]])
def test_no_credentials_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "KIS_APP_KEY" in said.err


@pytest.mark.parametrize(("variable", "value"), [("KIS_TOKEN_STORE", "ftp://x"), ("KIS_RETRY_WAIT", "soon")])
def test_an_unusable_setting_is_status_2(
    variable: str,
    value: str,
    store: FileTokenStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["token"]) == 2
    assert f"{variable}={value!r} is not usable" in capsys.readouterr().err


def test_it_shows_the_token_that_a_batch_shares(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Credentials.from_env() == Credentials(kis.credentials.app_key, kis.credentials.app_secret, base_url=kis.url)
    token = TokenManager.from_env().token()
    assert ask(capsys)["fingerprint"] == token.fingerprint
