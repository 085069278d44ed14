"""Limits, shares, failures and outages of the gateway for tests, on a clock of the test's own."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from kis_retry.testing import KisGateway
from kis_retry.testing.wire import TEXTS, Dropped, Hung, Request, Response, WireResponse

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
NINE_IN_SEOUL = 1_795_478_400.0  # 2026-11-24 09:00:00 +09:00

TABLE = [f"EGW{number:05d}" for number in (1, 2, 201, 202, 203, 206, 207, 215, 300, 301, 302, 303, 316)]
TABLE += ["OPSQ0003", "OPSQ0010", "OPSQ0011", "OPSQ1002"]


class Caller:
    """Somebody with a good token, who counts the seconds himself."""

    def __init__(self, **settings: Any) -> None:
        self.now = NINE_IN_SEOUL
        self.gateway = KisGateway(clock=lambda: self.now, **settings)
        self.gateway.claim("http://gateway.test")
        self.token = self.gateway.issue_elsewhere()["access_token"]

    def call(self, method: str = "GET", path: str = PRICE, body: object = None) -> Response:
        headers = {"authorization": f"Bearer {self.token}", "tr_id": "FHKST01010100"}
        query = {"FID_INPUT_ISCD": "005930"} if method == "GET" else {}
        return self.gateway.receive(Request(method, path, query, headers, json.dumps(body).encode()))

    def ask_token(self) -> Response:
        credentials = self.gateway.credentials
        body = {
            "grant_type": "client_credentials",
            "appkey": credentials.app_key,
            "appsecret": credentials.app_secret,
        }
        return self.gateway.receive(Request("POST", "/oauth2/tokenP", body=json.dumps(body).encode()))

    def outcomes(self, calls: int) -> list[str]:
        return [outcome(self.call()) for _ in range(calls)]


def outcome(response: Response) -> str:
    """The code of KIS, or what came instead of one."""
    if not isinstance(response, WireResponse):
        return type(response).__name__
    try:
        body = json.loads(response.body)
    except ValueError:
        return f"HTTP {response.status}"
    return str(body.get("msg_cd") or body.get("error_code") or "issued")


@pytest.fixture
def caller() -> Caller:
    return Caller(seed=1)


# -- limits


def test_no_sliding_second_holds_more_calls_than_the_limit() -> None:
    caller = Caller(rate_limit=3)
    caller.now += 0.5  # it begins with no second of the clock
    answered = []
    for _ in range(400):
        if outcome(caller.call()) == "MCA00000":
            answered.append(caller.now)
        caller.now += 1 / 64
    assert all(later - earlier >= 1 for earlier, later in zip(answered, answered[3:], strict=False))
    assert len(answered) == 3 * 7


def test_a_fixed_second_begins_with_the_second_of_the_clock() -> None:
    caller = Caller(rate_limit=2, rate_window="fixed")
    caller.now += 0.875
    assert caller.outcomes(3) == ["MCA00000", "MCA00000", "EGW00201"]
    caller.now += 0.125
    assert caller.outcomes(3) == ["MCA00000", "MCA00000", "EGW00201"]
    caller.now += 0.875
    assert caller.outcomes(1) == ["EGW00201"]


def test_calls_past_the_limit_do_not_count_towards_it() -> None:
    caller = Caller(rate_limit=1)
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
    response = caller.call()
    assert isinstance(response, WireResponse)
    assert response.status == 200
    caller.gateway.heal()
    assert caller.outcomes(1) == ["EGW00201"], "a limit is no fault to be healed"
    caller.gateway.limit_calls(None)
    assert caller.outcomes(20) == ["MCA00000"] * 20


def test_the_ledger_has_a_limit_of_its_own_beside_the_gateways(caller: Caller) -> None:
    caller.gateway.limit_calls(3)
    caller.gateway.limit_calls(1, path="/trading/", msg_cd="EGW00215")
    assert outcome(caller.call("POST", ORDER, {"n": 1})) == "MCA00000"
    assert outcome(caller.call("POST", ORDER, {"n": 2})) == "EGW00215"
    assert caller.outcomes(3) == ["MCA00000", "MCA00000", "EGW00201"]
    assert caller.gateway.orders == [{"n": 1}]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"per_second": 0}, "per_second=0"),
        ({"per_second": True}, "per_second=True"),
        ({"per_second": 1, "window": "rolling"}, "window='rolling'"),
    ],
)
def test_an_unusable_limit_is_named(caller: Caller, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} is not usable: it takes"):
        caller.gateway.limit_calls(**arguments)


# -- codes


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("msg_cd", TABLE)
def test_every_row_of_the_table_comes_in_the_words_of_kis(caller: Caller, msg_cd: str, status: int) -> None:
    caller.gateway.refuse_calls(msg_cd, status=status)
    response = caller.call()
    assert isinstance(response, WireResponse)
    assert (response.status, json.loads(response.body)) == (
        status,
        {"rt_cd": "1", "msg_cd": msg_cd, "msg1": TEXTS[msg_cd]},
    )
    assert caller.gateway.faults_met == {msg_cd: 1}


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
        (("40240000", 1), {}, ["40240000", "MCA00000", "MCA00000"]),
        ((), {}, ["EGW00123", "EGW00123", "EGW00123"]),
    ],
)
def test_refuse_calls_takes_code_and_times_in_either_order(
    caller: Caller, given: tuple[Any, ...], named: dict[str, Any], expected: list[str]
) -> None:
    caller.gateway.refuse_calls(*given, **named)
    assert caller.outcomes(3) == expected


@pytest.mark.parametrize(
    ("given", "named", "expected"),
    [
        (("EGW00133", 1), {}, ["EGW00133", "issued"]),
        ((1, "EGW00133"), {}, ["EGW00133", "issued"]),
        ((1,), {"code": "EGW00133"}, ["EGW00133", "issued"]),
        (("EGW00133",), {}, ["EGW00133", "EGW00133"]),
        ((1,), {}, ["EGW00103", "issued"]),
    ],
)
def test_refuse_tokens_takes_code_and_times_in_either_order(
    caller: Caller, given: tuple[Any, ...], named: dict[str, Any], expected: list[str]
) -> None:
    caller.now += 60
    caller.gateway.refuse_tokens(*given, **named)
    assert [outcome(caller.ask_token()) for _ in range(2)] == expected


@pytest.mark.parametrize(
    ("given", "named"),
    [(("EGW00201", "EGW00202"), {}), ((1, 2), {}), ((1,), {"times": 2}), (("EGW00201", 1), {"times": 2})],
)
def test_two_codes_or_two_numbers_are_an_error(caller: Caller, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="one code and one number of times"):
        caller.gateway.refuse_calls(*given, **named)
    with pytest.raises(TypeError, match="one code and one number of times"):
        caller.gateway.refuse_tokens(*given, **named)


def test_a_refused_order_that_reached_kis_is_placed(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00301", 1, reached=True)
    assert outcome(caller.call("POST", ORDER, {"n": 1})) == "EGW00301"
    assert caller.gateway.orders == [{"n": 1}]


# -- statuses without a verdict


@pytest.mark.parametrize(
    ("status", "page"), [(429, b"429 Too Many Requests"), (503, b"503 Service Unavailable"), (599, b"599")]
)
def test_fail_answers_with_a_status_and_no_verdict(caller: Caller, status: int, page: bytes) -> None:
    caller.gateway.fail(status, 1, retry_after=2)
    response = caller.call()
    assert isinstance(response, WireResponse)
    assert (response.status, response.headers) == (status, {"Content-Type": "text/html", "Retry-After": "2"})
    assert page in response.body
    assert caller.gateway.faults_met == {f"HTTP {status}": 1}
    assert caller.outcomes(1) == ["MCA00000"]


@pytest.mark.parametrize("fault", ["fail", "garble", "drop"])
@pytest.mark.parametrize("reached", [False, True])
def test_an_order_is_placed_where_only_its_answer_is_lost(caller: Caller, fault: str, reached: bool) -> None:
    getattr(caller.gateway, fault)(reached=reached)
    response = caller.call("POST", ORDER, {"n": 1})
    assert not isinstance(response, WireResponse) or response.status in {502, 503}
    assert caller.gateway.orders == ([{"n": 1}] if reached else [])


# -- shares


def test_a_share_of_the_calls_meets_its_fault(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00201", share=0.22)
    caller.gateway.drop(share=0.01)
    caller.gateway.fail(503, share=0.01)
    met = Counter(caller.outcomes(4_000))
    assert met["EGW00201"] == pytest.approx(880, rel=0.05)
    assert met["Dropped"] == pytest.approx(40, rel=0.3)
    assert met["HTTP 503"] == pytest.approx(40, rel=0.3)
    assert met["MCA00000"] == caller.gateway.counts.answered == 4_000 - sum(caller.gateway.faults_met.values())


def test_shares_add_up_to_all_calls(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00201", share=0.5)
    caller.gateway.drop(share=0.5)
    assert set(caller.outcomes(500)) == {"EGW00201", "Dropped"}


def test_more_than_all_calls_cannot_be_met(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00201", share=0.9)
    with pytest.raises(ValueError, match=r"share=0.2 is not usable: with those before it, it comes to 1.1 of 1"):
        caller.gateway.drop(share=0.2)
    caller.gateway.drop("tokens", share=0.2)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, True, "0.1"])
def test_a_share_is_above_0_and_up_to_1(caller: Caller, share: Any) -> None:
    with pytest.raises(ValueError, match=r"share=.* is not usable: it takes a number above 0, up to 1"):
        caller.gateway.hang(share=share)


def test_the_same_seed_meets_the_same_calls() -> None:
    courses = []
    for seed in (7, 7, 8):
        caller = Caller(seed=seed)
        caller.gateway.refuse_calls("EGW00201", share=0.5)
        courses.append(caller.outcomes(64))
    assert courses[0] == courses[1] != courses[2]


def test_a_share_may_end_after_so_many_times(caller: Caller) -> None:
    caller.gateway.drop(times=2, share=0.5)
    assert Counter(caller.outcomes(100)) == {"Dropped": 2, "MCA00000": 98}


def test_random_refusals_are_within_the_limit() -> None:
    caller = Caller(rate_limit=10, seed=1)
    caller.gateway.refuse_calls("EGW00316", share=0.5)
    met = Counter(caller.outcomes(30))
    assert met["EGW00201"] == 20, "each of the ten within the limit counts, refused at random or not"
    assert met["EGW00316"] + met["MCA00000"] == 10
    assert caller.gateway.faults_met == {"over_limit": 20, "EGW00316": met["EGW00316"]}


def test_the_queue_comes_before_the_shares(caller: Caller) -> None:
    caller.gateway.drop(share=1)
    caller.gateway.refuse_calls("EGW00316", 1)
    assert caller.outcomes(2) == ["EGW00316", "Dropped"]


def test_a_fault_may_be_for_some_paths_alone(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00215", 1, path="/trading/")
    caller.gateway.drop(share=1, path="/trading/")
    assert caller.outcomes(2) == ["MCA00000"] * 2
    assert outcome(caller.call("POST", ORDER)) == "EGW00215"
    assert outcome(caller.call("POST", ORDER)) == "Dropped"


def test_heal_ends_shares_too(caller: Caller) -> None:
    caller.gateway.drop(share=1)
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"]


# -- outages


@pytest.mark.parametrize(
    ("where", "call", "token"),
    [("both", "HTTP 500", "HTTP 500"), ("calls", "HTTP 500", "issued"), ("tokens", "MCA00000", "HTTP 500")],
)
def test_an_outage_lasts_its_seconds_and_not_one_more(caller: Caller, where: Any, call: str, token: str) -> None:
    caller.now += 60
    caller.gateway.outage(8, where)
    caller.now += 7.875
    assert (outcome(caller.call()), outcome(caller.ask_token())) == (call, token)
    caller.now += 0.125
    assert outcome(caller.call()) == "MCA00000"
    assert outcome(caller.ask_token()) == ("EGW00133" if token == "issued" else "issued")
    met = [call, token].count("HTTP 500")
    assert caller.gateway.faults_met == {"outage": met}
    counts = caller.gateway.counts
    assert (counts.calls, counts.token_requests, counts.refused) == (2, 2, 0)
    assert counts.answered + counts.tokens_issued + met + counts.token_requests_refused == 4


def test_an_outage_may_drop_connections_and_last_until_it_is_healed(caller: Caller) -> None:
    caller.gateway.outage(status=None)
    caller.now += 86_000
    assert caller.call() == Dropped()
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"]


def test_an_outage_may_begin_with_a_call(caller: Caller) -> None:
    caller.gateway.outage(5, at_call=3, status=503)
    assert caller.outcomes(4) == ["MCA00000", "MCA00000", "HTTP 503", "HTTP 503"]
    caller.now += 5
    assert caller.outcomes(1) == ["MCA00000"]
    with pytest.raises(ValueError, match="outage takes numbers of calls to come, from 6"):
        caller.gateway.outage(5, at_call=5)


def test_tokens_may_be_void_after_an_outage(caller: Caller) -> None:
    caller.now += 60
    caller.gateway.outage(10, void_tokens=True)
    assert outcome(caller.call()) == "HTTP 500"
    caller.now += 10
    assert outcome(caller.call()) == "EGW00121"
    assert outcome(caller.ask_token()) == "issued"
    caller.token = str(caller.gateway.current_token)
    assert outcome(caller.call()) == "MCA00000"


def test_tokens_are_void_after_an_outage_that_is_healed(caller: Caller) -> None:
    caller.gateway.outage(void_tokens=True)
    caller.gateway.heal()
    assert outcome(caller.call()) == "EGW00121"


def test_an_outage_to_come_is_forgotten_when_all_is_healed(caller: Caller) -> None:
    caller.gateway.outage(5, at_call=1, void_tokens=True)
    caller.gateway.heal()
    assert caller.outcomes(1) == ["MCA00000"]


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
def test_an_unusable_outage_is_named(caller: Caller, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}.* is not usable: it takes"):
        caller.gateway.outage(**arguments)


# -- what is remembered


def test_each_request_is_remembered_with_what_became_of_it(caller: Caller) -> None:
    caller.gateway.drop(times=1)
    caller.call()
    caller.now += 1.5
    caller.call("POST", ORDER, {"PDNO": "000660"})
    caller.ask_token()
    assert [tuple(request) for request in caller.gateway.received] == [
        (NINE_IN_SEOUL, "GET", PRICE, "FHKST01010100", "005930", "dropped"),
        (NINE_IN_SEOUL + 1.5, "POST", ORDER, "FHKST01010100", "000660", "answered"),
        (NINE_IN_SEOUL + 1.5, "POST", "/oauth2/tokenP", "", "", "EGW00133"),
    ]
    assert caller.gateway.arrivals == [NINE_IN_SEOUL, NINE_IN_SEOUL + 1.5]


@pytest.mark.parametrize(
    ("query", "symbol"),
    [
        ({"SYMB": "AAPL"}, "AAPL"),
        ({"pdno": "005930"}, "005930"),
        ({"SHT_CD": ""}, ""),
        ({"CANO": "12345678"}, ""),
        ({"SYMB": "AAPL", "FID_INPUT_ISCD": "005930"}, "005930"),
    ],
)
def test_the_symbol_is_what_a_call_asks_for_and_never_an_account(
    caller: Caller, query: dict[str, str], symbol: str
) -> None:
    caller.gateway.receive(Request("GET", "/uapi/else", query))
    assert caller.gateway.received[0].symbol == symbol


def test_reset_counts_forgets_what_was_met_and_received(caller: Caller) -> None:
    caller.gateway.refuse_calls("EGW00201")
    caller.outcomes(3)
    assert caller.gateway.faults_met == {"EGW00201": 3}
    caller.gateway.reset_counts()
    assert (caller.gateway.faults_met, caller.gateway.received, caller.gateway.arrivals) == ({}, [], [])


def test_counts_has_the_six_names_whatever_was_met(caller: Caller) -> None:
    caller.gateway.drop(times=1)
    caller.gateway.hang(times=1)
    caller.gateway.garble(times=1)
    assert [type(caller.call()) for _ in range(3)] == [Dropped, Hung, WireResponse]
    assert caller.gateway.faults_met == {"dropped": 1, "hung": 1, "garbled": 1}
    assert caller.gateway.counts == {
        "calls": 3,
        "answered": 0,
        "refused": 0,
        "token_requests": 0,
        "tokens_issued": 0,
        "token_requests_refused": 0,
    }
