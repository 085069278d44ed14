"""
What the tests with real packages share. `KIS_RETRY_REAL` names them: "pykis==0.7.0 kis-wrapper==0.3.0".

Without it nothing here is collected; with it, another version than the one installed fails the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import pytest

from kis_retry.testing import KisGateway
from kis_retry.testing.hosts import divert
from packages import HERE, PINS


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


_missing = [f"{name}=={wanted}" for name, wanted in PINS.items() if wanted and _installed(name) != wanted]
if _missing:
    raise pytest.UsageError(f"KIS_RETRY_REAL names {', '.join(_missing)}, which is not what is installed")
EXAMPLES = ("korea-investment-stock", "mojito2")
"""Packages with an example of their own."""

collect_ignore = [
    name
    for name, is_here in (
        ("test_agents.py", "elastic-apm" in PINS),
        ("test_examples.py", any(name in PINS for name in EXAMPLES)),
        ("test_packages.py", bool(HERE)),
    )
    if not is_here
]


@pytest.fixture(autouse=True)
def no_thread_left() -> None:
    """Threads of other people's packages are theirs."""


@pytest.fixture(params=[500, 200])
def gateway(request: pytest.FixtureRequest) -> Iterator[KisGateway]:
    """A gateway in the place of KIS that takes a moment for each answer, and refuses with HTTP 500 or 200."""
    with KisGateway(expired_status=request.param, latency=0.002) as running, divert(running.url):
        yield running
