"""When a refresh that does not end is waited for no more, and the next who asks begins anew."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kis_retry import Credentials, MemoryTokenStore, RetryPolicy, TokenIssueError, TokenManager
from kis_retry.tokens.single_flight import StillUnderWayError
from patience import PATIENCE


@pytest.mark.parametrize(("seconds", "given_up"), [(0.5, False), (9.5, False), (10.0, True), (10.5, True)])
def test_a_refresh_is_given_up_once_it_has_had_all_its_time(
    seconds: float, given_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for another one before has not waited for this one as long."""
    policy = RetryPolicy(issue_wait=10)
    manager = TokenManager(Credentials("key", "secret"), store=MemoryTokenStore(), policy=policy)
    flights = manager._refresher._flights
    over = threading.Event()
    under_way, _ = flights.begin("another token", lambda: over.wait(PATIENCE))

    waited: list[float] = []

    def wait_in_vain(*_: Any, **options: Any) -> None:
        waited.append(options["seconds"])
        raise StillUnderWayError(under_way, seconds)

    monkeypatch.setattr(flights, "run", wait_in_vain)
    with pytest.raises(TokenIssueError, match="no token could be had in 10 seconds"):
        manager.token()
    waited_for = flights.busy
    over.set()
    assert 10 < waited[0] < 11, "as long as it may take, and a moment to say how it ended"
    assert waited_for is not given_up
    assert (manager._memory.cooldown.failure is not None) is given_up
