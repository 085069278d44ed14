"""A key, a secret, an account, a password and a token are planted, and no command ever shows one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from kis_retry import AccessToken, FileTokenStore
from kis_retry.cli import main
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway

ACCOUNT = "87654321-99"
PASSWORD = "planted-password"
TOKEN = "planted-token-value"
FOLDER = "./store"


class Planted:
    """The environment of a user whose store holds a token."""

    def __init__(self, gateway: KisGateway) -> None:
        self.gateway = gateway

    def found_in(self, said: str) -> list[str]:
        credentials = self.gateway.credentials
        secrets = [credentials.app_key, credentials.app_secret, ACCOUNT, PASSWORD, TOKEN, self.gateway.current_token]
        return [secret for secret in secrets if secret and secret in said]


@pytest.fixture
def planted(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> Planted:
    monkeypatch.setenv("KIS_APP_KEY", gateway.credentials.app_key)
    monkeypatch.setenv("KIS_APP_SECRET", gateway.credentials.app_secret)
    monkeypatch.setenv("KIS_ACCOUNT_NO", ACCOUNT)
    monkeypatch.setenv("KIS_BASE_URL", gateway.url)
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "0")
    monkeypatch.setenv("KIS_TOKEN_STORE", FOLDER)
    live = AccessToken(TOKEN, datetime.now(timezone.utc) + timedelta(hours=1))
    FileTokenStore(FOLDER).save(key_of(gateway.credentials), live)
    return Planted(gateway)


COMMANDS = [
    ["config"],
    ["config", "--json"],
    ["token"],
    ["token", "--json"],
    ["token", "--refresh"],
    ["token", "--revoke"],
    ["run", "no-such-command"],
]
STORES = {
    "a folder": FOLDER,
    "Redis that is away": f"redis://name:{PASSWORD}@127.0.0.1:1/0",
    "an option of Redis": f"redis://127.0.0.1:1/0?password={PASSWORD}",
}


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    return said.out + said.err


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_shows_a_secret(
    words: list[str],
    store: str,
    planted: Planted,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", store)
    main(words)
    said = shown(capsys)
    assert said
    assert planted.found_in(said) == []


@pytest.mark.parametrize("words", [["token", "--refresh"], ["token", "--revoke"]], ids=" ".join)
def test_no_refusal_shows_a_secret(words: list[str], planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    planted.gateway.refuse_tokens("EGW00105")
    main(words)
    said = shown(capsys)
    assert said
    assert planted.found_in(said) == []


@pytest.mark.parametrize("variable", ["KIS_APP_KEY", "KIS_APP_SECRET"])
@pytest.mark.parametrize("words", [["config"], ["config", "--json"], ["token"], ["run", "true"]], ids=" ".join)
@pytest.mark.usefixtures("planted")
def test_no_complaint_about_a_secret_shows_it(
    words: list[str], variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "planted\tsecret")
    assert main(words) == 2
    said = shown(capsys)
    assert "line break" in said
    assert "planted" not in said
