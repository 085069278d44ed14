"""The cause of a dead token: when one is asked for, what it is met in, when it stops, and what is told."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from answers import EXPIRED, GOOD
from calls import KEY, KnownTokens, refreshing, refuse, seen
from causes import Keeper, Source, of_keeper, stops, unplaced
from clocks import FakeClock
from kis_retry import AccessToken, RefreshEvent, RetryPolicy
from kis_retry.token import fingerprint
from kis_retry.tokens.source import NEVER, Origin, Replacement
from sources import FAR, NumberedTokens

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


# Before the first attempt.


def test_a_place_that_holds_the_current_token_without_bearer_needs_none(source: Source) -> None:
    cause = of_keeper(source, Keeper("t1"))
    assert not cause.needs_token(f"t{1}")
    source.note_refused("t1")
    assert cause.needs_token("t1")
    assert cause.used == "t1"


def test_without_a_place_the_source_is_asked_where_it_has_none_in_memory() -> None:
    source = Source(NumberedTokens())
    cause = unplaced(source)
    found = [(cause.needs_token(""), cause.used)]
    source.token()
    found.append((cause.needs_token(""), cause.used))
    source.note_refused("t1")
    found.append((cause.needs_token(""), cause.used))
    assert found == [(True, None), (False, "t1"), (True, None)]


def test_a_source_that_is_seen_to_be_asked_is_asked_before_where_its_token_is_to_be_renewed() -> None:
    source = Source(NumberedTokens())
    source.hands_out_unseen = False
    cause = unplaced(source)
    assert not cause.needs_token(""), "none was ever handed out"
    source.token()
    assert not cause.needs_token("")
    source.note_refused("t1")
    assert cause.needs_token("")
    assert cause.used is None
    cause.bind_first(source.token())
    assert cause.used is None, "which one it takes is seen then"


def test_a_place_that_cannot_be_looked_into_needs_one_where_what_was_bound_is_superseded() -> None:
    source = Source(NumberedTokens())
    cause = refreshing(source, bind=lambda token: None).token_expired
    assert not cause.needs_token("")
    source.token()
    assert not cause.needs_token("t1")
    source.note_refused("t1")
    assert cause.needs_token(""), "what it handed out is to be renewed"
    source.replace("t1")
    assert [cause.needs_token(found) for found in ("t1", "Bearer t1", "t2", "somebody-else's", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert cause.used is None


def test_the_first_token_is_bound_where_another_one_is(source: Source) -> None:
    written: list[str] = []
    cause = refreshing(source, bind=lambda token: written.append(token.value)).token_expired
    cause.used = "t1"
    cause.bind_first(source.token())
    assert written == []
    cause.used = None
    cause.bind_first(source.token())
    assert (written, cause.used) == (["t1"], "t1")


def test_without_a_place_the_first_token_is_the_one_that_it_will_be_given(source: Source) -> None:
    cause = unplaced(source)
    cause.used = None
    cause.bind_first(source.token())
    assert cause.used == "t1"


def test_there_is_none_to_make_an_attempt_with_only_where_an_empty_place_was_seen(source: Source) -> None:
    causes = [of_keeper(source), unplaced(source), refreshing(source, bind=lambda token: None).token_expired]
    for cause in causes:
        cause.used = None
    assert [cause.has_none() for cause in causes] == [True, False, False]
    causes[0].used = "t1"
    assert not causes[0].has_none()


# While the function still runs.


@pytest.mark.parametrize(
    "hindrance", [None, "not watched", "no retries", "exhausted", "replaced before", "of an unknown account"]
)
def test_a_token_may_be_renewed_meanwhile_once_and_for_a_known_account(hindrance: str | None) -> None:
    source = Source(NumberedTokens() if hindrance == "of an unknown account" else KnownTokens())
    policy = RetryPolicy(max_retries=0 if hindrance == "no retries" else 1)
    cause = unplaced(source, policy=policy, watch_transport=hindrance != "not watched")
    if hindrance == "exhausted":
        cause._call.mark_exhausted("token_expired")
    if hindrance == "replaced before":
        cause.replaced_with = "t2"
    assert cause.may_renew() is (hindrance is None)


@pytest.mark.parametrize(("origin", "told"), [("issued", ["token_refreshed"]), ("memory", []), ("store", [])])
def test_one_that_was_issued_before_anything_was_refused_is_told(
    source: Source, events: list[RefreshEvent], origin: Origin, told: list[str]
) -> None:
    cause = unplaced(source)
    cause.renewed(Replacement(AccessToken("t2", FAR), origin), "t1", 0.0)
    assert [event.name for event in events] == told
    assert cause.replaced_with is None
    assert not source.is_dead("t1"), "nobody has refused it"


@pytest.mark.parametrize(
    ("origin", "new", "adopted", "spent"),
    [
        ("issued", False, 0, True),
        ("memory", True, 0, True),
        ("store", True, 0, True),
        ("store", False, 0, False),
        ("store", False, 2, False),
        ("store", False, 3, True),
        ("memory", False, 3, True),
    ],
)
def test_one_in_place_of_a_refused_token_spends_the_one_refresh_unless_it_may_be_dead_as_well(
    source: Source, now: FakeClock, events: list[RefreshEvent], origin: Origin, new: bool, adopted: int, spent: bool
) -> None:
    source.new = new
    cause = unplaced(source)
    cause._adopted = adopted
    refuse(cause._call, seen("t1"))
    began = now.now
    now.pass_by(5)
    cause.renewed(Replacement(AccessToken("t2", FAR), origin), "t1", began)
    assert cause.replaced_with == ("t2" if spent else None)
    assert cause._adopted == (adopted if spent else adopted + 1)
    assert source.is_dead("t1")
    (event,) = events
    assert event.name == ("token_refreshed" if origin == "issued" else "token_adopted")
    assert (event.token, event.previous_token) == (fingerprint("t2"), fingerprint("t1"))
    assert (event.attempt, event.elapsed, event.source, event.expires_at) == (1, 5.0, origin, FAR)


# After an attempt.


@pytest.mark.parametrize(
    ("value", "sees", "watching", "exhausted", "met"),
    [
        (EXPIRED, False, True, False, True),
        (EXPIRED, False, False, False, True),
        (EXPIRED, True, True, True, False),
        (GOOD, True, True, False, True),
        (GOOD, True, False, False, False),
        (GOOD, False, True, False, False),
    ],
)
def test_it_is_met_in_an_answer_or_in_what_was_seen(
    source: Source, value: Any, sees: bool, watching: bool, exhausted: bool, met: bool
) -> None:
    cause = unplaced(source, watch_transport=watching)
    if sees:
        refuse(cause._call, seen("t1"))
    if exhausted:
        cause._call.mark_exhausted("token_expired")
    assert cause.matches_value(value) is met
    error = requests.HTTPError()
    error.response = value
    assert cause.matches_error(error) is met


def test_the_codes_of_the_policy_decide(source: Source) -> None:
    cause = unplaced(source, policy=RetryPolicy(expired_codes=("EGW00121",)))
    error = requests.HTTPError()
    error.response = EXPIRED
    assert not cause.matches_value(EXPIRED)
    assert not cause.matches_error(error)
    assert cause.matches_value({**EXPIRED, "msg_cd": "EGW00121"})


@pytest.mark.parametrize(
    ("retries", "adopted", "attempt", "over"),
    [(0, 0, 1, True), (1, 0, 1, False), (1, 0, 2, True), (1, 2, 3, False), (1, 2, 4, True), (3, 1, 4, False)],
)
def test_dead_tokens_that_were_adopted_leave_the_retries_of_the_policy(
    source: Source, retries: int, adopted: int, attempt: int, over: bool
) -> None:
    cause = of_keeper(source, policy=RetryPolicy(max_retries=retries))
    cause._adopted = adopted
    assert stops(cause, attempt) is over


def test_it_stops_after_an_order(source: Source) -> None:
    cause = of_keeper(source)
    cause._call.observe_sent(seen(method="POST", path=ORDER))
    assert stops(cause)


def test_it_stops_where_the_token_that_the_library_went_on_with_was_refused_as_well(source: Source) -> None:
    cause = of_keeper(source)
    refuse(cause._call, seen("t1"))
    cause.replaced_with = "t2"
    assert not stops(cause)
    cause.replaced_with = f"t{1}"
    assert stops(cause)
    cause.replaced_with = None
    refuse(cause._call, seen(None))
    assert not stops(cause)


def test_it_stops_where_another_account_was_refused(source: Source) -> None:
    cause = of_keeper(source)
    refuse(cause._call, seen("t1", key="PSother"))
    assert stops(cause)


def test_the_wait_is_that_of_the_policy(source: Source) -> None:
    assert of_keeper(source, policy=RetryPolicy(wait=2.5)).wait(None, EXPIRED, None) == 2.5


@pytest.mark.parametrize(
    ("sees", "used", "msg_cd", "told"),
    [
        (False, "t1", "EGW00122", ("t1", "EGW00122")),
        (False, None, None, (None, None)),
        (True, "t7", None, ("t1", "EGW00123")),
        (True, "t7", "EGW00121", ("t1", "EGW00121")),
    ],
)
def test_what_was_refused_is_told_and_why(
    source: Source,
    events: list[RefreshEvent],
    sees: bool,
    used: str | None,
    msg_cd: str | None,
    told: tuple[str | None, str | None],
) -> None:
    cause = of_keeper(source)
    cause.used = used
    if sees:
        refuse(cause._call, seen("t1"))
    cause.emit_failed(msg_cd)
    (event,) = events
    assert event.name == "token_expired"
    assert (event.token, event.msg_cd) == (fingerprint(told[0]) if told[0] else None, told[1])


# What the user can do about it.


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "token_not_rebound" in record.getMessage()]


def test_a_refusal_of_another_account_is_told_of_once(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    cause = of_keeper(source)
    refuse(cause._call, seen("t1", key="PSother"))
    for _ in range(2):
        cause.gave_up()
    (warning,) = warnings(caplog)
    assert "the refused request was not of this token source: give each account a function of its own" in warning


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("nowhere", "nobody sees where it keeps its token: pass bind=, or send with requests, httpx or aiohttp"),
        ("bind", "what bind= does with a token does not reach its requests"),
        ("argument", "its argument is not what it sends: pass bind=, or send with requests, httpx or aiohttp"),
    ],
)
def test_a_token_that_reaches_nobody_is_told_of_by_its_place(
    source: Source, caplog: pytest.LogCaptureFixture, place: str, advice: str
) -> None:
    source.hands_out_unseen = False
    makes = {
        "nowhere": unplaced,
        "argument": of_keeper,
        "bind": lambda source: refreshing(source, bind=lambda token: None).token_expired,
    }
    cause = makes[place](source)
    cause._history.strikes = 2
    cause.gave_up()
    (warning,) = warnings(caplog)
    assert advice in warning


@pytest.mark.parametrize("reason", ["an order went out", "it could be rebound"])
def test_what_has_another_reason_is_not_told_of(source: Source, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    cause = of_keeper(source)
    if reason == "an order went out":
        cause._history.strikes = 2
        cause._call.observe_sent(seen(method="POST", path=ORDER))
    cause.gave_up()
    assert warnings(caplog) == []
    assert not cause._history.warned


@pytest.mark.parametrize(
    ("attempt", "used", "sees", "strikes"),
    [(2, "t1", False, 1), (1, "t1", False, 0), (2, None, False, 0), (2, "t1", True, 0)],
)
def test_a_repeat_that_was_refused_unseen_is_a_strike(
    source: Source, now: FakeClock, attempt: int, used: str | None, sees: bool, strikes: int
) -> None:
    cause = of_keeper(source)
    cause.used = used
    cause._call.attempt = attempt
    if sees:
        refuse(cause._call, seen("t1"))
    cause.gave_up()
    assert cause._history.strikes == strikes
    assert cause._history.was_useless("t1") is bool(strikes)


# Whether another token would reach the next attempt.


@pytest.mark.parametrize(
    ("place", "sees", "hopeless", "unseen_source", "handed", "rebound"),
    [
        ("keeper", None, False, True, None, True),
        ("keeper", None, True, True, None, False),
        ("keeper", "t1", True, True, None, True),
        ("nowhere", "t1", False, False, None, True),
        ("nowhere", "none", False, True, None, False),
        ("nowhere", "none", False, True, "t1", True),
        ("nowhere", None, False, False, "t1", True),
        ("nowhere", None, True, False, "t1", False),
        ("nowhere", None, False, True, None, True),
        ("nowhere", None, False, False, None, False),
    ],
)
def test_another_token_reaches_the_next_attempt_by_its_place_by_the_wire_or_by_the_source(
    source: Source, place: str, sees: str | None, hopeless: bool, unseen_source: bool, handed: str | None, rebound: bool
) -> None:
    source.hands_out_unseen = unseen_source
    cause = of_keeper(source) if place == "keeper" else unplaced(source)
    if sees is not None:
        refuse(cause._call, seen(None if sees == "none" else sees, key=KEY))
    cause._history.strikes = 2 if hopeless else 1
    cause._call.handed = handed
    assert stops(cause) is not rebound


def test_one_that_was_useless_before_would_be_again(source: Source) -> None:
    cause = unplaced(source)
    cause.used = "t1"
    cause._history.note_useless("t0", 0.0)
    assert not stops(cause)
    cause._history.note_useless("t1", 0.0)
    assert cause._history.strikes == 1
    assert stops(cause)


def test_a_token_whose_death_nobody_said_is_told_without_one(source: Source, events: list[RefreshEvent]) -> None:
    cause = unplaced(source)
    cause.renewed(Replacement(AccessToken("t2", NEVER), "issued"), "t1", 0.0)
    assert events[0].expires_at is None
