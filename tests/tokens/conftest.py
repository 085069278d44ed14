"""A clock that only waiting moves, a gateway on it, and managers as in processes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock
from kis_retry import MemoryTokenStore, RetryPolicy, TokenManager, TokenStore
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clocks import Make


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[KisGateway]:
    """A gateway on that clock."""
    with KisGateway(clock=clock.monotonic) as running:
        yield running


@pytest.fixture
def make(clock: FakeClock, timed: KisGateway) -> Make:
    """Make managers on that clock."""

    def made(store: TokenStore | None = None, **policy: Any) -> TokenManager:
        return TokenManager(
            timed.credentials, store=store or MemoryTokenStore(), policy=RetryPolicy(**policy), clock=clock
        )

    return made
