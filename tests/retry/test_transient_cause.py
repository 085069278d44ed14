"""The cause of what passes by itself: what it is met in, what it may repeat, how long it waits, and what it tells."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
import tenacity

from answers import GOOD
from calls import Slots, repeating, seen
from clocks import FakeClock
from kis_retry import RefreshEvent, RetryPolicy, retry_on_transient_error
from kis_retry.context import Sighting
from outcomes import scripted

BUSY = {"rt_cd": "1", "msg_cd": "EGW00316", "msg1": "재 조회 수행 부탁드립니다"}
LIMITED = json.loads('{"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}')
"""As it comes over the wire: equal to what is known, and no object of this program's."""
FINAL = {"rt_cd": "1", "msg_cd": "KIOK0560", "msg1": "종목코드 오류입니다."}
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


def the_cause(call: Any) -> Any:
    return call.causes[-1]


def failed(
    call: Any, response: Any = None, *, error: Exception | None = None, order: bool = False, acted: bool = True
) -> Sighting:
    """Have a request of `call` fail."""
    sighting = seen(method="POST", path=ORDER) if order else seen()
    call.observe_sent(sighting)
    sighting.response, sighting.error = response, error
    call.observe_failed(sighting, not_acted_upon=not acted)
    return sighting


# What it is met in.


@pytest.mark.parametrize(
    ("value", "met"), [(BUSY, True), (LIMITED, True), (FINAL, False), (GOOD, False), (None, False)]
)
def test_it_is_met_in_an_answer_that_says_so(value: object, met: bool) -> None:
    assert the_cause(repeating()).matches_value(value) is met


@pytest.mark.parametrize(
    ("error", "met"),
    [(requests.ConnectionError("dropped"), True), (httpx.ReadTimeout("slow"), True), (KeyError(), False)],
)
def test_it_is_met_in_an_error_that_says_so(error: Exception, met: bool) -> None:
    assert the_cause(repeating()).matches_error(error) is met


@pytest.mark.parametrize(
    ("response", "error", "met"),
    [
        (BUSY, None, True),
        (FINAL, None, False),
        (None, None, False),
        (None, requests.ConnectionError("dropped"), True),
        (None, ValueError(), False),
        (BUSY, ValueError(), False),
    ],
)
def test_it_is_met_in_the_last_request_that_was_seen_to_fail(response: Any, error: Any, met: bool) -> None:
    call, unwatched = repeating(), repeating(watch_transport=False)
    for one in (call, unwatched):
        failed(one, response, error=error)
    assert the_cause(call).matches_value(None) is the_cause(call).matches_error(KeyError()) is met
    assert not the_cause(unwatched).matches_value(None)
    assert not the_cause(unwatched).matches_error(KeyError())
    call.observe_answered(seen())
    assert not the_cause(call).matches_value(None)


@pytest.mark.parametrize("off", ["no deadline", "exhausted"])
def test_it_is_met_in_nothing_without_a_deadline_or_where_an_inner_call_has_given_up(off: str) -> None:
    call = repeating(policy=RetryPolicy(transient_deadline=0 if off == "no deadline" else 60))
    if off == "exhausted":
        call.mark_exhausted("transient")
    assert not the_cause(call).matches_value(BUSY)
    assert not the_cause(call).matches_error(requests.ConnectionError("dropped"))


# What it may repeat.


def state_after(seconds: float) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.start_time, state.outcome_timestamp = 100.0, 100.0 + seconds
    return state


def repeats(call: Any, value: object = None, error: Exception | None = None) -> bool:
    return not the_cause(call).stop(state_after(0.0), value, error)


@pytest.mark.parametrize(("seconds", "stops"), [(59.9, False), (60.0, True)])
def test_it_stops_at_the_deadline(seconds: float, stops: bool) -> None:
    assert the_cause(repeating()).stop(state_after(seconds), LIMITED, None) is stops


@pytest.mark.parametrize("idempotent", [None, True, False])
@pytest.mark.parametrize("code", ["EGW00001", "EGW00201", "EGW00316"])
def test_a_read_is_repeated_after_each_failure_and_an_order_after_one_alone(code: str, idempotent: bool | None) -> None:
    answer = json.loads(json.dumps({**BUSY, "msg_cd": code}))
    call = repeating(idempotent=idempotent)
    failed(call, answer)
    assert repeats(call, answer) is (idempotent is not False)
    for sent in (True, False):
        call = repeating(idempotent=idempotent)
        if sent:
            failed(call, answer, order=True, acted=code != "EGW00201")
        else:  # no request left, since no connection came about
            order = seen(method="POST", path=ORDER)
            order.response = answer
            call.observe_failed(order, not_acted_upon=False)
        assert repeats(call, answer) is (code == "EGW00201" and idempotent is not False)


def test_a_call_in_which_an_order_went_out_is_not_repeated_whatever_failed_since() -> None:
    call = repeating(idempotent=True)
    call.observe_sent(seen(method="POST", path=ORDER))
    failed(call, LIMITED)
    assert not repeats(call, LIMITED)


@pytest.mark.parametrize("seen_too", [True, False], ids=["beside another failure", "unseen"])
def test_what_was_refused_for_the_rate_is_repeated_whatever_it_was(seen_too: bool) -> None:
    call = repeating()
    if seen_too:
        failed(call, FINAL)
    assert repeats(call, LIMITED)
    assert not repeats(call, BUSY)


