"""A client that is closed leaves no connection open, but for those of a session that is the user's to close."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from kis_retry import KisClient, TokenManager


class Closing(requests.Session):
    """A session that says how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Closing]:
    """The sessions that clients open for themselves."""
    made: list[Closing] = []

    def open_one() -> Closing:
        made.append(Closing())
        return made[-1]

    monkeypatch.setattr("kis_retry.client.session.requests.Session", open_one)
    return made


def ask(client: KisClient) -> Any:
    return client.fetch_domestic_price("005930")["rt_cd"]


def test_its_own_session_is_closed_with_the_client(manager: TokenManager, opened: list[Closing]) -> None:
    manager.token()
    opened.clear()  # the manager's own
    client = KisClient(tokens=manager)
    assert ask(client) == "0"
    client.close()
    client.close()
    assert [session.closed for session in opened] == [1]


def test_a_block_closes_it_too(manager: TokenManager, opened: list[Closing]) -> None:
    manager.token()
    opened.clear()
    with KisClient(tokens=manager) as client:
        ask(client)
        assert [session.closed for session in opened] == [0]
    assert [session.closed for session in opened] == [1]


def test_a_closed_client_opens_another_session_when_it_is_used_again(
    manager: TokenManager, opened: list[Closing]
) -> None:
    manager.token()
    opened.clear()
    client = KisClient(tokens=manager)
    for _ in range(2):
        assert ask(client) == "0"
        client.close()
    assert [session.closed for session in opened] == [1, 1]


def test_a_client_that_was_never_used_can_be_closed(manager: TokenManager, opened: list[Closing]) -> None:
    KisClient(tokens=manager).close()
    assert opened == []


def test_a_given_session_is_the_users_to_close(manager: TokenManager) -> None:
    with Closing() as session:
        with KisClient(tokens=manager, session=session) as client:
            ask(client)
        assert session.closed == 0
        assert ask(client) == "0"
