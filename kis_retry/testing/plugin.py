"""The pytest plugin: the fixture `kis_gateway`. Every run of pytest imports it, so it imports next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

try:
    import pytest
except ImportError as error:
    raise ImportError("the fixture kis_gateway needs pytest: pip install 'kis-retry[testing]'") from error

if TYPE_CHECKING:
    from .gateway import KisGateway

__all__ = ["kis_gateway"]


@pytest.fixture
def kis_gateway() -> Iterator[KisGateway]:
    """A KIS to test a batch with, on loopback at `.url`: `.credentials`, `.expire()`, `.counts` and faults."""
    from .gateway import KisGateway

    with KisGateway() as gateway:
        yield gateway
