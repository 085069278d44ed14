"""Where a new token is said to come from, and how it was asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from answers import EXPIRED, GOOD
from kis_retry import AccessToken, refresh_on_expired_token
from kis_retry.tokens.broker import BrokerSource
from kis_retry.tokens.source import TrackingSource
from sources import FAR, NumberedTokens

if TYPE_CHECKING:
    from kis_retry import RefreshEvent, TokenManager


def copied(text: str) -> str:
    """An equal text that is another object, as every answer brings one."""
    return "".join(list(text))


class Stubborn:
    """Hands its dead token out again."""

    def token(self) -> AccessToken:
        return AccessToken(copied("dead"), FAR)

    def refresh(self, rejected: AccessToken) -> AccessToken:
        return self.token()


def test_a_refused_token_that_is_handed_out_again_was_issued() -> None:
    source = TrackingSource(Stubborn())
    assert source.token().value == "dead"
    assert source.replace(copied("dead")).origin == "issued"


def test_a_token_that_was_there_already_is_from_memory() -> None:
    source = TrackingSource(NumberedTokens())
    current = source.token().value
    assert source.replace("somebody-elses") == (source.token(), "memory")
    assert source.replace(current).origin == "issued"


def test_a_manager_knows_what_kis_issued_to_it_and_when(manager: TokenManager) -> None:
    before = time.monotonic()
    value = copied(manager.token().value)
    assert manager.is_new(value, before)
    assert not manager.is_new(value, time.monotonic() + 60)
    assert not manager.is_new("another", before)


def test_a_library_is_asked_for_a_new_token_by_force() -> None:
    asked: list[Any] = []

    class Broker:
        access_token = "Bearer old"

        def issue_access_token(self, force: bool = False) -> None:
            asked.append(force)
            self.access_token = "Bearer new"

    assert BrokerSource(Broker()).replace("old").token.value == "new"
    assert asked == [True]


def test_a_refresh_is_told_with_the_attempt_that_it_is_for(events: list[RefreshEvent]) -> None:
    tokens = NumberedTokens()

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str]) -> dict[str, str]:
        return tokens.answer(headers["authorization"])

    headers = {"authorization": "Bearer t1"}
    assert fetch(headers) == GOOD
    tokens.number += 1
    assert tokens.answer(headers["authorization"]) == EXPIRED
    assert fetch(headers) == GOOD
    told = [(event.name, event.attempt) for event in events]
    assert told == [("token_expired", 1), ("token_refreshed", 2), ("call_recovered", 2)]


def test_an_expiry_that_nobody_knows_is_not_told(events: list[RefreshEvent]) -> None:
    class Broker:
        access_token = "Bearer old"

        def issue_access_token(self) -> None:
            self.access_token = "Bearer new"

        @refresh_on_expired_token
        def fetch(self) -> dict[str, str]:
            return dict(GOOD if self.access_token == "Bearer new" else EXPIRED)

    assert Broker().fetch() == GOOD
    assert [event.expires_at for event in events if event.name == "token_refreshed"] == [None]
