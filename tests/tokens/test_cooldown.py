"""After an issue that failed for good: who may ask again, and when."""

from __future__ import annotations

import pytest

from kis_retry import TokenIssueError, TokenIssueLimited
from kis_retry.tokens.cooldown import Cooldown

WRONG = TokenIssueError("a wrong secret", code="EGW00105")
AWAY = TokenIssueError("the endpoint is away", retryable=True)
LIMITED = TokenIssueLimited("once a minute", code="EGW00133", retryable=True)


@pytest.fixture
def cooldown() -> Cooldown:
    return Cooldown()


def test_nothing_has_failed_yet(cooldown: Cooldown) -> None:
    assert not cooldown.is_on(0, 60)
    assert not cooldown.take_probe(1_000)
    assert cooldown.failed_at == 0
    told = cooldown.error()
    assert (type(told), str(told), told.retryable) == (TokenIssueError, "no token could be had", True)


def test_it_is_on_for_its_seconds_and_not_a_tick_longer(cooldown: Cooldown) -> None:
    cooldown.begin(WRONG, 100)
    assert cooldown.failed_at == 100
    assert cooldown.is_on(100, 60)
    assert cooldown.is_on(159.999, 60)
    assert not cooldown.is_on(160, 60)


@pytest.mark.parametrize(("now", "on"), [(3, True), (62.75, True), (63, False), (64, False)])
def test_on_a_machine_that_has_just_begun_it_is_on_as_long(now: float, on: bool, cooldown: Cooldown) -> None:
    cooldown.begin(WRONG, 3)
    assert cooldown.is_on(now, 60) is on


def test_of_no_seconds_there_is_none_even_at_that_moment(cooldown: Cooldown) -> None:
    cooldown.begin(WRONG, 100)
    assert not cooldown.is_on(100, 0)


def test_a_token_ends_it(cooldown: Cooldown) -> None:
    cooldown.begin(WRONG, 100)
    cooldown.end()
    assert not cooldown.is_on(100, 60)


@pytest.mark.parametrize("failure", [WRONG, AWAY, LIMITED])
def test_everybody_is_told_the_same_with_an_error_of_their_own(cooldown: Cooldown, failure: TokenIssueError) -> None:
    cooldown.begin(failure, 100)
    first, second = cooldown.error(), cooldown.error()
    assert first is not second
    assert first is not failure
    for told in (first, second):
        assert (type(told), str(told), told.code) == (type(failure), str(failure), failure.code)
        assert told.retryable is failure.retryable
        assert told.__traceback__ is None


def test_a_wrong_secret_stays_wrong_and_nobody_looks(cooldown: Cooldown) -> None:
    cooldown.begin(WRONG, 100)
    assert not cooldown.take_probe(100_000)


@pytest.mark.parametrize(("failure", "pause"), [(AWAY, 1), (LIMITED, 10)])
def test_one_caller_looks_now_and_then_whether_the_endpoint_is_back(
    cooldown: Cooldown, failure: TokenIssueError, pause: float
) -> None:
    cooldown.begin(failure, 100)
    assert not cooldown.take_probe(100 + pause - 0.001)
    assert cooldown.take_probe(100 + pause)
    assert not cooldown.take_probe(100 + pause), "it is that caller's turn"
    assert not cooldown.take_probe(100 + 2 * pause - 0.001)
    assert cooldown.take_probe(100 + 2 * pause)


def test_a_look_that_finds_it_away_changes_nothing(cooldown: Cooldown) -> None:
    cooldown.begin(AWAY, 100)
    cooldown.probed(TokenIssueError("away still", retryable=True), 130)
    assert (cooldown.failed_at, str(cooldown.error())) == (100, str(AWAY))


def test_a_look_that_finds_the_secret_wrong_begins_it_anew(cooldown: Cooldown) -> None:
    cooldown.begin(AWAY, 100)
    cooldown.probed(WRONG, 130)
    assert (cooldown.failed_at, str(cooldown.error())) == (130, str(WRONG))
    assert not cooldown.take_probe(100_000)


def test_a_look_that_finds_it_back_ends_it_where_waiting_for_the_minute_helps(cooldown: Cooldown) -> None:
    cooldown.begin(AWAY, 100)
    cooldown.probed(LIMITED, 130)
    assert not cooldown.is_on(130, 60)


def test_where_the_minute_was_waited_for_in_vain_another_refusal_ends_nothing(cooldown: Cooldown) -> None:
    cooldown.begin(LIMITED, 100)
    cooldown.probed(LIMITED, 130)
    assert cooldown.is_on(130, 60)


def test_a_failure_that_cannot_be_copied_is_told_by_its_type(cooldown: Cooldown) -> None:
    class PickyError(TokenIssueError):
        def __init__(self, *, status: int) -> None:
            super().__init__(f"status {status}")

    cooldown.begin(PickyError(status=5), 100)
    told = cooldown.error()
    assert (type(told), str(told)) == (TokenIssueError, "what was waited for failed (PickyError)")
