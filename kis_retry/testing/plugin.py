"""The pytest plugin: two fixtures and an option. Every run of pytest imports it, so it imports next to nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from ..credentials import Credentials
    from .gateway import KisGateway

__all__ = ["kis_gateway", "kis_gateway_env"]

_STAND_IN = {
    "KIS_APP_KEY": "PSstand-in-for-tests",
    "KIS_APP_SECRET": "stand-in-for-tests",
    "KIS_ACCOUNT_NO": "12345678-01",
    "KIS_TOKEN_STORE": "memory",
    "KIS_RATE_LIMIT": "0",
}
_last = {"port": 0}  # where a client that was made in an earlier test looks
_former: deque[tuple[Credentials, str]] = deque(maxlen=64)  # keys and last token of earlier tests, which may be kept


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("kis_retry_credentials", '"stand-in": no test has real credentials, or reaches KIS', default="")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Put stand-in credentials into the environment before any module of the user's is imported."""
    wish = early_config.getini("kis_retry_credentials")
    if wish not in {"", "stand-in"}:
        raise pytest.UsageError(f'kis_retry_credentials = {wish!r} is not usable: it takes "stand-in"')
    if wish:
        from .hosts import divert

        patch, closed = pytest.MonkeyPatch(), ExitStack()
        closed.enter_context(divert(None))
        early_config.add_cleanup(closed.close)
        early_config.add_cleanup(patch.undo)
        patch.delenv("KIS_BASE_URL", raising=False)
        for name, value in _STAND_IN.items():
            patch.setenv(name, value)


@pytest.fixture
def kis_gateway() -> Iterator[KisGateway]:
    """Run a KIS to test a batch with, on loopback at `.url`: `.credentials`, `.expire()`, `.counts` and faults."""
    from .gateway import KisGateway

    with ExitStack() as stack:
        try:
            gateway = stack.enter_context(KisGateway(port=_last["port"]))
        except OSError:  # somebody else has that port by now
            gateway = stack.enter_context(KisGateway())
        _last["port"] = int(gateway.url.rpartition(":")[2])
        yield gateway


@pytest.fixture
def kis_gateway_env(kis_gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[KisGateway]:
    """
    Run a gateway in the place of KIS, for a batch that reads its credentials from the environment.

    It is the `kis_gateway` of the same test. The environment has its key, secret, account and URL; tokens are kept in
    memory, and calls are not paced. What was made before, from other credentials, is led to it too, whatever key it
    has: nothing of this process reaches KIS's hosts, and nobody has a token or a lost order from before the test.
    """
    from .hosts import divert

    own = kis_gateway.credentials
    values = {"KIS_APP_KEY": own.app_key, "KIS_APP_SECRET": own.app_secret, "KIS_PAPER": "false"}
    for name, value in {**_STAND_IN, **values, "KIS_BASE_URL": kis_gateway.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1", prepend=",")  # no proxy reaches this machine's loopback
    kis_gateway.learns_keys = True
    with _nothing_from_before(kis_gateway) as hosts, divert(kis_gateway.url, hosts):
        yield kis_gateway
    _former.append((own, str(kis_gateway.current_token)))


@contextmanager
def _nothing_from_before(gateway: KisGateway) -> Iterator[frozenset[str]]:
    """
    Have this process begin with no token and no lost order, and share nothing outside of the test.

    The keys of what was made before are good; the hosts are those that it was led to, a proxy say, in the place of KIS.
    """
    from ..stores.base import MemoryTokenStore
    from ..tokens.manager import TokenManager, every_manager
    from ..wire.orders import LOST, LostOrders

    store, managers, hosts = MemoryTokenStore(), every_manager(), set[str]()
    before = [(each, dict(vars(each))) for each in (LOST, *managers)]
    LostOrders.__init__(LOST)
    for keys in [*(keys for keys, _ in _former), *(manager.credentials for manager in managers)]:
        gateway.accept(keys.app_key, keys.app_secret)
        hosts.add(urlsplit(keys.base_url).hostname or "")
    for manager in managers:
        TokenManager.__init__(manager, manager.credentials, store=store, policy=manager.policy)
        for _, token in _former:
            manager.note_refused(token)
    try:
        yield frozenset(hosts - {"127.0.0.1", "localhost", "::1"})  # where another gateway is
    finally:
        for each, state in before:
            vars(each).clear()
            vars(each).update(state)
