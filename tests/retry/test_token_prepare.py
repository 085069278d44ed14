"""What is done between a refusal and the next attempt: whose token is asked for, where it is put, and what is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from calls import KnownTokens, refreshing, refuse, seen
from causes import Keeper, Source, of_keeper, stops, unplaced
from clocks import FakeClock
from kis_retry import AccessToken, RefreshEvent
from kis_retry.retry.accounts import was_refused_there
from kis_retry.token import fingerprint
from kis_retry.tokens.source import Origin, Replacement
from sources import FAR, NumberedTokens


def by_threads(cause: Any) -> bool:
    return bool(cause.prepare(0.0, None, None))


def by_tasks(cause: Any) -> bool:
    return bool(asyncio.run(cause.prepare_async(0.0, None, None)))


every_prepare = pytest.mark.parametrize("prepare", [by_threads, by_tasks])


@every_prepare
def test_a_new_token_is_bound_and_told_with_the_attempt_that_is_made_with_it(
    source: Source, now: FakeClock, events: list[RefreshEvent], prepare: Any
) -> None:
    keeper = Keeper()
    cause = of_keeper(source, keeper)
    cause._call.attempt = 3
    cause._call.handed = cause.replaced_with = "t1"
    refused = refuse(cause._call, seen("t1"))
    now.pass_by(2)
    source.before = lambda: now.pass_by(5)
    assert prepare(cause)
    assert (keeper.access_token, cause.used) == ("Bearer t2", "t2")
    assert source.is_dead("t1")
    assert was_refused_there(refused)
    assert (cause._call.handed, cause.replaced_with, cause._adopted) == (None, None, 0)
    assert cause._attempt_began == 10.0
    (event,) = events
    assert (event.name, event.token, event.previous_token) == ("token_refreshed", fingerprint("t2"), fingerprint("t1"))
    assert (event.attempt, event.elapsed, event.source, event.expires_at) == (4, 5.0, "issued", FAR)


@every_prepare
@pytest.mark.parametrize(
    ("origin", "new", "adopted", "after"),
    [
        ("store", False, 0, 1),
        ("store", False, 2, 3),
        ("store", False, 3, 3),
        ("store", True, 0, 0),
        ("issued", False, 0, 0),
    ],
)
def test_a_token_that_may_be_as_dead_is_counted_up_to_three(
    source: Source, now: FakeClock, prepare: Any, origin: Origin, new: bool, adopted: int, after: int
) -> None:
    source.origin, source.new = origin, new
    cause = of_keeper(source)
    cause._adopted = adopted
    refuse(cause._call, seen("t1"))
    now.pass_by(4)
    assert prepare(cause)
    assert cause._adopted == after
    assert source.since == ([] if origin == "issued" else [3.0]), "when the attempt began that was refused"


@every_prepare
def test_a_refresh_that_fails_is_told_with_its_type_its_code_and_its_seconds(
    source: Source, now: FakeClock, events: list[RefreshEvent], prepare: Any
) -> None:
    class OwnError(Exception):
        code = "EGW00103"

    def fail() -> None:
        now.pass_by(5)
        raise OwnError

    source.before = fail
    cause = of_keeper(source)
    refuse(cause._call, seen("t1"))
    assert not prepare(cause)
    (event,) = events
    assert (event.name, event.error, event.msg_cd, event.elapsed) == (
        "token_refresh_failed",
        "OwnError",
        "EGW00103",
        5.0,
    )


@every_prepare
def test_a_token_that_the_source_has_in_memory_is_taken_and_nothing_is_issued(
    source: Source, events: list[RefreshEvent], prepare: Any
) -> None:
    source.before = lambda: pytest.fail("it was asked")
    source.new = False
    keeper = Keeper("Bearer u0")
    cause = of_keeper(source, keeper)
    refuse(cause._call, seen("u0"))
    assert prepare(cause)
    assert (keeper.access_token, cause._adopted, source.is_dead("u0")) == ("Bearer t1", 1, True)
    assert [(event.name, event.source) for event in events] == [("token_adopted", "memory")]


@every_prepare
@pytest.mark.parametrize(
    ("holds", "issued"),
    [
        ("Bearer renewed", False),
        ("renewed", False),
        ("Bearer t1", True),
        ("Bearer used", True),
        ("", True),
        ("Bearer dead", True),
    ],
)
def test_a_place_that_somebody_filled_anew_in_the_attempt_is_taken(
    source: Source, events: list[RefreshEvent], prepare: Any, holds: str, issued: bool
) -> None:
    keeper = Keeper("Bearer used")
    cause = of_keeper(source, keeper)
    cause.used = "used"
    refuse(cause._call, seen("t1"))
    source.note_refused("t1")
    source.note_refused("dead")
    keeper.access_token = holds
    assert prepare(cause)
    assert ("t2" if issued else "renewed") in keeper.access_token
    (event,) = events
    assert (event.source, event.expires_at) == (("issued", FAR) if issued else ("memory", None))


@every_prepare
def test_of_an_unknown_refused_token_what_the_place_holds_is_not_believed(source: Source, prepare: Any) -> None:
    keeper = Keeper("Bearer other")
    cause = of_keeper(source, keeper)
    cause.used = None
    source.note_refused("t1")
    assert prepare(cause)
    assert "t1" in keeper.access_token, "that of the source's own"


@every_prepare
def test_the_same_token_again_is_not_noted_as_refused(prepare: Any) -> None:
    class Same(KnownTokens):
        def refresh(self, rejected: AccessToken) -> AccessToken:
            return self.token()

    source = Source(Same())
    source.token()
    cause = of_keeper(source)
    cause.used = "t1"
    assert prepare(cause)
    assert cause.used == "t1"
    assert not source.is_dead("t1")


@every_prepare
@pytest.mark.parametrize("sees", [True, False])
def test_a_place_that_cannot_be_filled_ends_it_unless_the_wire_carries_the_token(
    source: Source, now: FakeClock, events: list[RefreshEvent], prepare: Any, sees: bool
) -> None:
    def bind(token: AccessToken) -> None:
        now.pass_by(5)
        raise LookupError

    cause = refreshing(source, bind=bind).token_expired
    cause.used = "t1"
    if sees:
        refuse(cause._call, seen("t1"))
    assert prepare(cause) is sees
    failed = events[0]
    assert (failed.name, failed.error, failed.elapsed) == ("token_refresh_failed", "bind:LookupError", 5.0)
    assert [event.name for event in events[1:]] == (["token_refreshed"] if sees else [])


@every_prepare
def test_an_attribute_that_cannot_be_set_is_told_without_the_word_bind(
    source: Source, events: list[RefreshEvent], prepare: Any
) -> None:
    class Fixed:
        @property
        def access_token(self) -> str:
            return "Bearer t1"

        @access_token.setter
        def access_token(self, value: str) -> None:
            raise LookupError

    cause = refreshing(source, Fixed(), function=lambda fixed: None).token_expired
    assert not prepare(cause)
    assert events[0].error == "LookupError"


@every_prepare
def test_without_a_place_the_next_attempt_is_made_with_what_the_source_then_has(source: Source, prepare: Any) -> None:
    cause = unplaced(source)
    cause.used = "t1"
    assert prepare(cause)
    assert cause.used == "t2"


# Tokens of other sources that were refused inside.


class Lender(Source):
    """Another source, which has handed out x1 inside the call."""

    def __init__(self) -> None:
        super().__init__(NumberedTokens("x"))
        self.asked: list[str | None] = []
        self.token()

    def replace(self, rejected: str | None) -> Replacement:
        self.asked.append(rejected)
        return super().replace(rejected)


@every_prepare
@pytest.mark.parametrize("own_too", [True, False])
def test_a_lender_is_asked_and_the_source_only_if_its_own_was_refused_too(
    source: Source, events: list[RefreshEvent], prepare: Any, own_too: bool
) -> None:
    lender, keeper = Lender(), Keeper()
    cause = of_keeper(source, keeper)
    cause._call.attempt = 3
    cause._call.handed_out(lender, "x1")
    refuse(cause._call, seen("x1", key="PSother"))
    if own_too:
        refuse(cause._call, seen("t1", path="/uapi/own"))
    assert not stops(cause)
    assert prepare(cause)
    assert lender.asked == ["x1"]
    assert keeper.access_token == ("Bearer t2" if own_too else "Bearer t1")
    told = [(event.name, event.token, event.previous_token, event.attempt) for event in events]
    expected = [("token_refreshed", fingerprint("x2"), fingerprint("x1"), 4)]
    if own_too:
        expected.append(("token_refreshed", fingerprint("t2"), fingerprint("t1"), 4))
    assert told == expected
    assert cause.lent_and_refused() == []


@pytest.mark.parametrize("unseen", [True, False])
def test_a_call_without_a_place_is_made_again_with_what_the_lender_then_hands_out(source: Source, unseen: bool) -> None:
    source.hands_out_unseen = unseen
    cause = unplaced(source)
    cause._call.handed_out(lender := Lender(), "x1")
    refuse(cause._call, seen("x1", key="PSother"))
    assert not stops(cause)
    cause.helped(lender)
    assert stops(cause)


@every_prepare
def test_a_lender_that_fails_ends_it(source: Source, prepare: Any) -> None:
    lender, keeper = Lender(), Keeper()
    lender.before = lambda: (_ for _ in ()).throw(LookupError())
    cause = of_keeper(source, keeper)
    cause._call.handed_out(lender, "x1")
    refuse(cause._call, seen("x1", key="PSother"))
    refuse(cause._call, seen("t1", path="/uapi/own"))
    assert not prepare(cause)
    assert keeper.access_token == "Bearer t1"
