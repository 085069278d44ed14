"""What a process knows of its tokens: each judgement on both sides of its edge, and for values in any order."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import pytest

from clocks import FakeClock, tokens_on
from kis_retry import TokenIssueError
from kis_retry.tokens.freshness import CachedToken
from kis_retry.tokens.memory import TokenMemory
from refreshes import copied, token_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW, EXPIRES = 1_500.0, 2_000.0
OTHERS = ["a-lesser-value", "x-greater-value"]


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock(NOW)) as clock:
        yield clock


@pytest.fixture
def memory(clock: FakeClock) -> TokenMemory:
    """It holds m1, which dies at 2,000."""
    memory = TokenMemory()
    memory.keep(token_until(EXPIRES), margin=100, issued=False)
    return memory


def test_at_first_nothing_is_known() -> None:
    memory = TokenMemory()
    assert memory.cached is None
    assert memory.current_unless(None) is None
    assert memory.issued_at == -math.inf, "not even on a machine whose clock has just begun"
    assert memory.issued_value is None
    assert memory.issued_again is False
    for judge in (memory.issued, memory.has_refused, memory.is_dead):
        assert not judge("m1")


@pytest.mark.parametrize(("now", "alive"), [(1_999.75, True), (2_000, False), (2_000.25, False)])
def test_the_current_token_is_alive_up_to_its_expiry(
    now: float, alive: bool, memory: TokenMemory, clock: FakeClock
) -> None:
    clock.now = now
    token = token_until(EXPIRES)
    for other in (None, *OTHERS):
        assert memory.current_unless(other) == (token if alive else None)
    assert memory.current_unless(copied("m1")) is None
    assert memory.is_dead(copied("m1")) is not alive
    assert memory.successor_of("m1") is None
    memory.note_refused("refused")
    assert memory.successor_of("refused") == (token if alive else None)


@pytest.mark.parametrize("earlier", OTHERS)
def test_an_earlier_token_is_dead_and_the_current_one_its_successor(
    earlier: str, memory: TokenMemory, clock: FakeClock
) -> None:
    memory.keep(token_until(EXPIRES + 1, earlier), margin=100, issued=True)
    memory.keep(token_until(EXPIRES), margin=100, issued=True)
    assert memory.issued(earlier)
    assert memory.is_dead(earlier)
    assert not memory.is_dead("m1")
    assert memory.successor_of(earlier) == token_until(EXPIRES)
    assert not memory.has_refused(earlier)


@pytest.mark.parametrize("other", OTHERS)
def test_a_refusal_of_another_token_leaves_the_current_one_alone(other: str, memory: TokenMemory) -> None:
    memory.note_refused(other)
    assert memory.has_refused(other)
    assert memory.is_dead(other)
    assert memory.cached == CachedToken(token_until(EXPIRES), 1_900, EXPIRES)


def test_a_refused_token_counts_as_expired_whatever_its_stamp_says(memory: TokenMemory) -> None:
    memory.note_refused(copied("m1"))
    assert memory.is_dead("m1")
    assert memory.current_unless(None) is None


@pytest.mark.parametrize(("since", "new"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
def test_a_token_is_new_that_kis_issued_since(since: float, new: bool, memory: TokenMemory) -> None:
    memory.note_issued(token_until(EXPIRES, "m2"))
    assert memory.is_new(copied("m2"), since) is new
    for other in ("m1", "m3"):
        assert not memory.is_new(other, since)


def test_what_kis_issues_is_refused_no_more_and_known_where_it_was_here_before(
    memory: TokenMemory, clock: FakeClock
) -> None:
    memory.note_refused("m1")
    clock.now = 1_600
    memory.note_issued(token_until(EXPIRES))
    assert not memory.has_refused("m1")
    assert (memory.issued_at, memory.issued_value, memory.issued_again) == (1_600, "m1", True)
    memory.note_issued(token_until(EXPIRES, "m2"))
    assert (memory.issued_value, memory.issued_again) == ("m2", False)


def test_a_token_ends_the_cool_down(memory: TokenMemory) -> None:
    memory.cooldown.begin(TokenIssueError("no"), NOW)
    memory.keep(token_until(EXPIRES), margin=100, issued=False)
    assert not memory.cooldown.is_on(NOW, 60)


@pytest.mark.parametrize(
    ("expires", "issued", "warned"),
    [(EXPIRES, True, False), (1_550, True, False), (NOW, True, True), (NOW, False, False), (EXPIRES, False, False)],
    ids=["good", "inside the margin", "dead on arrival", "dead in the store", "good in the store"],
)
def test_a_clock_that_is_ahead_is_warned_of_where_kis_just_issued_what_looks_dead(
    *, expires: float, issued: bool, warned: bool, memory: TokenMemory, caplog: pytest.LogCaptureFixture
) -> None:
    token = token_until(expires, "m2")
    memory.keep(token, margin=100, issued=issued)
    said = f"kis_retry.clock_ahead token={token.fingerprint} expires_at=1970-01-01T00:25:00+00:00"
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, said)] * warned


def test_what_was_revoked_is_forgotten_and_never_taken_again(memory: TokenMemory) -> None:
    memory.forget(token_until(EXPIRES))
    assert memory.cached is None
    assert memory.has_refused("m1")
    assert memory.is_dead("m1")
