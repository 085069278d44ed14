"""What a call makes of the refusals that were seen on the wire: whose they were, and which token was refused."""

from __future__ import annotations

from typing import Any

import pytest

from answers import EXPIRED, GOOD
from calls import HOST, KEY, KnownTokens, refreshing, refuse, seen
from kis_retry.context import Sighting
from kis_retry.retry.refusals import SeenRefusals
from kis_retry.tokens.source import NonBlockingSource, as_source
from sources import NumberedTokens

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


class Kis:
    """A call of a source whose account is known, or is `unknown`."""

    def __init__(self, *args: Any, unknown: bool = False, **options: Any) -> None:
        self.tokens: NumberedTokens = NumberedTokens() if unknown else KnownTokens()
        self.source: NonBlockingSource = as_source(self.tokens)
        self.call = refreshing(self.tokens, *args, **options)
        self.cause: SeenRefusals = self.call.token_expired

    def renew(self) -> None:
        """Have the source hand out t1, KIS refuse it, and the source hand out t2."""
        self.source.token()
        self.source.replace("t1")


def test_home_is_the_host_of_the_credentials_and_nowhere_without_them() -> None:
    hosts = (HOST, "".join(HOST), "proxy.example", "abroad.example")
    assert [Kis().cause.is_at_home(host) for host in hosts] == [True, True, False, False]
    assert [Kis(unknown=True).cause.is_at_home(host) for host in hosts] == [False] * 4


# With which token a request leaves.


@pytest.mark.parametrize(
    ("request_", "leaves_with"),
    [
        (seen("t1"), "t2"),
        (seen("t2"), None),
        (seen("somebody-else's"), None),
        (seen(None), None),
        (seen("t1", key="PSother"), None),
        (seen("t1", key=None), "t2"),
        (seen("t1", host="elsewhere.example"), None),
    ],
)
def test_a_request_of_the_account_leaves_with_the_successor_of_its_dead_token(
    request_: Sighting, leaves_with: str | None
) -> None:
    kis = Kis()
    kis.renew()
    successor = kis.cause.successor_for(request_)
    assert (successor.value if successor is not None else None) == leaves_with


def test_of_an_unknown_account_only_where_the_dead_token_was_refused() -> None:
    kis = Kis(unknown=True)
    kis.source.token()
    refuse(kis.call, seen("t1", host="one.example", key="PSone"))
    assert kis.cause.prepare(0, None, None)  # type: ignore[attr-defined]  # of the cause itself
    asked = [(host, key) for host in ("one.example", "two.example") for key in ("PSone", "PStwo")]
    left = [kis.cause.successor_for(seen("t1", host=host, key=key)) for host, key in asked]
    assert [successor is not None for successor in left] == [True, False, False, False]


def test_an_account_is_learned_from_requests_with_a_token_of_the_sources_own_alone() -> None:
    kis = Kis(unknown=True)
    kis.renew()
    kis.cause.successor_for(seen("somebody-else's", host="two.example"))
    kis.cause.successor_for(seen("t2", host="one.example"))
    refuse(kis.call, seen("third", host="two.example"))
    assert kis.cause.unanswered() is None
    refused = refuse(kis.call, seen("third", host="one.example"))
    assert kis.cause.unanswered() is refused


@pytest.mark.parametrize(
    ("refused", "asked", "held"),
    [
        (seen(), seen(method="POST", path=ORDER), True),
        (seen(), seen(), False),
        (None, seen(method="POST", path=ORDER), False),
        (seen(method="POST", path=ORDER), seen(method="POST", path=ORDER), False),
        (seen(key="PSother"), seen(method="POST", path=ORDER), False),
        (seen(), seen(method="POST", path=ORDER, key="PSother"), False),
    ],
)
def test_an_order_after_a_refusal_leaves_as_it_is_unless_it_was_itself_refused(
    refused: Sighting | None, asked: Sighting, held: bool
) -> None:
    kis = Kis()
    if refused is not None:
        refuse(kis.call, refused)
    assert kis.cause.holds_back(asked) is held


# Which token a request would be refused with.


def test_a_request_that_was_just_refused_would_be_again_until_there_is_another_token() -> None:
    kis = Kis()
    kis.source.token()
    refuse(kis.call, seen("t1"))
    asked = [seen("t1"), seen("t9"), seen(None), seen("t1", key="PSother")]
    assert [kis.cause.dead_with(one) for one in asked] == ["t1", None, None, None]
    kis.source.replace("t1")
    assert [kis.cause.dead_with(one) for one in asked] == [None] * 4


def test_with_a_token_that_the_source_knows_to_be_dead_it_would_be_too() -> None:
    kis = Kis()
    kis.source.token()
    assert kis.cause.dead_with(seen("t1")) is None
    kis.source.note_refused("t1")
    assert kis.cause.dead_with(seen("t1")) == "t1"
    kis.source.replace("t1")
    assert kis.cause.dead_with(seen("t1")) is None, "it will leave with the next one"


def test_what_counts_is_the_token_that_it_left_with_last() -> None:
    kis = Kis()
    kis.renew()
    for token in ("t0", "t2"):
        request = seen("t1", path=f"/uapi/{token}")
        request.token = token
        refuse(kis.call, request)
    kis.source.note_refused("t0")
    assert kis.cause.dead_with(seen("t1")) == "t2", "which is what it would leave with once more"


@pytest.mark.parametrize(("left_with", "dead"), [("t1", None), ("t2", "t2"), ("t9", None)])
def test_one_that_was_refused_with_another_token_than_the_next_is_made_again(left_with: str, dead: str | None) -> None:
    kis = Kis()
    kis.renew()
    request = seen("t1")
    request.token = left_with
    refuse(kis.call, request)
    assert kis.cause.dead_with(seen("t1")) == dead


