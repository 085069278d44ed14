"""The limit, refusals, lost answers, shares and outages of the gateway for tests, over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from gateway_caller import ORDER, Caller, outcome
from kis_retry.testing import KisGateway

NewCaller = Callable[..., Caller]

TABLE = [f"EGW{number:05d}" for number in (1, 2, 201, 202, 203, 206, 207, 215, 300, 301, 302, 303, 316)]
TABLE += ["OPSQ0003", "OPSQ0010", "OPSQ0011", "OPSQ1002"]


# -- the limit


def test_no_second_holds_more_calls_than_the_limit(caller: Caller) -> None:
    caller.gateway.limit_calls(3)
    caller.now += 0.5  # it begins with no second of the clock
    answered = []
    for _ in range(96):
        if caller.judged() == "MCA00000":
            answered.append(caller.now)
        caller.now += 1 / 32
    assert all(later - earlier >= 1 for earlier, later in zip(answered, answered[3:], strict=False))
    assert len(answered) == 3 * 3, "calls past the limit do not count towards it"
    assert caller.gateway.faults_met == {"over_limit": 96 - 3 * 3}
    assert caller.gateway.counts.refused == 96 - 3 * 3


def test_the_limit_can_be_changed_and_lifted_while_the_gateway_runs(new_caller: NewCaller) -> None:
    caller = new_caller(issue_interval=0)
    caller.gateway.limit_calls(1)
    assert caller.outcomes(2) == ["MCA00000", "EGW00201"]
    assert [caller.ask_token()[0] for _ in range(3)] == [200] * 3, "token requests are not limited"
    caller.gateway.limit_calls(2)
    caller.gateway.heal()
    assert caller.outcomes(3) == ["MCA00000", "MCA00000", "EGW00201"], "a limit is no fault to be healed"
    caller.gateway.limit_calls(None)
    assert caller.outcomes(20) == ["MCA00000"] * 20


# -- refusals


@pytest.mark.parametrize("status", [500, 200])
def test_every_row_of_the_table_comes_in_the_words_of_kis(caller: Caller, status: int) -> None:
    for msg_cd in TABLE:
        caller.gateway.refuse_calls(msg_cd, 1, status=status)
        answer = caller.get()
        body = answer.json()
        assert (answer.status_code, body["rt_cd"], body["msg_cd"]) == (status, "1", msg_cd)
        assert body["msg1"]
        assert answer.headers["tr_id"] == "FHKST01010100"
    assert caller.gateway.faults_met == dict.fromkeys(TABLE, 1)
    assert caller.gateway.counts.refused == len(TABLE)


def test_calls_are_refused_so_many_times_or_until_healed(new_caller: NewCaller) -> None:
    caller = new_caller(expired_status=200)
    caller.gateway.refuse_calls("EGW00201", 1, status=401)
    caller.gateway.refuse_calls()
    assert [caller.get().status_code for _ in range(2)] == [401, 200], "the gateway's status, unless it has its own"
    assert caller.outcomes(2) == ["EGW00123"] * 2
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"]


@pytest.mark.parametrize(("code", "status"), [("EGW00133", 403), ("EGW00002", 500)])
def test_token_requests_are_refused(caller: Caller, code: str, status: int) -> None:
    caller.gateway.refuse_tokens(code, 1, status=status)
    found, body = caller.ask_token()
    assert (found, body["error_code"]) == (status, code)
    assert caller.gateway.faults_met == {code: 1}
    assert caller.ask_token()[0] == 200
    counts = caller.gateway.counts
    assert (counts.token_requests, counts.token_requests_refused, counts.tokens_issued) == (2, 1, 1)


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        ("drop", {"times": 0}, "times=0"),
        ("drop", {"where": "orders"}, "where='orders'"),
        ("outage", {"where": "orders"}, "where='orders'"),
    ],
)
def test_a_fault_that_is_not_usable_is_named(method: str, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} is not usable: it takes"):
        getattr(KisGateway(), method)(**arguments)


# -- faults in a row


def test_faults_queue_up(caller: Caller) -> None:
    caller.gateway.drop("calls", 1)
    caller.gateway.fail(200, 1, body=b"{}")
    caller.gateway.refuse_calls("EGW00121", 1)
    caller.gateway.fail(429, 1)
    assert caller.outcomes(5) == ["dropped", "issued", "EGW00121", "HTTP 429", "MCA00000"]
    assert caller.gateway.faults_met == {"dropped": 1, "HTTP 200": 1, "EGW00121": 1, "HTTP 429": 1}
    counts = caller.gateway.counts
    assert (counts.calls, counts.refused, counts.answered) == (5, 1, 1)


def test_a_fault_may_be_for_some_paths_alone(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00215", 1, path="/trading/")
    caller.gateway.drop(share=1, path="/trading/")
    caller.gateway.refuse_tokens("EGW00002", 1, status=500, path="/oauth2/Approval")
    assert caller.outcomes(2) == ["MCA00000"] * 2
    assert [caller.order({}) for _ in range(2)] == ["EGW00215", "dropped"]
    assert outcome(caller.ask_token_raw) == "EGW00133", "each meets its own kind of request"
    assert [outcome(lambda: caller.post("/oauth2/Approval", {})) for _ in range(2)] == ["EGW00002", "EGW00115"]


# -- answers that are lost or late


@pytest.mark.parametrize(
    ("fault", "settings", "told"),
    [
        ("drop", {}, "dropped"),
        ("fail", {}, "HTTP 503"),
        ("refuse_calls", {"msg_cd": "EGW00301"}, "EGW00301"),
    ],
)
@pytest.mark.parametrize("reached", [False, True])
def test_an_order_is_placed_where_only_its_answer_is_lost(
    caller: Caller, fault: str, settings: dict[str, Any], told: str, reached: bool
) -> None:
    getattr(caller.gateway, fault)(times=1, reached=reached, **settings)
    assert caller.order({"n": 1}) == told
    assert caller.gateway.orders == ([{"n": 1}] if reached else [])
    assert caller.gateway.counts.answered == reached


def test_an_order_may_be_answered_by_a_redirect(caller: Caller) -> None:
    caller.gateway.fail(303, 1, headers={"Location": "/uapi/elsewhere?b=2"}, reached=True)
    answer = caller.post(ORDER, {"n": 1}, caller.token())
    assert [each.status_code for each in answer.history] == [303]
    assert (answer.json()["output"], answer.url) == ({"b": "2"}, f"{caller.gateway.url}/uapi/elsewhere?b=2")
    assert caller.gateway.orders == [{"n": 1}]


def test_fail_answers_with_a_status_and_no_verdict(caller: Caller) -> None:
    caller.gateway.fail(429, 1, headers={"Retry-After": "2"})
    answer = caller.get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    assert (answer.headers["Content-Type"], "429 Too Many Requests" in answer.text) == ("text/html", True)


@pytest.mark.parametrize("where", ["calls", "tokens"])
@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b"\xff\x00"])
def test_bodies_of_any_kind_arrive_byte_for_byte(caller: Caller, where: Any, body: bytes) -> None:
    caller.gateway.fail(200, 1, where, body=body)
    answer = caller.get() if where == "calls" else caller.ask_token_raw()
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["Content-Type"].startswith("text/html" if b"<" in body else "application/json")
    counts = caller.gateway.counts
    assert (counts.answered, counts.refused, counts.tokens_issued, counts.token_requests_refused) == (0, 0, 0, 0)


def test_a_dropped_token_request_issues_nothing_unless_it_reached_kis(caller: Caller) -> None:
    caller.gateway.drop("tokens", 1)
    caller.gateway.drop("tokens", 1, reached=True)
    assert [outcome(caller.ask_token_raw) for _ in range(3)] == ["dropped", "dropped", "EGW00133"]
    counts = caller.gateway.counts
    assert (counts.token_requests, counts.tokens_issued, counts.token_requests_refused) == (3, 1, 1)


def test_same_token_makes_the_next_issue_useless(caller: Caller) -> None:
    caller.gateway.same_token()
    dead = caller.token()
    assert caller.judged(dead) == "MCA00000", "there was nothing to hand out again"
    caller.gateway.expire()
    caller.gateway.same_token()
    assert caller.token() == dead
    assert caller.judged(dead) == "EGW00123"
    assert caller.ask_token()[1]["error_code"] == "EGW00133"
    caller.now += 60
    assert caller.token() != dead


# -- shares


def test_a_share_of_the_calls_meets_its_fault(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00201", share=0.22)
    caller.gateway.fail(503, share=0.1)
    met = Counter(caller.outcomes(300))
    assert met["EGW00201"] == pytest.approx(66, rel=0.3)
    assert met["HTTP 503"] == pytest.approx(30, rel=0.4)
    assert met["MCA00000"] == caller.gateway.counts.answered == 300 - sum(caller.gateway.faults_met.values())


def test_the_same_seed_meets_the_same_calls(new_caller: NewCaller) -> None:
    courses = []
    for seed in (7, 7, 8):
        caller = new_caller(seed=seed)
        caller.gateway.refuse_calls("EGW00201", share=0.5)
        courses.append(caller.outcomes(32))
    assert courses[0] == courses[1] != courses[2]


# -- outages


@pytest.mark.parametrize(
    ("where", "call", "token"), [("both", "HTTP 500", "HTTP 500"), ("tokens", "MCA00000", "HTTP 500")]
)
def test_an_outage_lasts_its_seconds_and_not_one_more(caller: Caller, where: Any, call: str, token: str) -> None:
    caller.token()
    caller.now += 60
    caller.gateway.refuse_calls("EGW00201", 1)
    caller.gateway.outage(8, where)
    caller.now += 7.875
    assert (caller.judged(), outcome(caller.ask_token_raw)) == ("EGW00201" if where == "tokens" else call, token)
    caller.now += 0.125
    assert caller.judged() == ("MCA00000" if where == "tokens" else "EGW00201"), "an outage comes before all else"
    assert outcome(caller.ask_token_raw) == ("EGW00133" if token == "issued" else "issued")
    assert caller.gateway.faults_met["outage"] == [call, token].count("HTTP 500")
