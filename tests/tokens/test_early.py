"""Renewing ahead of the expiry: one try, no waiting, and when the next one makes sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock, tokens_on
from kis_retry import RetryPolicy, TokenIssueError
from kis_retry.stores.entry import StoreEntry
from kis_retry.tokens.adoption import TokenAdoption
from kis_retry.tokens.early import EarlyRenewal
from kis_retry.tokens.memory import TokenMemory
from kis_retry.tokens.request import TokenRequest
from refreshes import Notebook, Scripted, token_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_950.0
OLD, NEW = token_until(2_000, "old"), token_until(9_000, "new")


class Renewal:
    """An `EarlyRenewal` of `OLD` and what it is made of, fifty seconds ahead of the expiry."""

    def __init__(self, *outcomes: Any, **policy: Any) -> None:
        entry, bounds = Notebook(OLD), RetryPolicy(issue_timeout=7, **policy)
        self.store, self.issuer, self.memory = entry, Scripted(*outcomes), TokenMemory()
        shared = StoreEntry(entry, "key")
        adoption = TokenAdoption(self.memory, lambda: shared, lambda: bounds, self.issuer)
        request = TokenRequest(self.memory, adoption, self.issuer, lambda: bounds, None)
        self.early = EarlyRenewal(self.memory, adoption, request, lambda: bounds)
        self.memory.keep(OLD, margin=600, issued=False)

    def renew(self) -> Any:
        assert self.memory.cached is not None
        return self.early.renew(self.memory.cached)

    def may_begin_from(self) -> float | None:
        """The first of these moments at which another try makes sense."""
        moments = (-1e9, NOW + 0.999, NOW + 1, NOW + 1.001, NOW + 59.999, NOW + 60)
        return next((moment for moment in moments if self.early.may_begin(moment)), None)


@pytest.fixture(autouse=True)
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock(NOW)) as clock:
        yield clock


def test_kis_is_asked_once_for_as_long_as_a_request_may_take_and_nobodys_lock_is_waited_for() -> None:
    renewal = Renewal(NEW)
    assert renewal.renew() == NEW
    assert renewal.issuer.timeouts == [7]
    assert renewal.store.locks == [(0, 24)]
    assert renewal.store.saved == [NEW]
    assert renewal.may_begin_from() == -1e9, "whatever the clock shows"


def test_of_a_token_that_is_not_the_current_one_any_more_nothing_is_renewed() -> None:
    renewal = Renewal()
    stale = renewal.memory.cached
    renewal.memory.keep(NEW, margin=600, issued=True)
    assert stale is not None
    assert renewal.early.renew(stale) is None
    assert renewal.store.locks == []


@pytest.mark.parametrize("held", [True, False])
def test_what_another_process_renewed_is_adopted(held: bool) -> None:
    renewal = Renewal()
    renewal.store.token, renewal.store.held = NEW, held
    assert renewal.renew() is None
    assert renewal.memory.cached is not None
    assert renewal.memory.cached.token == NEW
    assert renewal.issuer.timeouts == []
    assert renewal.may_begin_from() == -1e9


def test_while_another_process_renews_it_is_looked_again_after_a_second() -> None:
    renewal = Renewal()
    renewal.store.held = False
    assert renewal.renew() is None
    assert renewal.issuer.timeouts == []
    assert renewal.may_begin_from() == NOW + 1


@pytest.mark.parametrize(("cooldown", "pause"), [(60, 60), (1.001, 1.001), (1, 1), (0, 1)])
def test_after_a_failure_the_next_try_is_a_cool_down_later_and_a_second_at_least(cooldown: float, pause: float) -> None:
    renewal = Renewal(TokenIssueError("no"), issue_cooldown=cooldown)
    with pytest.raises(TokenIssueError, match="no"):
        renewal.renew()
    assert renewal.may_begin_from() == NOW + pause
    assert renewal.memory.cached is not None
    assert renewal.memory.cached.token == OLD
