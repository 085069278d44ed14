"""What the tests of the pace share."""

from __future__ import annotations

from pathlib import Path

import pytest

from kis_retry import FileTokenStore, MemoryTokenStore, RedisTokenStore, TokenStore


@pytest.fixture(autouse=True)
def no_rate_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIS_RATE_LIMIT")


@pytest.fixture(params=["memory", "file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TokenStore:
    if request.param == "redis":
        server = request.getfixturevalue("valkey_server")
        server.flush()
        return RedisTokenStore(server.url)
    return MemoryTokenStore() if request.param == "memory" else FileTokenStore(tmp_path / "store")
