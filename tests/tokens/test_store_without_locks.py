"""A store that cannot lock: there is nobody to wait for, and the process's own order is all the order there is."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

from kis_retry import KisRetryError, MemoryTokenStore, RetryPolicy, TokenIssueError, TokenManager
from kis_retry.testing import KisGateway
from patience import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Unlockable(MemoryTokenStore):
    def lock(self, key: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
        raise OSError("no locks here")


@pytest.fixture
def gateway() -> Iterator[KisGateway]:
    with KisGateway(issue_interval=0) as running:
        yield running


@pytest.fixture
def manager(gateway: KisGateway) -> TokenManager:
    return TokenManager(gateway.credentials, store=Unlockable(), policy=RetryPolicy())


def test_a_token_is_renewed_ahead_of_its_expiry(gateway: KisGateway, manager: TokenManager) -> None:
    first = manager.token()
    assert manager._refresher.memory.cached is not None
    gateway.expire()  # or it would be handed out again
    manager._refresher.memory.cached.stale_at = 0.0
    assert manager.token() != first
    assert gateway.counts.token_requests == 2


def test_in_the_cool_down_a_look_finds_the_endpoint_back(gateway: KisGateway, manager: TokenManager) -> None:
    first = manager.token()
    gateway.expire()
    gateway.refuse_tokens(code=None, status=503)
    manager._policy = RetryPolicy(issue_wait=0, issue_cooldown=600)
    with pytest.raises(TokenIssueError):
        manager.refresh(first)
    gateway.heal()
    manager._refresher.memory.cooldown._probe_at = time.monotonic()  # it is time to look
    assert manager.refresh(first).value == gateway.current_token


def test_a_revocation_waits_for_the_refresh_of_its_process(gateway: KisGateway, manager: TokenManager) -> None:
    gateway.hang("tokens", 1)
    getting = threading.Thread(target=manager.token, daemon=True)
    getting.start()
    until(lambda: gateway.counts.token_requests == 1)
    revoked: list[bool | KisRetryError] = []

    def revoke() -> None:
        try:
            revoked.append(manager.revoke())
        except KisRetryError as error:
            revoked.append(error)

    revoking = threading.Thread(target=revoke, daemon=True)
    revoking.start()
    until(lambda: revoked or waiting(manager) == 2)
    gateway.heal()
    revoking.join(PATIENCE)
    assert revoked == [True], "there is a token by then"
    getting.join(PATIENCE)
    assert manager.peek() is None


def waiting(manager: TokenManager) -> int:
    flight = manager._refresher._flights._current.get("")
    return len(flight._waiters) if flight is not None else 0
