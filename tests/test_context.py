"""What a call notes of its requests, some of which are on their way together, and of the calls around it."""

from __future__ import annotations

import pytest

from answers import PRICE
from kis_retry.context import CURRENT, Call, Sighting, bypassed, current_call, is_bypassed

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
HASHKEY = "/uapi/hashkey"


def sent(method: str = "GET", path: str = PRICE, *, query: str = "", body: int | None = None) -> Sighting:
    return Sighting(method, "kis.example", path, "key", "token", query=query, body=body)


def call(parent: Call | None = None) -> Call:
    return Call("fetch", parent, (1,), {"symbol": "005930"})


@pytest.fixture
def chain() -> list[Call]:
    """A call, the one around it, which has ended, and the one around that."""
    outermost = call()
    middle = call(outermost)
    innermost = call(middle)
    middle.finish()
    return [innermost, middle, outermost]


# -- one request


@pytest.mark.parametrize(
    ("method", "path", "is_order"),
    [
        *(("GET", PRICE, False), ("HEAD", PRICE, False), ("GET", ORDER, False), ("POST", ORDER, True)),
        *(("POST", PRICE, True), ("PUT", ORDER, True), ("DELETE", ORDER, True), ("OPTIONS", ORDER, True)),
        *(("POST", HASHKEY, False), ("POST", f"{HASHKEY}/", False), ("POST", f"/v1{HASHKEY}", True)),
    ],
)
def test_anything_but_a_read_or_a_hash_may_be_an_order(method: str, path: str, is_order: bool) -> None:
    assert sent(method, path).is_order is is_order


def test_a_request_that_is_made_again_is_the_same_with_whatever_token() -> None:
    first, again = (
        Sighting("POST", "kis.example", ORDER, "key", token, query="a=1", body=5) for token in ("dead", "fresh")
    )
    assert first.identity == again.identity
    assert (first.token, first.carried, again.token) == ("dead", "dead", "fresh")
    assert first.number < again.number
    assert (first.response, first.error) == (None, None)


@pytest.mark.parametrize(
    "other",
    [
        Sighting("PUT", "kis.example", ORDER, "key", None, query="a=1", body=5),
        Sighting("POST", "vts.example", ORDER, "key", None, query="a=1", body=5),
        Sighting("POST", "kis.example", PRICE, "key", None, query="a=1", body=5),
        Sighting("POST", "kis.example", ORDER, "other", None, query="a=1", body=5),
        Sighting("POST", "kis.example", ORDER, "key", None, query="a=2", body=5),
        Sighting("POST", "kis.example", ORDER, "key", None, query="a=1", body=6),
        Sighting("POST", "kis.example", ORDER, "key", None, query="a=1"),
        Sighting("POST", "kis.example", ORDER, "key", None, body=5),
    ],
)
def test_a_request_that_differs_in_anything_else_is_another(other: Sighting) -> None:
    assert Sighting("POST", "kis.example", ORDER, "key", None, query="a=1", body=5).identity != other.identity


def test_query_and_body_which_are_alike_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Sighting("GET", "kis.example", PRICE, "key", "token", "a=1", None)  # type: ignore[call-arg]  # the mistake this is about
    with pytest.raises(TypeError):
        call().observe_failed(sent(), True)  # type: ignore[call-arg]  # as above


# -- what a call knows of its requests


def test_a_call_begins_with_nothing_seen() -> None:
    fresh = call()
    assert (fresh.attempt, fresh.failed, fresh.last_failed, fresh.last_sent) == (1, None, None, None)
    assert (list(fresh.orders), fresh.refused(), fresh.exhausted, fresh.finished) == ([], [], frozenset(), False)


def test_a_request_is_seen_by_every_call_around_it_that_still_runs(chain: list[Call]) -> None:
    order, read = sent("POST", ORDER), sent()
    for sighting in (order, read):
        chain[0].observe_sent(sighting)
    assert [(one.last_sent, list(one.orders)) for one in chain] == [(read, [order]), (None, []), (read, [order])]


def test_an_order_that_was_refused_before_it_acted_is_none(chain: list[Call]) -> None:
    refused, kept = sent("POST", ORDER), sent("POST", ORDER)
    chain[0].observe_sent(refused)
    chain[0].observe_sent(kept)
    chain[0].observe_failed(kept, not_acted_upon=False)
    chain[0].observe_failed(refused, not_acted_upon=True)
    chain[0].observe_failed(refused, not_acted_upon=True)
    chain[0].observe_failed(sent(), not_acted_upon=True)
    assert [list(one.orders) for one in chain] == [[kept], [], [kept]]


def test_a_failure_is_noted_by_every_call_around_it_that_still_runs(chain: list[Call]) -> None:
    away, refused = sent(), sent(query="page=2")
    chain[0].observe_failed(refused, not_acted_upon=True, for_its_token=True)
    chain[0].observe_failed(away, not_acted_upon=False)
    assert [one.last_failed for one in chain] == [away, None, away]
    assert [one.failed for one in chain] == [away, None, away]
    assert [one.refused() for one in chain] == [[refused], [], [refused]]


