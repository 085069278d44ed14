"""Which token of another process is taken over from the store, and how long its lock is waited for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock, tokens_on
from kis_retry import RetryPolicy, TokenIssueError, TokenIssueLimited
from kis_retry.stores.entry import StoreEntry
from kis_retry.tokens.adoption import TokenAdoption
from kis_retry.tokens.freshness import CachedToken
from kis_retry.tokens.memory import TokenMemory
from refreshes import Notebook, Scripted, copied, token_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW, MARGIN = 1_500.0, 100.0
LIMITED = TokenIssueLimited("once a minute", code="EGW00133", retryable=True)


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock(NOW)) as clock:
        yield clock


@pytest.fixture
def memory(clock: FakeClock) -> TokenMemory:
    return TokenMemory()


@pytest.fixture
def store() -> Notebook:
    return Notebook()


@pytest.fixture
def issuer() -> Scripted:
    return Scripted()


@pytest.fixture
def adoption(memory: TokenMemory, store: Notebook, issuer: Scripted) -> TokenAdoption:
    entry, policy = StoreEntry(store, "key"), RetryPolicy(issue_timeout=7, refresh_margin=MARGIN)
    return TokenAdoption(memory, lambda: entry, lambda: policy, issuer)


def test_a_live_holder_of_the_lock_is_done_two_seconds_after_its_request(adoption: TokenAdoption) -> None:
    assert adoption.patience == 9.0


def test_a_holder_that_died_blocks_for_two_requests_and_ten_seconds(adoption: TokenAdoption, store: Notebook) -> None:
    with adoption.lock(3.5) as held:
        assert held is True
    assert store.locks == [(3.5, 24.0)]
    store.held = False
    with adoption.lock(0) as held:
        assert held is False


def test_the_value_in_the_store_is_empty_where_there_is_none(adoption: TokenAdoption, store: Notebook) -> None:
    assert adoption.value() == ""
    store.token = token_until(2_000)
    assert adoption.value() == "m1"


def test_what_kis_issued_is_shared(adoption: TokenAdoption, store: Notebook) -> None:
    token = token_until(2_000)
    adoption.share(token)
    assert store.saved == [token]


@pytest.mark.parametrize(("expires", "taken"), [(NOW + 1, True), (NOW, False), (NOW - 1, False)])
@pytest.mark.parametrize("before", [None, "m1"], ids=["at first", "in the lock"])
def test_a_token_that_was_there_is_taken_while_it_lives(
    before: str | None, expires: float, taken: bool, adoption: TokenAdoption, store: Notebook, memory: TokenMemory
) -> None:
    store.token = token_until(expires)
    found = adoption.adopt(None, copied(before) if before else None)
    assert found == ((store.token, "store") if taken else None)
    assert memory.cached == (CachedToken(store.token, expires - MARGIN, expires) if taken else None)


@pytest.mark.parametrize("before", ["", "a-lesser-value", "x-greater-value"])
def test_a_token_that_appeared_was_just_issued_and_lives_until_kis_refuses_it(
    before: str, adoption: TokenAdoption, store: Notebook, memory: TokenMemory
) -> None:
    store.token = token_until(NOW - 1)
    assert adoption.adopt(None, before) == (store.token, "store")
    assert memory.cached == CachedToken(store.token, math.inf, math.inf)


def test_from_an_empty_store_nothing_is_taken(adoption: TokenAdoption, memory: TokenMemory) -> None:
    assert adoption.adopt(None) is None
    assert adoption.adopt("m1", "") is None
    assert adoption.adopt_doubtful("m1", LIMITED) is None
    assert adoption.adopt_later(CachedToken(token_until(2_000), 1_900, 2_000)) is None
    assert not adoption.is_there("m1", "")
    assert memory.cached is None


@pytest.mark.parametrize(("rejected", "taken"), [("m1", False), ("m0", True), ("m2", True), (None, True)])
def test_the_refused_token_is_not_taken(
    rejected: str | None, taken: bool, adoption: TokenAdoption, store: Notebook
) -> None:
    store.token = token_until(2_000)
    rejected = copied(rejected) if rejected else None
    assert (adoption.adopt(rejected) is not None) is taken
    assert (adoption.adopt_doubtful(rejected, LIMITED) is not None) is taken
    assert adoption.is_there(rejected, "m1") is taken


def test_a_token_that_kis_refused_before_is_not_taken(
    adoption: TokenAdoption, store: Notebook, memory: TokenMemory
) -> None:
    store.token = token_until(2_000)
    memory.note_refused("m1")
    assert adoption.adopt("another", "") is None
    assert adoption.adopt_doubtful("another", LIMITED) is None
    assert adoption.adopt_later(CachedToken(token_until(1_900), 1_800, 1_900)) is None


@pytest.mark.parametrize(
    ("now", "ahead", "taken"),
    [
        (1_500, 499, True),
        (1_500, 500, False),
        (1_500, 501, False),
        (2_500, -501, True),
        (2_500, -500, False),
        (2_500, None, True),
        (1_500, None, True),
    ],
)
def test_where_somebody_just_got_one_the_clock_of_kis_says_whether_it_lives(
    *,
    now: float,
    ahead: float | None,
    taken: bool,
    adoption: TokenAdoption,
    store: Notebook,
    memory: TokenMemory,
    issuer: Scripted,
    clock: FakeClock,
) -> None:
    store.token, clock.now, issuer.clock_ahead = token_until(2_000), now, ahead
    assert adoption.adopt_doubtful("refused", LIMITED) == ((store.token, "store") if taken else None)
    assert (memory.cached is not None) is taken


def test_a_doubtful_token_lives_until_kis_refuses_it(
    adoption: TokenAdoption, store: Notebook, memory: TokenMemory
) -> None:
    store.token = token_until(NOW - 1)
    assert adoption.adopt_doubtful(None, LIMITED) is not None
    assert memory.cached == CachedToken(store.token, math.inf, math.inf)


def test_where_nobody_got_one_a_doubtful_token_is_not_taken(adoption: TokenAdoption, store: Notebook) -> None:
    store.token = token_until(2_000)
    assert adoption.adopt_doubtful(None, TokenIssueError("away", retryable=True)) is None


@pytest.mark.parametrize(("expires", "taken"), [(1_549, False), (1_550, False), (1_551, True)])
def test_ahead_of_the_expiry_a_token_is_taken_that_lives_longer(
    expires: float, taken: bool, adoption: TokenAdoption, store: Notebook, memory: TokenMemory
) -> None:
    store.token = token_until(expires, "later")
    found = adoption.adopt_later(CachedToken(token_until(1_550), 1_450, 1_550))
    assert found == ((store.token, "store") if taken else None)
    assert memory.cached == (CachedToken(store.token, 1_451, 1_551) if taken else None), "it is stale, and renewed next"


def test_another_token_may_be_here_or_in_the_store(adoption: TokenAdoption, store: Notebook, memory: Any) -> None:
    memory.keep(token_until(2_000, "here"), margin=0, issued=True)
    assert adoption.is_there("another", "")
    assert not adoption.is_there("here", "")
    store.token = token_until(2_000, "shared")
    assert adoption.is_there("here", "")
    assert memory.cached.token.value == "shared"
