"""Limits, refusals, lost answers, shares and outages of the gateway for tests, over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import requests

from gateway_caller import ORDER, PRICE, Caller, outcome
from kis_retry.testing import KisGateway

NewCaller = Callable[..., Caller]

TABLE = [f"EGW{number:05d}" for number in (1, 2, 201, 202, 203, 206, 207, 215, 300, 301, 302, 303, 316)]
TABLE += ["OPSQ0003", "OPSQ0010", "OPSQ0011", "OPSQ1002"]


# -- limits


def test_no_sliding_second_holds_more_calls_than_the_limit(new_caller: NewCaller) -> None:
    caller = new_caller(rate_limit=3)
    caller.now += 0.5  # it begins with no second of the clock
    answered = []
    for _ in range(200):
        if caller.judged() == "MCA00000":
            answered.append(caller.now)
        caller.now += 1 / 32
    assert all(later - earlier >= 1 for earlier, later in zip(answered, answered[3:], strict=False))
    assert len(answered) == 3 * 7


def test_a_fixed_second_begins_with_the_second_of_the_clock(new_caller: NewCaller) -> None:
    caller = new_caller(rate_limit=2, rate_window="fixed")
    caller.now += 0.875
    assert caller.outcomes(3) == ["MCA00000", "MCA00000", "EGW00201"]
    caller.now += 0.125
    assert caller.outcomes(3) == ["MCA00000", "MCA00000", "EGW00201"]
    caller.now += 0.875
    assert caller.outcomes(1) == ["EGW00201"]


def test_calls_past_the_limit_do_not_count_towards_it(new_caller: NewCaller) -> None:
    caller = new_caller(rate_limit=1)
    caller.outcomes(1)
    for _ in range(9):
        caller.now += 0.1
        assert caller.outcomes(1) == ["EGW00201"]
    caller.now += 0.11
    assert caller.outcomes(1) == ["MCA00000"]
    assert caller.gateway.faults_met == {"over_limit": 9}
    assert caller.gateway.counts.refused == 0


def test_a_limit_can_be_changed_and_lifted_while_the_gateway_runs(caller: Caller) -> None:
    caller.gateway.limit_calls(1)
    assert caller.outcomes(2) == ["MCA00000", "EGW00201"]
    caller.gateway.limit_calls(2, status=200)
    assert caller.outcomes(2) == ["MCA00000", "MCA00000"]
    answer = caller.get()
    assert (answer.status_code, answer.json()["msg_cd"]) == (200, "EGW00201")
    caller.gateway.heal()
    assert caller.outcomes(1) == ["EGW00201"], "a limit is no fault to be healed"
    caller.gateway.limit_calls(None)
    assert caller.outcomes(20) == ["MCA00000"] * 20


def test_the_ledger_has_a_limit_of_its_own_beside_the_gateways(caller: Caller) -> None:
    caller.gateway.limit_calls(3)
    caller.gateway.limit_calls(1, path="/trading/", msg_cd="EGW00215")
    assert [caller.order({"n": number}) for number in (1, 2)] == ["MCA00000", "EGW00215"]
    assert caller.outcomes(3) == ["MCA00000", "MCA00000", "EGW00201"]
    assert caller.gateway.orders == [{"n": 1}]


def test_token_requests_are_not_limited(new_caller: NewCaller) -> None:
    caller = new_caller(rate_limit=1, issue_interval=0)
    assert [caller.ask_token()[0] for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"per_second": 0}, "per_second=0"),
        ({"per_second": True}, "per_second=True"),
        ({"per_second": 1, "window": "rolling"}, "window='rolling'"),
    ],
)
def test_an_unusable_limit_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} is not usable: it takes"):
        KisGateway().limit_calls(**arguments)


# -- refusals


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("msg_cd", TABLE)
def test_every_row_of_the_table_comes_in_the_words_of_kis(caller: Caller, msg_cd: str, status: int) -> None:
    caller.gateway.refuse_calls(msg_cd, status=status)
    answer = caller.get()
    body = answer.json()
    assert (answer.status_code, body["rt_cd"], body["msg_cd"]) == (status, "1", msg_cd)
    assert body["msg1"]
    assert answer.headers["tr_id"] == "FHKST01010100"
    assert caller.gateway.faults_met == {msg_cd: 1}
    assert caller.gateway.counts.refused == 1


@pytest.mark.parametrize(
    ("given", "named", "expected"),
    [
        (("EGW00201",), {}, ["EGW00201", "EGW00201", "EGW00201"]),
        (("EGW00201", 2), {}, ["EGW00201", "EGW00201", "MCA00000"]),
        (("EGW00201",), {"times": 2}, ["EGW00201", "EGW00201", "MCA00000"]),
        ((2,), {}, ["EGW00123", "EGW00123", "MCA00000"]),
        ((2, "EGW00201"), {}, ["EGW00201", "EGW00201", "MCA00000"]),
        ((2,), {"msg_cd": "EGW00201"}, ["EGW00201", "EGW00201", "MCA00000"]),
        ((None, "EGW00201"), {}, ["EGW00201", "EGW00201", "EGW00201"]),
        ((), {"times": 1, "msg_cd": "40240000"}, ["40240000", "MCA00000", "MCA00000"]),
        ((), {}, ["EGW00123", "EGW00123", "EGW00123"]),
    ],
)
def test_refuse_calls_takes_code_and_times_in_either_order(
    caller: Caller, given: tuple[Any, ...], named: dict[str, Any], expected: list[str]
) -> None:
    caller.gateway.refuse_calls(*given, **named)
    assert caller.outcomes(3) == expected
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"]


def test_a_refusal_can_say_anything(new_caller: NewCaller) -> None:
    caller = new_caller(expired_status=200)
    caller.gateway.refuse_calls(1, "EGW00206")
    caller.gateway.refuse_calls(1, "XYZ", msg1="token이 만료되었습니다", status=401)
    answers = [caller.get() for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401], "the first has the gateway's own"
    assert answers[1].json() == {"rt_cd": "1", "msg_cd": "XYZ", "msg1": "token이 만료되었습니다"}


@pytest.mark.parametrize(
    ("given", "named", "status", "code"),
    [
        ((), {"times": 1}, 403, "EGW00103"),
        (("EGW00133", 1), {}, 403, "EGW00133"),
        ((1, "EGW00133"), {}, 403, "EGW00133"),
        ((1,), {"msg_cd": "EGW00002", "status": 500}, 500, "EGW00002"),
        ((1,), {"msg_cd": None, "status": 503}, 503, None),
        ((1,), {"code": "EGW00133"}, 403, "EGW00133"),
        ((1,), {"code": None, "status": 503}, 503, None),
    ],
)
def test_refuse_tokens(
    caller: Caller, given: tuple[Any, ...], named: dict[str, Any], status: int, code: str | None
) -> None:
    caller.gateway.refuse_tokens(*given, **named)
    found, body = caller.ask_token()
    assert (found, body.get("error_code")) == (status, code)
    assert caller.gateway.faults_met == {code or f"HTTP {status}": 1}
    assert caller.ask_token()[0] == 200
    counts = caller.gateway.counts
    assert (counts.token_requests, counts.token_requests_refused, counts.tokens_issued) == (2, 1, 1)


@pytest.mark.parametrize(
    ("given", "named"),
    [(("EGW00201", "EGW00202"), {}), ((1, 2), {}), ((1,), {"times": 2}), (("EGW00201", 1), {"times": 2})],
)
def test_two_codes_or_two_numbers_are_an_error(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    for refuse in (KisGateway().refuse_calls, KisGateway().refuse_tokens):
        with pytest.raises(TypeError, match="one code and one number of times"):
            refuse(*given, **named)


@pytest.mark.parametrize("times", [0, -1, True, 1.5, "1", "12345"])
def test_times_is_a_whole_number_from_one(times: Any) -> None:
    with pytest.raises(ValueError, match="it takes a whole number from 1, or None for ever"):
        KisGateway().refuse_calls(times)


def test_where_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="where='orders' is not usable"):
        KisGateway().drop("orders")  # type: ignore[arg-type]  # the mistake under test


# -- faults in a row


def test_faults_queue_up(caller: Caller) -> None:
    caller.gateway.drop("calls", 1)
    caller.gateway.garble("calls", 1, body=b"{}", status=200)
    caller.gateway.refuse_calls(1, "EGW00121")
    caller.gateway.fail(429, 1)
    assert caller.outcomes(5) == ["dropped", "issued", "EGW00121", "HTTP 429", "MCA00000"]
    assert caller.gateway.faults_met == {"dropped": 1, "garbled": 1, "EGW00121": 1, "HTTP 429": 1}
    counts = caller.gateway.counts
    assert (counts.calls, counts.refused, counts.answered) == (5, 1, 1)


@pytest.mark.parametrize("where", ["calls", "tokens"])
def test_a_fault_meets_only_its_own_kind_of_request(caller: Caller, where: Any) -> None:
    caller.gateway.drop(where)
    assert caller.judged() == ("dropped" if where == "calls" else "MCA00000")
    assert outcome(caller.ask_token_raw) == ("dropped" if where == "tokens" else "EGW00133")
    assert outcome(lambda: caller.post("/oauth2/revokeP", {})) == "EGW00103"


def test_a_fault_may_be_for_some_paths_alone(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00215", 1, path="/trading/")
    caller.gateway.drop(share=1, path="/trading/")
    assert caller.outcomes(2) == ["MCA00000"] * 2
    assert [caller.order({}) for _ in range(2)] == ["EGW00215", "dropped"]


def test_the_requests_of_websocket_keys_can_fail_too(caller: Caller) -> None:
    caller.gateway.refuse_tokens("EGW00002", 1, status=500, path="/oauth2/Approval")
    caller.gateway.drop("tokens", 1, path="/oauth2/Approval")
    assert caller.ask_token()[0] == 200
    assert [outcome(lambda: caller.post("/oauth2/Approval", {})) for _ in range(3)] == [
        "EGW00002",
        "dropped",
        "EGW00115",
    ]
    assert caller.gateway.counts.token_requests_refused == 0


# -- answers that are lost or late


@pytest.mark.parametrize(
    ("fault", "settings", "told"),
    [
        ("drop", {}, "dropped"),
        ("fail", {}, "HTTP 503"),
        ("fail", {"status": 429}, "HTTP 429"),
        ("garble", {}, "HTTP 502"),
        ("refuse_calls", {"msg_cd": "EGW00301"}, "EGW00301"),
        ("refuse_calls", {"msg_cd": "EGW00302", "status": 200}, "EGW00302"),
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
    caller.gateway.fail(303, 1, location="/uapi/elsewhere?b=2", reached=True)
    answer = caller.post(ORDER, {"n": 1}, caller.token())
    assert [each.status_code for each in answer.history] == [303]
    assert (answer.json()["output"], answer.url) == ({"b": "2"}, f"{caller.gateway.url}/uapi/elsewhere?b=2")
    assert caller.gateway.orders == [{"n": 1}]


@pytest.mark.parametrize(("status", "page"), [(429, "429 Too Many Requests"), (503, "503 Service"), (599, "599")])
def test_fail_answers_with_a_status_and_no_verdict(caller: Caller, status: int, page: str) -> None:
    caller.gateway.fail(status, 1, retry_after=2)
    answer = caller.get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "2")
    assert answer.headers["Content-Type"] == "text/html"
    assert page in answer.text
    assert caller.gateway.faults_met == {f"HTTP {status}": 1}
    assert caller.outcomes(1) == ["MCA00000"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>busy</html>", "text/html"),
        (b"{}", "application/json; charset=utf-8"),
        (b'{"access_token": ""}', "application/json; charset=utf-8"),
        (b"", "application/json; charset=utf-8"),
        (b"\xff\x00", "application/json; charset=utf-8"),
    ],
)
@pytest.mark.parametrize("where", ["calls", "tokens"])
def test_garbled_answers_arrive_byte_for_byte(caller: Caller, where: Any, body: bytes, kind: str) -> None:
    caller.gateway.garble(where, 1, body=body, status=200)
    answer = caller.get() if where == "calls" else caller.ask_token_raw()
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, body, kind)
    counts = caller.gateway.counts
    assert (counts.answered, counts.refused, counts.tokens_issued, counts.token_requests_refused) == (0, 0, 0, 0)


def test_a_dropped_token_request_issues_nothing_unless_it_reached_kis(caller: Caller) -> None:
    caller.gateway.drop("tokens", 1)
    caller.gateway.drop("tokens", 1, reached=True)
    assert [outcome(caller.ask_token_raw) for _ in range(3)] == ["dropped", "dropped", "EGW00133"]
    counts = caller.gateway.counts
    assert (counts.token_requests, counts.tokens_issued, counts.token_requests_refused) == (3, 1, 1)


def test_same_token_makes_a_reissue_useless(caller: Caller) -> None:
    dead = caller.token()
    caller.gateway.expire()
    caller.gateway.drop("calls")
    caller.gateway.same_token(times=1)
    caller.gateway.refuse_tokens(1, msg_cd=None, status=500)
    assert caller.ask_token()[0] == 500, "other faults come first"
    assert caller.token() == dead
    caller.gateway.heal()
    assert caller.judged(dead) == "EGW00123"
    assert caller.ask_token()[1]["error_code"] == "EGW00133"
    caller.now += 60
    assert caller.token() != dead


def test_same_token_has_nothing_to_hand_out_before_the_first(caller: Caller) -> None:
    caller.gateway.same_token()
    assert caller.judged(caller.token()) == "MCA00000"


# -- shares


def test_a_share_of_the_calls_meets_its_fault(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00201", share=0.22)
    caller.gateway.fail(503, share=0.1)
    met = Counter(caller.outcomes(1_000))
    assert met["EGW00201"] == pytest.approx(220, rel=0.2)
    assert met["HTTP 503"] == pytest.approx(100, rel=0.3)
    assert met["MCA00000"] == caller.gateway.counts.answered == 1_000 - sum(caller.gateway.faults_met.values())


def test_shares_add_up_to_all_calls_and_not_to_more(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00201", share=0.5)
    caller.gateway.fail(share=0.5)
    assert set(caller.outcomes(100)) == {"EGW00201", "HTTP 503"}
    with pytest.raises(ValueError, match=r"share=0.2 is not usable: it takes a share that comes to 1 at most"):
        caller.gateway.drop(share=0.2)
    caller.gateway.drop("tokens", share=0.2)
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"]


def test_shares_that_come_to_all_but_for_rounding_fit() -> None:
    shares = (0.33, 0.56, 0.11)
    assert sum(shares) > 1
    gateway = KisGateway()
    for share in shares:
        gateway.drop(share=share)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, True, "0.1"])
def test_a_share_is_above_0_and_up_to_1(share: Any) -> None:
    with pytest.raises(ValueError, match=r"share=.* is not usable: it takes a number above 0, up to 1"):
        KisGateway().hang(share=share)


def test_the_same_seed_meets_the_same_calls(new_caller: NewCaller) -> None:
    courses = []
    for seed in (7, 7, 8):
        caller = new_caller(seed=seed)
        caller.gateway.refuse_calls("EGW00201", share=0.5)
        courses.append(caller.outcomes(64))
    assert courses[0] == courses[1] != courses[2]


def test_a_share_may_end_after_so_many_times(caller: Caller) -> None:
    caller.gateway.fail(times=2, share=0.5)
    assert Counter(caller.outcomes(50)) == {"HTTP 503": 2, "MCA00000": 48}


def test_limits_come_before_shares_and_the_queue_before_both(new_caller: NewCaller) -> None:
    caller = new_caller(rate_limit=10, seed=1)
    caller.gateway.refuse_calls("EGW00316", share=0.5)
    caller.gateway.refuse_calls("EGW00206", 1)
    met = Counter(caller.outcomes(31))
    assert (met["EGW00206"], met["EGW00201"]) == (1, 20), "each of the ten within the limit counts, refused or not"
    assert met["EGW00316"] + met["MCA00000"] == 10
    assert caller.gateway.faults_met == {"over_limit": 20, "EGW00316": met["EGW00316"], "EGW00206": 1}


# -- outages


@pytest.mark.parametrize(
    ("where", "call", "token"),
    [("both", "HTTP 500", "HTTP 500"), ("calls", "HTTP 500", "issued"), ("tokens", "MCA00000", "HTTP 500")],
)
def test_an_outage_lasts_its_seconds_and_not_one_more(caller: Caller, where: Any, call: str, token: str) -> None:
    caller.token()
    caller.now += 60
    caller.gateway.outage(8, where)
    caller.now += 7.875
    assert (caller.judged(), outcome(caller.ask_token_raw)) == (call, token)
    caller.now += 0.125
    assert caller.judged() == "MCA00000"
    assert outcome(caller.ask_token_raw) == ("EGW00133" if token == "issued" else "issued")
    assert caller.gateway.faults_met == {"outage": [call, token].count("HTTP 500")}
    assert caller.gateway.counts.refused == 0


def test_an_outage_of_the_token_endpoint_takes_all_of_oauth2(caller: Caller) -> None:
    caller.gateway.outage(60, "tokens", status=503)
    for path in ("/oauth2/tokenP", "/oauth2/revokeP", "/oauth2/Approval"):
        assert caller.post(path, {}).status_code == 503


def test_an_outage_may_drop_connections_and_last_until_it_is_healed(caller: Caller) -> None:
    caller.gateway.outage(status=None)
    caller.now += 86_000
    assert caller.judged() == "dropped"
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"]


def test_an_outage_may_begin_with_a_call(caller: Caller) -> None:
    caller.gateway.outage(5, at_call=3, status=503)
    assert caller.outcomes(4) == ["MCA00000", "MCA00000", "HTTP 503", "HTTP 503"]
    caller.now += 5
    assert caller.outcomes(1) == ["MCA00000"]
    with pytest.raises(ValueError, match="outage takes numbers of calls to come, from 6"):
        caller.gateway.outage(5, at_call=5)
    caller.gateway.outage(at_call=6, void_tokens=True)
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"], "one to come is forgotten when all is healed"


@pytest.mark.parametrize("seconds", [0, 10, None])
def test_tokens_may_be_void_after_an_outage(caller: Caller, seconds: float | None) -> None:
    caller.token()
    caller.now += 60
    caller.gateway.outage(seconds, void_tokens=True)
    if seconds is None:
        caller.gateway.heal()
    caller.now += seconds or 0
    assert caller.judged() == "EGW00121"
    caller.token()
    assert caller.judged() == "MCA00000"


def test_a_token_that_expires_during_an_outage_is_dead_after_it(caller: Caller) -> None:
    caller.gateway.expire_at(2)
    caller.gateway.outage(10)
    assert caller.outcomes(2) == ["HTTP 500"] * 2
    caller.now += 10
    assert caller.outcomes(1) == ["EGW00123"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"seconds": -1}, "seconds=-1"), ({"seconds": float("nan")}, "seconds=nan"), ({"where": "orders"}, "where=")],
)
def test_an_unusable_outage_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}.* is not usable: it takes"):
        KisGateway().outage(**arguments)


# -- as a page says it


def test_what_a_fault_says_where_nothing_is_said(caller: Caller) -> None:
    caller.gateway.garble(times=1)
    caller.gateway.fail(times=1)
    assert caller.outcomes(2) == ["HTTP 502", "HTTP 503"]
    caller.gateway.outage()
    assert requests.get(caller.gateway.url + PRICE, timeout=20).status_code == 500
