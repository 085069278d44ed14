"""The pytest plugin: two fixtures. Every run of pytest imports it, so it imports next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

try:
    import pytest
except ImportError as error:
    raise ImportError("a fixture of kis_retry needs pytest: pip install 'kis-retry[testing]'") from error

if TYPE_CHECKING:
    from .gateway import KisGateway

__all__ = ["kis_gateway", "kis_gateway_env"]


@pytest.fixture
def kis_gateway() -> Iterator[KisGateway]:
    """A KIS to test a batch with, on loopback at `.url`: `.credentials`, `.expire()`, `.counts` and faults."""
    from .gateway import KisGateway

    with KisGateway() as gateway:
        yield gateway


@pytest.fixture
def kis_gateway_env(kis_gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> KisGateway:
    """
    A running gateway that `from_env()` finds, for a batch that reads its credentials from the environment.

    It is the `kis_gateway` of the same test. KIS_APP_KEY, KIS_APP_SECRET, KIS_ACCOUNT_NO and KIS_BASE_URL are its own,
    tokens are kept in memory, and calls are not paced (KIS_RATE_LIMIT=0); what else is set stays. No `.env` file
    changes any of them. After the test everything is as it was.
    """
    credentials = kis_gateway.credentials
    for name, value in {
        "APP_KEY": credentials.app_key,
        "APP_SECRET": credentials.app_secret,
        "ACCOUNT_NO": credentials.account or "",
        "BASE_URL": kis_gateway.url,
        "PAPER": "false",
        "TOKEN_STORE": "memory",
        "RATE_LIMIT": "0",
    }.items():
        monkeypatch.setenv(f"KIS_{name}", value)
    monkeypatch.setenv("no_proxy", "127.0.0.1", prepend=",")  # no proxy reaches this machine's loopback
    return kis_gateway
