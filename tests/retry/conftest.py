"""What the tests of a dead token share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calls import KnownTokens
from causes import Source

if TYPE_CHECKING:
    from clocks import FakeClock


@pytest.fixture
def now(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of a machine that has just begun."""
    for place in ("token_expired", "history", "self_refresh"):
        monkeypatch.setattr(f"kis_retry.retry.{place}.time", clock)
    clock.now = 3.0
    return clock


@pytest.fixture
def source() -> Source:
    """It has handed out t1."""
    made = Source(KnownTokens())
    made.token()
    return made