def test_a_good_answer_undoes_a_refusal_only_of_a_request_that_was_sent_after_it() -> None:
    one = call()
    refused, beside = sent(), sent()
    one.observe_failed(refused, not_acted_upon=True, for_its_token=True)
    one.observe_answered(beside)
    assert (one.refused(), one.last_failed) == ([refused], refused)
    one.observe_answered(sent())
    assert (one.refused(), one.last_failed, one.failed) == ([], None, refused)


def test_a_good_answer_to_another_request_leaves_the_refusal_standing() -> None:
    one = call()
    refused = sent()
    one.observe_failed(refused, not_acted_upon=True, for_its_token=True)
    one.observe_answered(sent(query="page=2"))
    assert (one.refused(), one.last_failed) == ([refused], None)


def test_a_good_answer_counts_for_every_call_around_it_that_still_runs(chain: list[Call]) -> None:
    chain[0].observe_failed(sent(), not_acted_upon=True, for_its_token=True)
    chain[0].observe_answered(sent())
    assert [(one.refused(), one.last_failed) for one in chain] == [([], None)] * 3


def test_a_failure_after_a_recovery_is_a_failure_again() -> None:
    one = call()
    one.observe_failed(sent(), not_acted_upon=True)
    one.observe_answered(sent())
    later = sent()
    one.observe_failed(later, not_acted_upon=True)
    assert one.last_failed is later


def test_good_answers_alone_leave_nothing() -> None:
    one = call()
    one.observe_answered(sent())
    assert (one.last_failed, one.refused()) == (None, [])
    failed = sent()
    one.observe_failed(failed, not_acted_upon=True)
    assert one.last_failed is failed


# -- another attempt


def test_another_attempt_forgets_all_but_the_orders(chain: list[Call]) -> None:
    order, refused = sent("POST", ORDER), sent()
    chain[0].observe_sent(order)
    chain[0].observe_sent(refused)
    chain[0].observe_failed(refused, not_acted_upon=True, for_its_token=True)
    chain[0].forget_outcome()
    assert (chain[0].failed, chain[0].last_failed, chain[0].last_sent) == (None, None, None)
    assert list(chain[0].orders) == list(chain[2].orders) == [order]
    assert [one.refused() for one in chain] == [[], [], []]
    assert chain[2].failed is refused, "of its own attempt"
    failed = sent()
    chain[0].observe_failed(failed, not_acted_upon=True)
    assert chain[0].last_failed is failed


def test_another_attempt_forgets_no_refusal_that_the_call_around_it_met_elsewhere(chain: list[Call]) -> None:
    elsewhere, again, here = sent(query="page=1"), sent(query="page=2"), sent(query="page=3")
    sibling = call(chain[2])
    for refused in (elsewhere, again):
        sibling.observe_failed(refused, not_acted_upon=True, for_its_token=True)
    for refused in (again, here):
        chain[0].observe_failed(refused, not_acted_upon=True, for_its_token=True)
    sibling.observe_failed(again, not_acted_upon=True, for_its_token=True)
    chain[0].forget_outcome()
    assert chain[0].refused() == []
    assert chain[2].refused() == [elsewhere, again], "which was refused once more there"


def test_a_call_that_has_ended_lets_go_of_all_that_it_was_about() -> None:
    one = call()
    one.observe_failed(sent(), not_acted_upon=True, for_its_token=True)
    one.finish()
    assert one.finished is True
    assert (one.args, one.kwargs, one.failed, one.refused()) == ((), {}, None, [])
    given: dict[str, object] = {}
    without = Call("fetch", None, (), given)
    without.finish()
    assert (without.args, without.kwargs, without.refused()) == ((), {}, [])


def test_what_could_not_be_mended_is_tried_again_by_nobody_further_out(chain: list[Call]) -> None:
    chain[0].mark_exhausted("token")
    chain[2].mark_exhausted("transient")
    assert [one.exhausted for one in chain] == [{"token"}, frozenset(), {"token", "transient"}]


# -- the call under way


def test_the_call_under_way_is_the_innermost_that_still_runs(chain: list[Call]) -> None:
    assert current_call() is None
    CURRENT.set(chain[0])
    assert current_call() is chain[0]
    assert chain[0].parent is chain[2], "what has ended is cut out"
    assert list(chain[0].chain()) == [chain[0], chain[2]]
    chain[0].finish()
    assert current_call() is chain[2]
    chain[2].finish()
    assert current_call() is None


def test_what_runs_beside_a_call_belongs_to_none(chain: list[Call]) -> None:
    CURRENT.set(chain[0])
    seen: list[object] = []

    def fail() -> None:
        with bypassed():
            seen.extend((is_bypassed(), current_call()))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [True, None]
    assert not is_bypassed()
    assert current_call() is chain[0]
