"""What the tests of the wire share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kis_retry.testing import KisGateway
from senders import issued


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No refresh goes on for much longer than its test."""
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "10")


@pytest.fixture
def impatient(briefly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh that cannot succeed ends soon."""
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "0.5")


@pytest.fixture
def gateway() -> Iterator[KisGateway]:
    """A gateway that has issued a token to a program that asked for it by itself."""
    with KisGateway() as running:
        issued(running)
        yield running
        running.heal()


@pytest.fixture
def other() -> Iterator[KisGateway]:
    """A second one, which has not issued anything yet."""
    with KisGateway() as running:
        yield running