@pytest.mark.parametrize(
    ("sent", "repeated"),
    [
        ("a read", True),
        ("an order", False),
        ("a read that was answered", False),
        ("a read that failed", False),
        ("nothing", False),
    ],
)
def test_a_read_that_the_function_stopped_waiting_for_is_repeated(sent: str, repeated: bool) -> None:
    call, unwatched = repeating(), repeating(watch_transport=False)
    for one in (call, unwatched):
        request = seen(method="PUT" if sent == "an order" else "HEAD")
        request.response = GOOD if sent == "a read that was answered" else None
        request.error = ValueError() if sent == "a read that failed" else None
        if sent != "nothing":
            one.observe_sent(request)
    assert repeats(call, error=TimeoutError()) is repeated
    assert not repeats(unwatched, error=TimeoutError())
    assert repeats(repeating(idempotent=True, watch_transport=False), error=TimeoutError())


class HostileError(Exception):
    @property
    def request(self) -> Any:
        raise RuntimeError("there is none")


class CarryingError(Exception):
    """As those of `requests` and `httpx` carry what they are about."""

    def __init__(self, response: Any, request: Any = None) -> None:
        self.response = response
        self.request = request


def request_of(method: Any) -> Any:
    return SimpleNamespace(method=method)


@pytest.mark.parametrize(
    ("value", "error", "repeated"),
    [
        (SimpleNamespace(request=request_of("get")), None, True),
        (SimpleNamespace(request=request_of("POST")), None, False),
        (SimpleNamespace(request=None, request_info=request_of("GET")), None, True),
        (SimpleNamespace(request=request_of("GET"), request_info=request_of("POST")), None, True),
        (SimpleNamespace(method="Head"), None, True),
        (SimpleNamespace(method="POST"), None, False),
        (SimpleNamespace(request=request_of(""), method="GET"), None, True),
        (SimpleNamespace(request=request_of("POST"), method="GET"), None, False),
        (SimpleNamespace(request=request_of(5)), None, None),
        (SimpleNamespace(response=SimpleNamespace(request=request_of("GET"))), None, None),
        (None, CarryingError(SimpleNamespace(request=request_of("GET"))), True),
        (None, CarryingError(SimpleNamespace(request=request_of("GET")), request_of("POST")), False),
        (SimpleNamespace(request=request_of("GET")), TimeoutError(), None),
        (None, HostileError(), None),
        (None, httpx.ReadError("dropped"), None),
    ],
)
def test_unseen_it_is_known_by_the_request_that_the_outcome_carries(
    value: Any, error: Any, repeated: bool | None
) -> None:
    """Where it carries none, by `idempotent` alone."""
    assert repeats(repeating(), value, error) is bool(repeated)
    assert repeats(repeating(idempotent=True), value, error) is (repeated is not False)


# How long it waits.


@pytest.fixture
def fixed_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds after a refusal for the rate, seven after all else."""
    for name, seconds in (("RATE_WAIT", 3), ("TRANSIENT_WAIT", 7)):
        monkeypatch.setattr(f"kis_retry.retry.transient.{name}", tenacity.wait_fixed(seconds))


@pytest.mark.usefixtures("fixed_waits")
@pytest.mark.parametrize(
    ("outcome", "rate", "waited"), [(LIMITED, 18.0, 0.0), (LIMITED, 0.0, 3.0), (BUSY, 18.0, 7.0), (BUSY, 0.0, 7.0)]
)
def test_the_wait_is_the_next_slot_after_a_refusal_for_the_rate_where_there_is_a_pace(
    clock: FakeClock, events: list[RefreshEvent], outcome: Any, rate: float, waited: float
) -> None:
    slots = Slots()
    slots.rate = rate
    assert retry_on_transient_error(scripted(outcome, GOOD), limiter=slots, idempotent=True)() == GOOD
    assert clock.slept == [waited]
    assert [event.elapsed for event in events] == [waited, waited]
    assert slots.asked == [60.0, 60.0 - waited], "and a slot that comes later than the deadline is not waited for"


@pytest.mark.usefixtures("fixed_waits")
@pytest.mark.parametrize(("deadline", "slept"), [(0.5, [0.5]), (7.0, [7.0]), (10.0, [7.0, 3.0])])
def test_the_last_wait_ends_at_the_deadline(clock: FakeClock, deadline: float, slept: list[float]) -> None:
    policy = RetryPolicy(transient_deadline=deadline)
    assert retry_on_transient_error(scripted(BUSY), policy=policy, idempotent=True)() == BUSY
    assert clock.slept == slept


# What it tells.


@pytest.mark.parametrize(
    ("msg_cd", "error", "swallowed", "told"),
    [
        ("EGW00316", KeyError(), ValueError(), None),
        (None, KeyError(), ValueError(), "KeyError"),
        (None, None, ValueError(), "ValueError"),
        (None, None, None, "HTTPError"),
    ],
)
def test_why_it_is_repeated_is_kiss_code_or_else_the_type_of_what_went_wrong(
    events: list[RefreshEvent], msg_cd: str | None, error: Any, swallowed: Any, told: str | None
) -> None:
    call = repeating()
    assert the_cause(call).prepare(2.5, msg_cd, error)
    failed(call, BUSY, error=swallowed)
    assert the_cause(call).prepare(2.5, msg_cd, error)
    assert [event.name for event in events] == ["call_retried"] * 2
    last = events[-1]
    assert (last.msg_cd, last.error, last.elapsed, last.attempt) == (msg_cd, told, 2.5, 1)
    assert events[0].error == (None if msg_cd else "KeyError" if error else "HTTPError")