def test_a_refusal_of_another_account_says_nothing_about_ones_own() -> None:
    kis = Kis()
    kis.source.token()
    refuse(kis.call, seen("t1", key="PSother"))
    assert kis.cause.dead_with(seen("t1")) is None


# What was refused.


def test_without_a_refusal_it_is_what_the_call_was_made_with() -> None:
    kis = Kis({}, function=lambda headers: None)
    kis.cause.used = "t7"
    assert (kis.cause.rejected(), kis.cause.is_unseen()) == ("t7", True)
    assert (kis.cause.saw_refusal(), kis.cause.unanswered(), kis.cause.refusal()) == (False, None, None)
    kis.call.handed = "t8"
    assert kis.cause.rejected() == "t7"


def test_without_a_place_it_is_what_was_handed_out_inside_the_call() -> None:
    kis = Kis()
    kis.cause.used = "t7"
    assert kis.cause.rejected() == "t7"
    kis.call.handed = "t8"
    assert kis.cause.rejected() == "t8"


def test_of_several_refusals_the_last_of_the_account_counts() -> None:
    kis = Kis()
    first = refuse(kis.call, seen("t1", path="/uapi/1"))
    last = refuse(kis.call, seen("t2", path="/uapi/2"))
    refuse(kis.call, seen("t3", path="/uapi/3", key="PSother"))
    assert first is not last
    assert kis.cause.unanswered() is kis.cause.refusal() is last
    assert (kis.cause.rejected(), kis.cause.is_unseen(), kis.cause.saw_refusal()) == ("t2", False, True)
    assert not kis.cause.is_of_another_account()


def test_one_of_another_account_is_told_by_its_token_and_cannot_be_replaced() -> None:
    kis = Kis()
    kis.cause.used = "t1"
    refuse(kis.call, seen("first", key="PSother", path="/uapi/1"))
    refuse(kis.call, seen("theirs", key="PSother", path="/uapi/2"))
    assert kis.cause.rejected() == "theirs"
    assert (kis.cause.saw_refusal(), kis.cause.refusal(), kis.cause.is_unseen()) == (False, None, False)
    assert kis.cause.is_of_another_account()


def test_one_that_was_made_again_and_went_well_is_still_known_where_it_was_the_last_that_failed() -> None:
    kis = Kis()
    refused = refuse(kis.call, seen("t1"))
    kis.call.observe_answered(seen("t2"))
    assert kis.cause.unanswered() is None
    assert kis.cause.refusal() is refused
    assert (kis.cause.rejected(), kis.cause.is_unseen(), kis.cause.saw_refusal()) == ("t1", False, False)


@pytest.mark.parametrize("response", [None, GOOD, {**EXPIRED, "msg_cd": "EGW00201", "msg1": ""}])
def test_another_failure_is_no_refusal(response: Any) -> None:
    kis = Kis()
    failed = seen("t1")
    failed.response = response
    kis.call.observe_failed(failed, not_acted_upon=False)
    assert (kis.cause.refusal(), kis.cause.is_unseen(), kis.cause.is_of_another_account()) == (None, True, False)


# What another source handed out inside the call.


def test_another_sources_token_that_was_refused_is_to_be_replaced_once() -> None:
    kis, lender = Kis(), as_source(NumberedTokens("theirs-"))
    kis.call.handed_out(lender, "theirs-1")
    refuse(kis.call, seen("theirs-1", key="PSother", path="/uapi/1"))
    refuse(kis.call, seen("nobody's", key="PSother", path="/uapi/2"))
    refuse(kis.call, seen(None, key="PSother", path="/uapi/3"))
    assert kis.cause.lent_and_refused() == [(lender, "theirs-1")]
    assert kis.cause.saw_refusal()
    assert not kis.cause.is_of_another_account()
    kis.cause.helped(lender)
    assert kis.cause.lent_and_refused() == []
    assert kis.cause.is_of_another_account()


def test_each_of_two_others_is_helped_once() -> None:
    kis = Kis()
    lenders = [as_source(NumberedTokens(prefix)) for prefix in ("x", "y")]
    for lender, token in zip(lenders, ("x1", "y1"), strict=True):
        kis.call.handed_out(lender, token)
        refuse(kis.call, seen(token, key=None, host=f"{token}.example"))
        kis.cause.helped(lender)
    assert kis.cause.lent_and_refused() == []


def test_a_token_of_ones_own_account_is_ones_own_whoever_handed_it_out() -> None:
    kis = Kis()
    kis.call.handed_out(as_source(NumberedTokens()), "t1")
    refuse(kis.call, seen("t1"))
    assert kis.cause.lent_and_refused() == []


# Whose a request is, where nobody knows the account of the source.


@pytest.mark.parametrize(
    ("place", "token", "owned"),
    [
        ("nowhere", "any", True),
        ("nowhere", None, True),
        ("headers", "t7", True),
        ("headers", None, True),
        ("headers", "another", False),
    ],
)
def test_a_request_of_an_unknown_account_is_ones_own_if_it_may_carry_the_calls_token(
    place: str, token: str | None, owned: bool
) -> None:
    kis = Kis(unknown=True)
    call = kis.call
    if place == "headers":
        call = refreshing(kis.tokens, {"authorization": "t7"}, function=lambda headers: None)
    call.token_expired.used = f"t{7}"  # the same one, and another object
    refused = refuse(call, seen(token, key=KEY))
    assert (call.token_expired.unanswered() is refused) is owned
