"""A key, a secret, an account, a password and a token are planted, and no command ever shows one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from kis_retry import AccessToken, FileTokenStore
from kis_retry.cli import main
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway

ACCOUNT, PASSWORD, TOKEN, FOLDER = "87654321-99", "planted-password", "planted-token-value", "./store"


@pytest.fixture
def planted(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> KisGateway:
    """The environment of a user whose store holds a token."""
    monkeypatch.setenv("KIS_APP_KEY", gateway.credentials.app_key)
    monkeypatch.setenv("KIS_APP_SECRET", gateway.credentials.app_secret)
    monkeypatch.setenv("KIS_ACCOUNT_NO", ACCOUNT)
    monkeypatch.setenv("KIS_BASE_URL", gateway.url)
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "0")
    monkeypatch.setenv("KIS_TOKEN_STORE", FOLDER)
    live = AccessToken(TOKEN, datetime.now(timezone.utc) + timedelta(hours=1))
    FileTokenStore(FOLDER).save(key_of(gateway.credentials), live)
    return gateway


COMMANDS = [["config"], ["config", "--json"], ["token"], ["token", "--refresh"], ["token", "--revoke"], ["run", "none"]]
STORES = {
    "a folder": FOLDER,
    "Redis that is away": f"redis://name:{PASSWORD}@127.0.0.1:1/0",
    "an option of Redis": f"redis://127.0.0.1:1/0?password={PASSWORD}",
}


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_shows_a_secret(
    words: list[str],
    store: str,
    planted: KisGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", store)
    main(words)
    said, keys = "".join(capsys.readouterr()), planted.credentials
    secrets = [keys.app_key, keys.app_secret, ACCOUNT, PASSWORD, TOKEN, planted.current_token or TOKEN]
    assert said
    assert [secret for secret in secrets if secret in said] == []


@pytest.mark.parametrize("variable", ["KIS_APP_KEY", "KIS_APP_SECRET"])
@pytest.mark.parametrize("words", [["config"], ["config", "--json"], ["token"], ["run", "true"]], ids=" ".join)
@pytest.mark.usefixtures("planted")
def test_no_complaint_about_a_secret_shows_it(
    words: list[str], variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "planted\tsecret")
    assert main(words) == 2
    said = "".join(capsys.readouterr())
    assert "line break" in said
    assert "planted" not in said
