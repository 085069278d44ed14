"""Which token a source puts in the place of an older one: what the wire asks before a request goes out."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from kis_retry import AccessToken, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.stores.base import key_of
from kis_retry.tokens.broker import BrokerSource
from kis_retry.tokens.source import as_source

if TYPE_CHECKING:
    from kis_retry.testing import KisGateway

FAR = datetime(2100, 1, 1, tzinfo=timezone.utc)


class Numbered:
    """A source with a new token at every refresh."""

    number = 1

    def token(self) -> AccessToken:
        return AccessToken(f"t{self.number}", FAR)

    def refresh(self, rejected: AccessToken) -> AccessToken:
        self.number += 1
        return self.token()


class Broker:
    access_token = "Bearer b1"

    def issue_access_token(self) -> None:
        self.access_token = "Bearer b2"


# --- a manager


def test_a_manager_puts_the_current_token_in_place_of_one_it_handed_out(
    gateway: KisGateway, manager: TokenManager
) -> None:
    old = manager.token()
    gateway.expire()
    new = manager.refresh(old)
    assert manager.successor_of(old.value) == new
    assert manager.successor_of(new.value) is None, "it is the current one"


def test_a_manager_has_nothing_to_do_with_a_token_it_never_saw(manager: TokenManager) -> None:
    assert manager.successor_of("foreign") is None
    manager.token()
    assert manager.successor_of("foreign") is None
    manager.note_refused("foreign")
    assert manager.successor_of("foreign") == manager.token()


def test_without_a_live_token_in_memory_a_manager_names_no_successor(
    gateway: KisGateway, manager: TokenManager
) -> None:
    old = manager.token()
    gateway.expire()
    new = manager.refresh(old)
    manager.note_refused(new.value)
    assert manager.successor_of(old.value) is None
    assert manager.peek() is None
    assert manager.current_unless(old.value) is None
    assert gateway.counts.token_requests == 2, "it never blocks"


def test_a_token_that_was_noted_as_refused_is_renewed_before_the_next_use(
    gateway: KisGateway, manager: TokenManager
) -> None:
    old = manager.token()
    gateway.expire()
    manager.note_refused(old.value)
    assert manager.token() != old
    assert gateway.counts.token_requests == 2


def test_a_token_that_was_noted_as_refused_is_not_taken_from_the_store(gateway: KisGateway) -> None:
    store = MemoryTokenStore()
    dead = AccessToken("eyJ.dead.sig", FAR)
    store.save(key_of(gateway.credentials), dead)
    manager = TokenManager(gateway.credentials, store=store, policy=RetryPolicy())
    manager.note_refused(dead.value)
    assert manager.token() != dead
    assert gateway.counts.token_requests == 1


def test_a_refused_token_that_kis_hands_out_again_is_the_current_one_again(
    gateway: KisGateway, manager: TokenManager
) -> None:
    token = manager.token()
    gateway.expire()
    gateway.same_token(1)
    assert manager.replace(token.value).token == token
    assert manager.peek() == token
    assert manager.successor_of(token.value) is None


# --- somebody's source


def test_a_source_puts_its_current_token_in_place_of_one_it_handed_out_or_that_was_refused() -> None:
    source = as_source(Numbered())
    assert source.token().value == "t1"
    assert source.successor_of("t1") is None
    assert source.successor_of("foreign") is None
    new = source.replace("t1").token
    assert source.successor_of("t1") == new
    assert source.successor_of("foreign") is None
    source.note_refused("foreign")
    assert source.successor_of("foreign") == new


def test_a_source_names_no_refused_token_as_successor() -> None:
    source = as_source(Numbered())
    source.token()
    source.replace("t1")
    source.note_refused("t2")
    assert source.successor_of("t1") is None
    assert source.peek() is None
    assert source.current_unless("t1") is None


# --- a broker object


def test_a_broker_puts_its_token_in_place_of_a_refused_one_alone() -> None:
    broker = Broker()
    source = BrokerSource(broker)
    assert source.successor_of("b1") is None
    source.note_refused("b1")
    assert source.successor_of("b1") is None, "it holds no other"
    assert source.current_unless(None) is None
    broker.access_token = "Bearer b2"
    assert source.successor_of("b1") == AccessToken("b2", source.token().expires_at)
    assert source.successor_of("b0") is None


@pytest.mark.parametrize("kind", ["source", "broker"])
def test_what_was_refused_is_remembered_within_bounds(kind: str) -> None:
    broker = Broker()
    broker.access_token = "Bearer current"
    source = BrokerSource(broker) if kind == "broker" else as_source(Numbered())
    source.token()
    for number in range(100):
        source.note_refused(f"dead{number}")
    assert source.successor_of("dead0") is None
    assert source.successor_of("dead99") is not None
