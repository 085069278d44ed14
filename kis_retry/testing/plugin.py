"""The pytest plugin: two fixtures and an option. Every run of pytest imports it, so it imports next to nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

try:
    import pytest
except ImportError as error:
    raise ImportError("a fixture of kis_retry needs pytest: pip install 'kis-retry[testing]'") from error

if TYPE_CHECKING:
    from ..tokens.manager import TokenManager
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
_keys: list[tuple[str, str]] = []  # of the gateways of earlier tests, which modules may have kept
_tokens: deque[str] = deque(maxlen=32)  # of earlier tests


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

    try:
        gateway = KisGateway(port=_last["port"])
        gateway.__enter__()
    except OSError:  # somebody else has that port by now
        gateway = KisGateway()
        gateway.__enter__()
    with closing(gateway):
        _last["port"] = int(gateway.url.rpartition(":")[2])
        yield gateway


@pytest.fixture
def kis_gateway_env(kis_gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[KisGateway]:
    """
    Run a gateway in the place of KIS, for a batch that reads its credentials from the environment.

    It is the `kis_gateway` of the same test. KIS_APP_KEY, KIS_APP_SECRET, KIS_ACCOUNT_NO and KIS_BASE_URL are its own,
    tokens are kept in memory, and calls are not paced (KIS_RATE_LIMIT=0); what else is set stays. No `.env` file
    changes any of them. What was made before, from other credentials, is led to it too, whatever key it has: nothing
    of this process reaches KIS's hosts, and nobody has a token or a lost order from before the
    test. After it all is as it was.
    """
    from .hosts import divert

    credentials = kis_gateway.credentials
    for former in _keys:
        kis_gateway.accept(*former)
    _keys.append((credentials.app_key, credentials.app_secret))
    own = {"KIS_APP_KEY": credentials.app_key, "KIS_APP_SECRET": credentials.app_secret, "KIS_PAPER": "false"}
    for name, value in {**_STAND_IN, **own, "KIS_BASE_URL": kis_gateway.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1", prepend=",")  # no proxy reaches this machine's loopback
    kis_gateway.learns_keys = True
    with _nothing_from_before(), divert(kis_gateway.url):
        yield kis_gateway


@contextmanager
def _nothing_from_before() -> Iterator[None]:
    """Have this process begin with no token and no lost order, and share nothing outside of the test."""
    from ..stores.memory import MemoryTokenStore
    from ..tokens.manager import TokenManager, every_manager
    from ..wire.orders import LOST, LostOrders

    store, managers = MemoryTokenStore(), every_manager()
    before = [(each, dict(vars(each))) for each in (LOST, *managers)]
    dead = [*_tokens, *_in_memory(managers)]
    LostOrders.__init__(LOST)
    for manager in managers:
        TokenManager.__init__(manager, manager.credentials, store=store, policy=manager.policy)
        for value in dead:  # which a client may still send
            manager.note_refused(value)
    try:
        yield
    finally:
        _tokens.extend(_in_memory(every_manager()))
        for each, state in before:
            vars(each).clear()
            vars(each).update(state)


def _in_memory(managers: list[TokenManager]) -> list[str]:
    return [token.value for token in (manager.peek() for manager in managers) if token is not None]
