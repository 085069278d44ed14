"""`kis-retry token`: what it shows, what it does, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import freezegun
import pytest

from kis_retry import AccessToken, FileTokenStore
from kis_retry.cli import main
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway

Saver = Callable[[float], AccessToken]


@pytest.fixture
def kis() -> Iterator[KisGateway]:
    """A gateway that issues another token whenever asked."""
    with KisGateway(issue_interval=0) as running:
        yield running


@pytest.fixture
def store(kis: KisGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileTokenStore:
    """The store, the credentials and the host that the environment names."""
    monkeypatch.setenv("KIS_APP_KEY", kis.credentials.app_key)
    monkeypatch.setenv("KIS_APP_SECRET", kis.credentials.app_secret)
    monkeypatch.setenv("KIS_BASE_URL", kis.url)
    monkeypatch.setenv("KIS_TOKEN_STORE", str(tmp_path / "store"))
    return FileTokenStore(tmp_path / "store")


@pytest.fixture
def save(kis: KisGateway, store: FileTokenStore) -> Saver:
    """Put a token into the store that has so many seconds left."""

    def put(seconds: float) -> AccessToken:
        token = AccessToken("planted-token", datetime.now(timezone.utc) + timedelta(seconds=seconds))
        store.save(key_of(kis.credentials), token)
        return token

    return put


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["token", "--json", *words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["token", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize(("left", "word"), [(601, "valid"), (600, "expiring soon"), (0, "expired"), (-5, "expired")])
def test_the_state_goes_by_expiry_and_margin(
    left: int, word: str, save: Saver, kis: KisGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    token = save(10_000)
    with freezegun.freeze_time(token.expires_at - timedelta(seconds=left)):
        state = ask(capsys)
    assert (state["state"], state["remaining_seconds"]) == (word, max(left, 0))
    assert state["fingerprint"] == token.fingerprint
    assert abs(datetime.fromisoformat(state["expires_at"]) - token.expires_at) < timedelta(seconds=1)
    assert state["expires_at"].endswith("+09:00"), "Seoul's time, as KIS tells it"
    assert kis.counts.token_requests == 0


def test_people_get_a_line_for_each_thing_that_is_known(
    save: Saver, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    token = save(3_710)
    assert main(["token"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    names = ["state", "fingerprint", "expires at", "remaining seconds", "store"]
    assert list(rows) == names
    assert (rows["fingerprint"].strip(), rows["store"].strip()) == (token.fingerprint, repr(store))
    for action, done in (("--refresh", "renewed"), ("--revoke", "revoked"), ("--refresh", "issued")):
        assert main(["token", action]) == 0
        assert capsys.readouterr().out.splitlines()[0].split() == ["done", done]


def test_a_refresh_where_there_is_no_token_issues_the_first(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(capsys)["state"] == "none"
    assert kis.counts.token_requests == 0, "showing asks KIS for nothing"
    state = ask(capsys, "--refresh")
    assert (state["state"], state["done"], state["store"]) == ("valid", "issued", repr(store))
    assert kis.counts.tokens_issued == 1
    shared = store.load(key_of(kis.credentials))
    assert shared is not None
    assert (shared.value, shared.fingerprint) == (kis.current_token, state["fingerprint"])


@pytest.mark.usefixtures("store")
def test_the_same_token_again_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    first = ask(capsys, "--refresh")
    again = ask(capsys, "--refresh")
    assert again["fingerprint"] == first["fingerprint"]
    assert again["done"] == "KIS handed the same token out again, as it does within six hours of an issue"


def test_a_refused_refresh_is_status_1_and_leaves_the_token(
    save: Saver, kis: KisGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    old = save(1_000)
    kis.refuse_tokens("EGW00105")
    assert "EGW00105" in refuse(capsys, "--refresh")
    assert ask(capsys)["fingerprint"] == old.fingerprint


@pytest.mark.usefixtures("store")
def test_a_wait_is_said_with_what_it_may_take(
    kis: KisGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "1")
    kis.outage(where="tokens", status=503)
    said = refuse(capsys, "--refresh")
    assert "the token endpoint is away; waiting for up to 1 s" in said


def test_a_revoked_token_is_gone_here_and_at_kis(
    save: Saver, kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, "--refresh")
    state = ask(capsys, "--revoke")
    assert (state["state"], state["done"]) == ("none", "revoked")
    assert store.load(key_of(kis.credentials)) is None
    assert ask(capsys, "--revoke")["done"] == "there was no token to revoke"


def test_a_store_that_cannot_be_read_is_status_1_and_nothing_is_issued(
    kis: KisGateway, store: FileTokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "redis://127.0.0.1:1/0")
    assert "cannot be read" in refuse(capsys, "--refresh")
    assert kis.counts.token_requests == 0


@pytest.mark.usefixtures("store")
def test_a_token_that_nobody_else_sees_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    assert main(["token", "--refresh"]) == 0
    assert "KIS_TOKEN_STORE=memory" in capsys.readouterr().err
