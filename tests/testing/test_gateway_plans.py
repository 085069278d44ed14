"""Limits, faults, outages and counts as plans: what meets a request, with time and numbers in the test's hand."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry.testing import KisGateway, rules
from kis_retry.testing.counts import Counts
from kis_retry.testing.faults import Drop, Fault, FaultPlan
from kis_retry.testing.issued import TokenBook
from kis_retry.testing.limits import CallLimit
from kis_retry.testing.outages import Outage, OutagePlan
from kis_retry.testing.pages import Listing
from kis_retry.testing.received import MEMORY
from kis_retry.testing.wire import Dropped, Request, WireResponse

if TYPE_CHECKING:
    from kis_retry.testing.faults import Where

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


def another(text: Any) -> Any:
    """The same text in another object, as what comes out of a file is."""
    return text.encode().decode()


# -- limits


@pytest.mark.parametrize(
    ("window", "now", "has_room"),
    [
        ("fixed", 10.99, False),
        ("fixed", 11.0, False),
        ("fixed", 11.99, False),
        ("fixed", 12.0, True),
        ("sliding", 11.4, False),
        ("sliding", 11.5, True),
    ],
)
def test_a_call_is_forgotten_when_its_second_is_over(window: Any, now: float, has_room: bool) -> None:
    limit = CallLimit(2, window)
    for taken in (10.5, 11.25) if window == "sliding" else (11.0, 11.25):
        limit.take(taken)
    assert limit.has_room(now) is has_room


def test_of_the_calls_of_two_seconds_only_the_old_ones_are_forgotten() -> None:
    limit = CallLimit(2, "fixed")
    limit.take(10.5)
    limit.take(11.5)
    assert limit.has_room(11.75)
    limit.take(11.75)
    assert not limit.has_room(11.75)


def test_a_limit_of_hundreds_is_full_when_they_are_taken() -> None:
    limit = CallLimit(300, "sliding")
    for _ in range(300):
        assert limit.has_room(10.0)
        limit.take(10.0)
    assert not limit.has_room(10.0)


# -- faults


def plan_of(*faults: Fault) -> FaultPlan:
    plan = FaultPlan(seed=1)
    for fault in faults:
        plan.add(fault)
    return plan


def dropping(where: Where = "calls", share: float | None = None, path: str = "", left: int | None = None) -> Fault:
    return Fault("dropped", Drop(reached=False), where, path, left, share)


def test_a_request_need_not_be_made_of_the_same_objects_as_the_fault() -> None:
    fault = dropping(another("calls"), path=another("/trading/"))
    assert fault.meets("calls", ORDER)
    assert not fault.meets("tokens", ORDER)
    assert not fault.meets("calls", "/uapi/else")


@pytest.mark.parametrize("order", [("calls", "tokens"), ("tokens", "calls")])
def test_shares_of_calls_and_of_tokens_are_counted_apart(order: tuple[Where, Where]) -> None:
    plan_of(*(dropping(where, share=0.9) for where in order))
    with pytest.raises(ValueError, match=r"share=0\.2 is not usable: with those before it, it comes to 1\.1 of 1"):
        plan_of(dropping("calls", share=0.9), dropping(another("calls"), share=0.2))


def test_shares_of_two_paths_are_counted_apart_and_those_of_all_paths_with_each() -> None:
    plan_of(dropping(share=0.9, path="/a"), dropping(share=0.9, path="/b"), dropping(share=0.9, path="/"))
    with pytest.raises(ValueError, match=r"comes to 1\.1 of 1"):
        plan_of(dropping(share=0.9), dropping(share=0.2, path="/a"))
    with pytest.raises(ValueError, match=r"comes to 1\.1 of 1"):
        plan_of(dropping(share=0.9, path="/a"), dropping(share=0.2, path=another("/a")))


def test_shares_that_come_to_all_but_for_rounding_fit() -> None:
    shares = (0.33, 0.56, 0.11)
    assert shares[2] + (shares[0] + shares[1]) > 1
    plan_of(*(dropping(share=share) for share in shares))
    plan_of(dropping(share=0.5), dropping(share=0.500000001))


def test_a_share_meets_a_request_of_its_own_kind_and_path_alone() -> None:
    plan = plan_of(dropping(share=1, path="/trading/"))
    assert plan.drawn("calls", ORDER) is not None
    assert plan.drawn("tokens", ORDER) is None
    assert plan.drawn("calls", "/uapi/else") is None


@pytest.mark.parametrize("share", [None, 1.0])
def test_a_fault_that_was_met_so_many_times_is_no_longer_in_the_plan(share: float | None) -> None:
    plan = plan_of(dropping(left=2, share=share))
    for left in (True, False):
        assert (plan.next_in_queue if share is None else plan.drawn)("calls", ORDER) is not None
        assert bool(plan) is left


@pytest.mark.parametrize("fault", ["refuse_calls", "drop", "hang", "garble", "fail"])
def test_no_fault_lets_an_order_reach_kis_unless_it_says_so(fault: str) -> None:
    gateway = KisGateway()
    token = gateway.issue_elsewhere()["access_token"]
    getattr(gateway, fault)()
    gateway.receive(Request("POST", ORDER, headers={"authorization": f"Bearer {token}"}, body=b"{}"))
    assert gateway.orders == []


@pytest.mark.parametrize("code", ["1", "12345", 0])
def test_a_short_number_is_no_code_of_kis(code: Any) -> None:
    with pytest.raises(ValueError, match=f"times={code!r} is not usable: it takes a whole number from 1"):
        KisGateway().refuse_calls(code)


@pytest.mark.parametrize("code", ["123456", "40240000", "APBK0919"])
def test_a_long_number_is_a_code_of_kis(code: str) -> None:
    gateway = KisGateway()
    gateway.refuse_calls(code)
    gateway.receive(Request("GET", "/uapi/else"))
    assert gateway.faults_met == {code: 1}


def test_what_a_fault_says_where_nothing_is_said() -> None:
    gateway = KisGateway()
    gateway.garble(times=1)
    gateway.hang(times=1)
    gateway.limit_calls(1)
    responses: list[Any] = [gateway.receive(Request("GET", "/uapi/else")) for _ in range(4)]
    gateway.outage()
    responses.append(gateway.receive(Request("GET", "/uapi/else")))
    assert (responses[0].status, responses[1].seconds, responses[3].status, responses[4].status) == (502, 30, 500, 500)
    assert json.loads(responses[3].body)["msg_cd"] == "EGW00201"


@pytest.mark.parametrize(
    ("method", "too_many"),
    [
        ("limit_calls", (1, "sliding")),
        ("list_pages", ("/x", 3, 10, "100")),
        ("refuse_tokens", ("EGW00103", 1, 403)),
        ("drop", ("calls", 1, True)),
        ("hang", ("calls", 1, 1.0, True)),
        ("garble", ("calls", 1, b"", 502, True)),
        ("fail", (503, 1, "calls", 2)),
        ("outage", (1, "both", 500)),
    ],
)
def test_what_nobody_can_read_off_its_place_takes_a_name(method: str, too_many: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        getattr(KisGateway(), method)(*too_many)


@pytest.mark.parametrize("made", [KisGateway, TokenBook, Listing])
def test_a_setting_takes_a_name(made: Any) -> None:
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        made(500)


# -- outages


def test_outages_that_are_over_are_told_once_however_late() -> None:
    plan = OutagePlan()
    over, lasting, to_come = (Outage("calls", seconds, 500, False, 9) for seconds in (5.0, 50.0, 5.0))
    for outage in (over, lasting, to_come):
        plan.add(outage)
    over.begin(100.0)
    lasting.begin(100.0)
    assert plan.take_ended(104.9) == []
    assert plan.take_ended(117.0) == [over]
    assert plan.take_ended(117.0) == []
    assert plan.clear() == [lasting]
    assert not plan


def test_an_outage_begins_with_its_call_however_many_came_before() -> None:
    gateway = KisGateway()
    gateway.outage(at_call=300, status=None)
    found = [type(gateway.receive(Request("GET", "/uapi/else"))) for _ in range(301)]
    assert found == [WireResponse] * 299 + [Dropped] * 2


@pytest.mark.parametrize("where", ["tokens", "both"])
def test_an_outage_of_the_token_endpoint_takes_all_of_oauth2(where: Any) -> None:
    gateway = KisGateway()
    gateway.outage(60, where, status=503)
    for path in ("/oauth2/tokenP", "/oauth2/revokeP", "/oauth2/Approval"):
        response = gateway.receive(Request("POST", path, body=b"{}"))
        assert isinstance(response, WireResponse)
        assert response.status == 503


def test_an_outage_of_no_seconds_is_over_at_once() -> None:
    gateway = KisGateway(clock=lambda: 1_000.0)
    token = gateway.issue_elsewhere()["access_token"]
    gateway.outage(0, void_tokens=True)
    response = gateway.receive(Request("GET", "/uapi/else", headers={"authorization": f"Bearer {token}"}))
    assert isinstance(response, WireResponse)
    assert json.loads(response.body)["msg_cd"] == "EGW00121"
    assert gateway.faults_met == {}


# -- what is remembered


def test_a_gateway_takes_no_time_unless_it_is_told_to() -> None:
    assert KisGateway().latency == 0


def test_counts_begin_at_nothing_and_cannot_be_changed() -> None:
    counts = Counts()
    assert set(counts.values()) == {0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        counts.calls = 1  # type: ignore[misc]  # the mistake under test


def test_only_the_last_requests_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"The last {MEMORY:,} requests" in (KisGateway.received.__doc__ or "")
    monkeypatch.setattr(rules, "MEMORY", 3)
    gateway = KisGateway()
    for number in range(5):
        gateway.receive(Request("GET", f"/uapi/{number}"))
    assert [request.path for request in gateway.received] == ["/uapi/2", "/uapi/3", "/uapi/4"]
