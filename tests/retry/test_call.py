"""One call: what failed for which cause, whose tokens it meets, which slots it takes, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from answers import EXPIRED, GOOD
from calls import HOST, KnownTokens, Slots, refreshing, refuse, repeating, seen
from clocks import FakeClock
from kis_retry import RefreshEvent
from kis_retry.context import bypassed
from kis_retry.retry.call import call_under_way
from kis_retry.retry.queues import process_queue
from sources import NumberedTokens

LIMITED = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


def unpaced() -> Any:
    """A call that is not repeated after failures that pass by themselves."""
    return refreshing(NumberedTokens("x"))


# The causes.


def test_the_causes_are_those_of_the_decorators_and_made_once() -> None:
    both, token, passing = refreshing(NumberedTokens(), repeats=True), refreshing(NumberedTokens()), repeating()
    assert [cause.name for cause in both.causes] == ["token_expired", "transient"]
    assert [cause.name for cause in token.causes] == ["token_expired"]
    assert [cause.name for cause in passing.causes] == ["transient"]
    assert both.causes is both.causes
    assert both.causes[0] is both.token_expired
    assert passing.token_expired is None


@pytest.mark.parametrize(
    ("value", "failed"),
    [
        (GOOD, False),
        (EXPIRED, True),
        (LIMITED, True),
        (None, False),
        ({"rt_cd": "1", "msg_cd": "KIOK0560"}, False),
    ],
)
def test_a_value_failed_if_kis_says_so_in_it(value: object, failed: bool) -> None:
    assert refreshing(NumberedTokens(), repeats=True).failed_with_value(value) is failed


def test_a_good_value_failed_if_a_refusal_was_passed_over_inside() -> None:
    call = refreshing(NumberedTokens())
    refuse(call, seen())
    assert call.failed_with_value(GOOD)
    call.observe_answered(seen())
    assert not call.failed_with_value(GOOD)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (requests.ConnectionError("dropped"), True),
        (requests.HTTPError(response=SimpleNamespace(json=lambda: EXPIRED)), True),  # type: ignore[arg-type]  # like one
        (ValueError("no such symbol"), False),
    ],
)
def test_an_error_failed_if_one_of_the_causes_knows_it(error: Exception, failed: bool) -> None:
    assert refreshing(NumberedTokens(), repeats=True).failed_with_error(error) is failed


def test_the_code_is_that_of_the_outcome_or_else_of_the_last_answer_that_was_seen() -> None:
    call = refreshing(NumberedTokens())
    carrying = requests.HTTPError(response=SimpleNamespace(json=lambda: LIMITED))  # type: ignore[arg-type]  # like one
    outcomes = [(GOOD, None), (None, None), (LIMITED, None), (EXPIRED, carrying), (LIMITED, ValueError())]
    assert [call.code_of(*outcome) for outcome in outcomes] == ["MCA00000", None, "EGW00201", "EGW00201", None]
    refuse(call, seen())
    codes = ["MCA00000", "EGW00123", "EGW00201", "EGW00201", "EGW00123"]
    assert [call.code_of(*outcome) for outcome in outcomes] == codes
    call.observe_answered(seen())
    assert call.code_of(None, None) is None


def test_the_next_attempt_begins_with_nothing_seen() -> None:
    call = refreshing(NumberedTokens())
    refuse(call, seen())
    call.begin_attempt()
    assert (call.attempt, call.failed, call.refused()) == (2, None, [])
    call.begin_attempt()
    assert call.attempt == 3


# Tokens of this call and of those around it.


def test_home_is_that_of_the_call_and_of_those_around_it() -> None:
    around = refreshing(KnownTokens())
    inner = refreshing(NumberedTokens(), around=around)
    assert inner.is_at_home(HOST)
    assert not refreshing(NumberedTokens()).is_at_home(HOST)
    assert [cause.source for cause in inner.token_causes()] == [inner.source, around.source]
    assert [*repeating(around=around).token_causes()] == [around.token_expired]


def test_a_request_of_an_inner_call_leaves_with_the_token_that_one_around_it_knows() -> None:
    around = refreshing(KnownTokens())
    around.source.token()
    around.source.replace("t1")
    inner = refreshing(NumberedTokens("x"), around=around)
    successor = inner.successor_for(seen("t1"))
    assert successor is not None
    assert successor.value == "t2"
    assert inner.successor_for(seen("t2")) is None


def test_an_order_that_is_held_back_leaves_as_it_is() -> None:
    call = refreshing(KnownTokens())
    call.source.token()
    refuse(call, seen("t1"))
    call.source.replace("t1")
    assert call.successor_for(seen("t1")) is not None
    assert call.successor_for(seen("t1", method="POST", path=ORDER)) is None


def test_what_is_handed_out_inside_is_known_to_every_call_around() -> None:
    outer = refreshing(NumberedTokens())
    middle = repeating(around=outer)
    inner = refreshing(NumberedTokens("x"), around=middle)
    own, other = outer.source, inner.source
    inner.handed_out(other, "x1")
    inner.handed_out(own, "t1")
    assert (inner.handed, middle.handed, outer.handed) == ("x1", None, "t1")
    assert (inner.lenders, middle.lenders, outer.lenders) == ({"t1": own}, {}, {"x1": other})
    inner.handed_out(other, "x2")
    inner.handed_out("no source", "y1")
    assert outer.lenders == {"x1": other, "x2": other}
    assert "y1" not in inner.lenders


# Slots.


def take(call: Any) -> None:
    call.take_slot()


def take_async(call: Any) -> None:
    asyncio.run(call.take_slot_async())


def take_for_attempt(call: Any) -> None:
    call.take_slot_for_attempt()


def take_for_attempt_async(call: Any) -> None:
    asyncio.run(call.take_slot_for_attempt_async())


def take_for_repeat(call: Any) -> bool:
    return bool(call.take_slot_for_repeat())


def take_for_repeat_async(call: Any) -> bool:
    return bool(asyncio.run(call.take_slot_for_repeat_async()))


every_take = pytest.mark.parametrize("take", [take, take_async])
every_attempt = pytest.mark.parametrize("begin", [take_for_attempt, take_for_attempt_async])
every_repeat = pytest.mark.parametrize("again", [take_for_repeat, take_for_repeat_async])


@every_take
@every_attempt
def test_the_first_request_of_an_attempt_uses_its_slot_and_each_further_one_takes_its_own(
    take: Callable[[Any], None], begin: Callable[[Any], None]
) -> None:
    slots = Slots()
    call = repeating(limiter=slots)
    begin(call)
    asked = [len(slots.asked)]
    for _ in range(3):
        take(call)
        asked.append(len(slots.asked))
    assert asked == [1, 1, 2, 3]


@every_take
@every_repeat
def test_the_first_request_of_a_repeat_uses_its_slot(take: Callable[[Any], None], again: Callable[[Any], bool]) -> None:
    slots = Slots()
    call = repeating(limiter=slots)
    assert again(call)
    take(call)
    assert slots.asked == [None]
    take(call)
    assert len(slots.asked) == 2


@every_take
@every_repeat
def test_a_repeat_without_a_slot_is_not_to_be_made(take: Callable[[Any], None], again: Callable[[Any], bool]) -> None:
    slots = Slots(False)
    call = repeating(limiter=slots)
    assert not again(call)
    take(call)
    assert len(slots.asked) == 2, "there was none to use"


@every_take
@every_repeat
def test_a_call_without_a_pace_is_repeated_at_once(take: Callable[[Any], None], again: Callable[[Any], bool]) -> None:
    call = unpaced()
    take(call)
    assert again(call)


@every_attempt
def test_an_inner_attempt_uses_the_slot_of_the_one_around_it_only_of_the_same_pace(
    begin: Callable[[Any], None],
) -> None:
    slots, others = Slots(), Slots()
    outer = repeating(limiter=slots)
    begin(outer)
    begin(repeating(limiter=others, around=outer))
    assert (len(slots.asked), len(others.asked)) == (1, 1)
    begin(repeating(limiter=slots, around=outer))
    assert len(slots.asked) == 1
    begin(repeating(limiter=slots, around=outer))
    assert len(slots.asked) == 2, "it had been used"


@every_take
def test_a_call_without_a_pace_of_its_own_takes_the_slots_of_the_one_around_it(take: Callable[[Any], None]) -> None:
    slots = Slots()
    inner = refreshing(NumberedTokens(), around=repeating(limiter=slots))
    take(inner)
    inner.report("answered")
    assert (len(slots.asked), slots.reports, inner.pace) == (1, ["answered"], slots)
    assert (unpaced().pace, repeating().pace) == (None, process_queue)
    unpaced().report("answered")


@pytest.mark.parametrize(("rate", "paced"), [(18.0, True), (0.5, True), (0.0, False)])
def test_a_call_is_paced_where_its_limiter_has_a_rate(rate: float, paced: bool) -> None:
    slots = Slots()
    slots.rate = rate
    outer = repeating(limiter=slots)
    assert outer.is_paced() is refreshing(NumberedTokens(), around=outer).is_paced() is paced
    assert not unpaced().is_paced()


@every_take
@pytest.mark.parametrize(("deadline", "waited"), [(0.5, 1.0), (1.0, 1.0), (30.0, 30.0)])
def test_a_slot_is_waited_for_as_long_as_the_deadline_and_a_second_at_least(
    take: Callable[[Any], None], deadline: float, waited: float
) -> None:
    slots = Slots()
    call = repeating(limiter=slots)
    call.deadline = deadline
    take(call)
    assert slots.asked == [waited]


@every_take
@pytest.mark.parametrize(("away", "asked"), [(True, 1), (None, 1), (False, 3)])
def test_a_slot_is_waited_for_again_unless_nothing_gets_through(
    take: Callable[[Any], None], away: bool | None, asked: int
) -> None:
    """A pace that cannot say whether there is an outage has had its time."""
    slots = Slots(False, False, True)
    if away is not None:
        slots.is_away = away  # type: ignore[attr-defined]  # as `RateLimiter` has it
    take(repeating(limiter=slots))
    assert len(slots.asked) == asked


@every_repeat
@pytest.mark.parametrize(("passes", "left"), [(0.0, 4.0), (3.0, 1.0), (4.0, 0.0), (9.0, 0.0)])
def test_the_slot_of_a_repeat_is_waited_for_until_it_must_have_begun(
    clock: FakeClock, again: Callable[[Any], bool], passes: float, left: float
) -> None:
    slots = Slots()
    call = repeating(limiter=slots)
    call.begin_by = clock.now + 4
    clock.pass_by(passes)
    again(call)
    assert slots.asked == [left]


# What it tells.


def test_what_became_of_a_call_is_told_with_the_seconds_since_it_began(
    clock: FakeClock, events: list[RefreshEvent]
) -> None:
    clock.now = 3.0  # as on a machine that has just begun
    around = unpaced()
    call = refreshing(NumberedTokens(), around=around)
    clock.pass_by(5)
    call.begin_attempt()
    call.emit_recovered()
    call.give_up(call.token_expired, EXPIRED, None)
    call.emit("call_retried", attempt=7)
    told = [(event.name, event.callable, event.attempt, event.msg_cd, event.elapsed) for event in events]
    assert told == [
        ("call_recovered", call.name, 2, None, 5.0),
        ("call_given_up", call.name, 2, "EGW00123", 5.0),
        ("call_retried", call.name, 7, None, None),
    ]
    assert call.gave_up
    assert call.exhausted == around.exhausted == {"token_expired"}


def test_outside_of_a_call_and_within_a_refresh_none_is_under_way() -> None:
    assert call_under_way() is None
    with bypassed():
        assert call_under_way() is None
