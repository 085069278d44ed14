"""What is known of a decorated function before it is called, and what its calls teach it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from calls import KnownTokens, Slots, seen
from kis_retry import Credentials, MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager
from kis_retry.context import CURRENT, bypassed
from kis_retry.retry.decoration import Decoration, Options, is_limiter
from kis_retry.retry.queues import process_queue
from sources import NumberedTokens

MINE = RetryPolicy(transient_deadline=7)


def fetch(*args: Any, **kwargs: Any) -> None: ...


def decorated(function: Any = fetch, **options: Any) -> Decoration:
    return Decoration(function, Options(**options))


# Its arguments.


@pytest.mark.parametrize(
    ("option", "wrong", "takes"),
    [
        ("tokens", 5, r"tokens= takes a TokenSource \(token\(\) and refresh\(rejected\)\), not int"),
        ("policy", "patient", "policy= takes a RetryPolicy, not str"),
        ("bind", "headers", "bind= takes a function of one AccessToken, not str"),
        ("limiter", 18, "limiter= takes a RateLimiter, not int"),
        ("idempotent", "yes", "idempotent= takes True, False or None, not str"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_with_what_it_takes(option: str, wrong: Any, takes: str) -> None:
    with pytest.raises(TypeError, match=f"^{takes}$"):
        Options(**{option: wrong})


def test_options_that_nobody_gives_are_those_of_neither_decorator() -> None:
    plain = Options()
    assert (plain.refreshes, plain.repeats, plain.named_by_caller, plain.watch_transport) == (False, False, False, True)


def test_options_that_were_checked_are_given_by_name_and_do_not_change() -> None:
    positional: Any = Options
    with pytest.raises(TypeError):
        positional(True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().tokens = "unchecked"  # type: ignore[misc, assignment]  # what is tested


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ({"refreshes": True}, {"repeats": True}, True),
        ({"refreshes": True}, {"refreshes": True}, False),
        ({"repeats": True}, {"repeats": True}, False),
        ({"refreshes": True, "repeats": True}, {"repeats": True}, False),
        ({"refreshes": True}, {"refreshes": True, "repeats": True}, False),
        ({}, {"repeats": True}, False),
    ],
)
def test_one_that_refreshes_and_one_that_repeats_are_joined_in_either_order(
    first: dict[str, Any], second: dict[str, Any], joined: bool
) -> None:
    one, other = Options(**first), Options(**second)
    for found, repeating in ((one.joined_with(other), other), (other.joined_with(one), other)):
        assert (found is not None) is joined
        if found is not None:
            assert (found.refreshes, found.repeats, found.transient) == (True, True, repeating)


@pytest.mark.parametrize("lacks", [None, "acquire", "acquire_async", "report"])
def test_a_limiter_has_all_that_a_call_asks_of_its_pace(lacks: str | None) -> None:
    methods = {name: fetch for name in ("acquire", "acquire_async", "report") if name != lacks}
    assert is_limiter(SimpleNamespace(**methods)) is (lacks is None)
    assert not is_limiter(SimpleNamespace(**{**methods, "report": "nothing"}))


# Its name.


def test_events_carry_the_name_of_the_function_or_the_one_that_is_given() -> None:
    class Thing:
        def __call__(self) -> None: ...

    names = [decorated(function, **how).name for function, how in ((fetch, {}), (Thing(), {}), (fetch, {"name": "n"}))]
    assert [name.rpartition(".")[2] for name in names] == ["fetch", "Thing", "n"]


@pytest.mark.parametrize(("named_by_caller", "name"), [(True, "batch"), (False, "fetch")])
def test_a_call_has_the_name_of_the_one_around_it_where_that_is_said(named_by_caller: bool, name: str) -> None:
    inner = decorated(refreshes=True, tokens=NumberedTokens(), named_by_caller=named_by_caller)
    alone = inner.begin((), {})
    assert alone is not None
    CURRENT.set(decorated(refreshes=True, tokens=NumberedTokens(), name="batch").begin((), {}))
    call = inner.begin((), {})
    assert call is not None
    assert (alone.name, call.name) == ("fetch", name)
    assert (alone.parent, call.parent) == (None, CURRENT.get())


# When it is left alone.


@pytest.mark.parametrize("on", [True, False])
def test_switched_off_a_call_is_left_alone(on: bool) -> None:
    policy = RetryPolicy(enabled=on)
    for options in ({"refreshes": True, "tokens": NumberedTokens()}, {"repeats": True}):
        assert (decorated(policy=policy, **options).begin((), {}) is not None) is on
    assert decorated().begin((), {}) is None


@pytest.mark.parametrize("off", ["refreshes", "repeats"])
def test_of_two_one_may_be_switched_off(off: str) -> None:
    policies = {name: RetryPolicy(enabled=name != off, transient_deadline=7) for name in ("refreshes", "repeats")}
    transient = Options(repeats=True, policy=policies["repeats"])
    options = {"refreshes": True, "repeats": True, "policy": policies["refreshes"], "transient": transient}
    call = decorated(tokens=NumberedTokens(), **options).begin((), {})
    assert call is not None
    assert [cause.name for cause in call.causes] == (["transient"] if off == "refreshes" else ["token_expired"])
    assert call.deadline == (7 if off == "refreshes" else 0)


def test_within_a_refresh_a_call_is_left_alone() -> None:
    with bypassed():
        assert decorated(refreshes=True, tokens=NumberedTokens()).begin((), {}) is None


# Its policy, its source and its pace.


def test_the_policy_is_that_of_the_decorator_of_the_first_argument_of_the_source_or_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KIS_RETRY_TRANSIENT_DEADLINE", "5")
    owner = SimpleNamespace(policy=RetryPolicy(transient_deadline=9))
    fallen = SimpleNamespace(policy="none of ours")
    managed = TokenManager(
        Credentials("key", "secret"), store=MemoryTokenStore(), policy=RetryPolicy(transient_deadline=8)
    )
    deadlines = []
    for policy, first in ((MINE, owner), (None, owner), (None, fallen), (None, "005930"), (None, None)):
        for tokens in (managed, NumberedTokens()):
            call = decorated(lambda *_: None, refreshes=True, tokens=tokens, policy=policy).begin((first,), {})
            assert call is not None
            deadlines.append(call.policy.transient_deadline)
    assert deadlines == [7, 7, 9, 9, 8, 5, 8, 5, 8, 5]


@pytest.mark.parametrize(
    ("limiter", "first", "around", "found"),
    [
        ("given", "own", "outer", "given"),
        (None, "own", "outer", "own"),
        (None, "none", "outer", "outer"),
        (None, "none", None, None),
        (None, "text", "outer", "outer"),
        (None, "half", None, None),
        (None, "limited", None, "limited"),
    ],
)
def test_the_pace_is_the_one_given_that_of_the_first_argument_of_the_call_around_or_of_the_process(
    limiter: str | None, first: str, around: str | None, found: str | None
) -> None:
    paces: dict[str | None, Any] = {name: Slots() for name in ("given", "own", "outer")}
    paces["limited"] = RateLimiter(KnownTokens().credentials, rate=0)
    firsts = {
        "own": SimpleNamespace(limiter=paces["own"]),
        "none": SimpleNamespace(),
        "text": "005930",
        "half": SimpleNamespace(limiter=SimpleNamespace(acquire=fetch)),
        "limited": SimpleNamespace(limiter=paces["limited"]),
    }
    if around is not None:
        CURRENT.set(decorated(repeats=True, limiter=paces[around]).begin((), {}))
    call = decorated(repeats=True, limiter=paces[limiter] if limiter else None).begin((firsts[first],), {})
    assert call is not None
    assert call.limiter is (process_queue if found is None else paces[found])


# What its calls teach it.


def test_an_attempt_takes_a_slot_itself_until_a_request_of_the_function_was_seen() -> None:
    decoration = decorated(repeats=True, limiter=Slots())
    takes = []
    for sees in (False, False, True, False):
        call = decoration.begin((), {})
        assert call is not None
        takes.append(call.takes_slot_itself)
        if sees:
            call.observe_sent(seen())
        decoration.end(call)
    assert takes == [True, True, True, False]


def test_without_a_limiter_it_takes_one_while_nothing_gets_through_to_anybody() -> None:
    decoration = decorated(repeats=True)
    takes = []
    for _ in range(2):
        call = decoration.begin((), {})
        assert call is not None
        takes.append(call.takes_slot_itself)
        process_queue.report("failed")
    assert takes == [False, True]


@pytest.mark.parametrize("gave_up", [True, False])
def test_a_call_that_was_not_given_up_ends_the_doubt_about_its_token(gave_up: bool) -> None:
    decoration = decorated(refreshes=True, tokens=NumberedTokens())
    decoration._history.note_useless("t1", 0.0)
    call = decoration.begin((), {})
    assert call is not None
    call.gave_up = gave_up
    decoration.end(call)
    assert call.finished
    assert decoration._history.was_useless("t1") is gave_up


# Its token.


@pytest.mark.parametrize(
    ("found", "needs"),
    [
        ("Bearer t1", False),
        ("t1", False),
        ("bearer  t1", False),
        ("Bearer somebody-else's", False),
        ("", True),
        ("Bearer t0", True),
    ],
)
def test_a_source_is_asked_before_the_call_where_the_place_holds_no_token_or_a_dead_one(
    found: str, needs: bool
) -> None:
    tokens = KnownTokens()

    def function(headers: dict[str, str]) -> None: ...

    decoration = decorated(function, refreshes=True, tokens=tokens)
    source = decoration._tokens
    assert source is not None
    tokens.number = 0
    source.token()
    source.replace("t0")
    call = decoration.begin(({"authorization": found} if found else {},), {})
    assert call is not None
    assert (call.unbound is not None) is needs
    assert (call.used or "") == ("t1" if found == "Bearer t1" else "")


def test_without_a_source_it_says_what_to_pass() -> None:
    class Broker:
        access_token = "Bearer x"

        def issue_access_token(self) -> None: ...

    broker, half = Broker(), SimpleNamespace(issue_access_token=fetch)
    inside = SimpleNamespace(first=half, other=broker, another=broker)
    firsts = [
        (broker, None),
        (SimpleNamespace(url="", broker=broker), "its attribute `broker`"),
        (SimpleNamespace(inside=inside), "its attribute `inside.other`"),
        (SimpleNamespace(kind=type("Kind", (), {"broker": broker})), "give the first argument an attribute `tokens`"),
        (SimpleNamespace(half=half), "give the first argument an attribute `tokens`"),
        (SimpleNamespace(half=SimpleNamespace(access_token="x")), "give the first argument an attribute `tokens`"),
        ("005930", "give the first argument an attribute `tokens`"),
    ]
    for first, says in firsts:
        decoration = decorated(refreshes=True)
        if says is None:
            assert decoration.begin((first,), {}) is not None
        else:
            with pytest.raises(TypeError) as raised:
                decoration.begin((first,), {})
            assert says in str(raised.value)
            assert "fetch is decorated with refresh_on_expired_token" in str(raised.value)
            assert "pass tokens=" in str(raised.value)
