"""What is learned of a function whose refusals seem not to depend on the token that it is given."""

from __future__ import annotations

import pytest

from clocks import FakeClock
from kis_retry.retry.history import TokenHistory


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of a machine that has just begun."""
    made = FakeClock(0.0)
    monkeypatch.setattr("kis_retry.retry.history.time", made)
    return made


def test_from_two_strikes_in_a_row_on_it_is_hopeless(now: FakeClock) -> None:
    history = TokenHistory()
    hopeless = [history.is_hopeless()]
    for _ in range(3):
        history.note_useless("t", now.now)
        hopeless.append(history.is_hopeless())
        now.pass_by(1)
    assert hopeless == [False, False, True, True]


def test_attempts_that_began_before_the_last_strike_count_as_one_with_it(now: FakeClock) -> None:
    """As those of threads that meet one expiry together."""
    history = TokenHistory()
    now.pass_by(5)
    history.note_useless("t", 4.0)
    now.pass_by(1)
    history.note_useless("t", 4.5)
    assert history.strikes == 1
    history.note_useless("t", 6.0)
    assert history.strikes == 2, "it began when the last one was known"


def test_the_token_of_the_last_strike_is_the_useless_one(now: FakeClock) -> None:
    history = TokenHistory()
    assert not history.was_useless(None)
    for number in (1, 2):
        history.note_useless(f"t{number}", now.now)
    assert [history.was_useless(f"t{number}") for number in (1, 2, 3)] == [False, True, False]
    assert not history.was_useless(None)


def test_a_call_that_goes_well_ends_the_doubt(now: FakeClock) -> None:
    history = TokenHistory()
    for _ in range(2):
        history.note_useless("t", now.now)
    history.forget_useless()
    assert (history.strikes, history.is_hopeless(), history.was_useless("t")) == (0, False, False)
    history.note_useless("t", now.now)
    assert not history.is_hopeless()
