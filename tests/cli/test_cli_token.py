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

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def kis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KisGateway]:
    """A gateway that issues another token whenever asked, and the environment of a user of it."""
    with KisGateway(issue_interval=0) as running:
        monkeypatch.setenv("KIS_APP_KEY", running.credentials.app_key)
        monkeypatch.setenv("KIS_APP_SECRET", running.credentials.app_secret)
        monkeypatch.setenv("KIS_BASE_URL", running.url)
        monkeypatch.setenv("KIS_TOKEN_STORE", str(tmp_path / "store"))
        yield running


@pytest.fixture
def store(kis: KisGateway, tmp_path: Path) -> FileTokenStore:
    return FileTokenStore(tmp_path / "store")


@pytest.fixture
def planted(kis: KisGateway, store: FileTokenStore) -> AccessToken:
    """A token in the store."""
    token = AccessToken("planted-token", datetime.now(timezone.utc) + timedelta(seconds=10_000))
    store.save(key_of(kis.credentials), token)
    return token


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*words: str) -> dict[str, Any]:
        assert main(["token", "--json", *words]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        document: dict[str, Any] = json.loads(line)
        return document

    return run


def refuse(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["token", "--refresh"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize(("left", "word"), [(601, "valid"), (600, "expiring soon"), (0, "expired"), (-5, "expired")])
def test_the_state_goes_by_expiry_and_margin(
    left: int, word: str, planted: AccessToken, kis: KisGateway, ask: Ask
) -> None:
    with freezegun.freeze_time(planted.expires_at - timedelta(seconds=left)):
        state = ask()
    assert (state["state"], state["remaining_seconds"]) == (word, max(left, 0))
    assert state["fingerprint"] == planted.fingerprint
    assert abs(datetime.fromisoformat(state["expires_at"]) - planted.expires_at) < timedelta(seconds=1)
    assert state["expires_at"].endswith("+09:00"), "Seoul's time, as KIS tells it"
    assert kis.counts.token_requests == 0


def test_people_get_a_line_for_each_thing_that_is_known(
    planted: AccessToken, store: FileTokenStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(rows) == ["state", "fingerprint", "expires at", "remaining seconds", "store"]
    assert (rows["fingerprint"].strip(), rows["store"].strip()) == (planted.fingerprint, repr(store))
    for action, done in (("--refresh", "renewed"), ("--revoke", "revoked"), ("--refresh", "issued")):
        assert main(["token", action]) == 0
        assert capsys.readouterr().out.splitlines()[0].split() == ["done", done]


def test_a_token_from_its_first_issue_to_its_end(kis: KisGateway, store: FileTokenStore, ask: Ask) -> None:
    assert ask()["state"] == "none"
    assert kis.counts.token_requests == 0, "showing asks KIS for nothing"
    state = ask("--refresh")
    assert (state["state"], state["done"], state["store"]) == ("valid", "issued", repr(store))
    shared = store.load(key_of(kis.credentials))
    assert shared is not None
    assert (shared.value, shared.fingerprint) == (kis.current_token, state["fingerprint"])
    again = ask("--refresh")
    assert again["done"] == "KIS handed the same token out again, as it does within six hours of an issue"
    assert again["fingerprint"] == state["fingerprint"]
    revoked = ask("--revoke")
    assert (revoked["state"], revoked["done"]) == ("none", "revoked")
    assert store.load(key_of(kis.credentials)) is None
    assert ask("--revoke")["done"] == "there was no token to revoke"


def test_a_refresh_that_fails_is_status_1_leaves_the_token_and_says_what_it_waits_for(
    planted: AccessToken,
    kis: KisGateway,
    ask: Ask,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "0.3")
    kis.refuse_tokens("EGW00105", 1)
    assert "EGW00105" in refuse(capsys)
    kis.outage(where="tokens", status=503)
    assert "the token endpoint is away; waiting for up to 0 s" in refuse(capsys)
    assert ask()["fingerprint"] == planted.fingerprint


def test_a_store_that_cannot_be_read_or_that_nobody_shares_is_said(
    kis: KisGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "redis://127.0.0.1:1/0")
    assert "cannot be read" in refuse(capsys)
    assert kis.counts.token_requests == 0, "and nothing is issued"
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    assert main(["token", "--refresh"]) == 0
    assert "KIS_TOKEN_STORE=memory" in capsys.readouterr().err
