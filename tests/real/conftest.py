"""
What the tests with real packages share. `KIS_RETRY_REAL` names them: "pykis==0.7.0 kis-wrapper==0.3.0".

Without it nothing here is collected; with it, another version than the one installed fails the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import pytest

from kis_retry.testing import KisGateway
from kis_retry.testing.hosts import divert

REAL = os.environ.get("KIS_RETRY_REAL", "").split()


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


_pins = [pin.partition("==") for pin in REAL if "==" in pin]
_missing = [f"{name}=={wanted}" for name, _, wanted in _pins if _installed(name) != wanted]
if _missing:
    raise pytest.UsageError(f"KIS_RETRY_REAL names {', '.join(_missing)}, which is not what is installed")
if not REAL:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def no_thread_left() -> None:
    """Threads of other people's packages are theirs."""


@pytest.fixture(params=[500, 200])
def gateway(request: pytest.FixtureRequest) -> Iterator[KisGateway]:
    """A gateway in the place of KIS that takes a moment for each answer, and refuses with HTTP 500 or 200."""
    with KisGateway(expired_status=request.param, latency=0.002) as running, divert(running.server):
        yield running


@pytest.fixture
def failing(gateway: KisGateway) -> KisGateway:
    """The same, for tests that have no need of both statuses."""
    return gateway
