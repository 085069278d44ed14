"""A client of each kind, for the tests that hold for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients import KINDS, Asking, asking
from kis_retry import Credentials
from kis_retry.testing import KisGateway
from loopback import Loopback


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str, gateway: KisGateway) -> Iterator[Callable[..., Asking]]:
    """Make clients of that kind, for the gateway unless told otherwise; they are closed afterwards."""
    made: list[Asking] = []

    def new(credentials: Credentials | None = None, **options: Any) -> Asking:
        made.append(asking(kind, credentials or gateway.credentials, **options))
        return made[-1]

    yield new
    for each in made:
        each.shut()


@pytest.fixture
def client(make: Callable[..., Asking]) -> Asking:
    """A client of that kind for the gateway."""
    return make()


@pytest.fixture
def host() -> Iterator[Loopback]:
    """A host that answers what the test tells it to."""
    with Loopback() as running:
        yield running


@pytest.fixture
def at_host(make: Callable[..., Asking], host: Loopback) -> Callable[..., Asking]:
    """Make clients of that kind for that host."""

    def new(*, paper: bool = False, **options: Any) -> Asking:
        return make(Credentials("PSappkey0123", "c2VjcmV0c2VjcmV0", base_url=host.url, paper=paper), **options)

    return new
