"""Hooks for the child of a fork: each is called, whatever becomes of the others."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

import pytest
import requests

from children import in_child
from kis_retry import KisClient, MemoryTokenStore, RetryPolicy, TokenManager, forking
from kis_retry.forking import after_fork

if TYPE_CHECKING:
    from kis_retry.testing import KisGateway

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


class Target:
    __hash__ = None  # type: ignore[assignment]  # as a dataclass
    told = 0

    def tell(self) -> None:
        self.told += 1

    def fail(self) -> None:
        raise LookupError


def test_a_hook_is_called_once_in_the_child_and_not_in_the_parent() -> None:
    target = Target()
    after_fork(target, Target.tell)
    assert in_child(lambda: target.told == 1)
    assert target.told == 0


def test_a_hook_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    targets = [Target() for _ in range(20)]
    for number, target in enumerate(targets):
        after_fork(target, Target.fail if number % 2 else Target.tell)

    def told() -> bool:
        warned = [record for record in caplog.records if "fork_hook_failed target=Target" in record.getMessage()]
        return [target.told for target in targets] == [1, 0] * 10 and len(warned) == 10

    assert in_child(told)


def test_a_hook_keeps_nothing_alive() -> None:
    gc.collect()
    before = len(forking._hooks)
    target = Target()
    after_fork(target, Target.tell)
    assert len(forking._hooks) == before + 1
    del target
    assert len(forking._hooks) == before


def test_one_manager_with_a_session_of_another_kind_leaves_the_others_whole(gateway: KisGateway) -> None:
    class Bare:
        """All that is used of a session."""

        def post(self, *_: object, **__: object) -> Any:
            raise AssertionError

    def made(session: Any = None) -> TokenManager:
        policy = RetryPolicy()
        return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy, session=session)

    first, odd, last = made(), made(Bare()), made()
    first.token()
    gateway.expire()
    last.token()

    def remade() -> bool:
        return all(manager._refresher._issuer._session is None for manager in (first, last))

    assert not remade()
    assert in_child(remade)
    assert odd is not None


def test_one_client_with_a_session_that_fails_leaves_the_others_whole(
    gateway: KisGateway, manager: TokenManager
) -> None:
    class Failing:
        @property
        def adapters(self) -> Any:
            raise LookupError

    session: Any = Failing()
    clients = [KisClient(tokens=manager, session=session if number % 2 else None) for number in range(20)]
    sound = clients[::2]
    for client in sound:
        client.fetch_domestic_price("005930")

    def remade() -> bool:
        return all(client._session._session is None for client in sound)

    assert not remade()
    assert in_child(remade)
    for client in sound:
        client.close()


@pytest.mark.parametrize("kind", [KisClient, TokenManager])
def test_a_given_session_has_none_of_its_parents_connections(kind: type, gateway: KisGateway) -> None:
    with requests.Session() as session:
        given, own = (session, None) if kind is TokenManager else (None, session)
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(), session=given)
        with KisClient(tokens=tokens, session=own) as client:
            client.fetch_domestic_price("005930")
            pools = session.adapters["http://"].poolmanager.pools  # type: ignore[attr-defined]  # it is an HTTPAdapter
            assert len(pools) == 1
            assert in_child(lambda: not session.adapters["http://"].poolmanager.pools)  # type: ignore[attr-defined]  # as above
            assert len(pools) == 1


def test_a_session_that_has_no_adapters_is_no_failure(gateway: KisGateway, caplog: pytest.LogCaptureFixture) -> None:
    stand_in: Any = object()
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), session=stand_in)
    client = KisClient(tokens=tokens, session=stand_in)

    def warned() -> list[str]:
        return [record.getMessage() for record in caplog.records if "error=AttributeError" in record.getMessage()]

    assert in_child(lambda: not warned())
    assert client.tokens is tokens
