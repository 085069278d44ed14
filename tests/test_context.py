"""What a call notes of its requests, some of which are on their way together."""

from __future__ import annotations

from answers import PRICE
from kis_retry.context import Call, Sighting


def sent() -> Sighting:
    return Sighting("GET", "kis.example", PRICE, "key", "token")


def test_a_good_answer_undoes_a_refusal_only_of_a_request_that_was_sent_after_it() -> None:
    call = Call("fetch", None, (), {})
    refused, beside = sent(), sent()
    call.observe_failed(refused, not_acted_upon=True, for_its_token=True)
    call.observe_answered(beside)
    assert (call.refused(), call.last_failed) == ([refused], refused)
    call.observe_answered(sent())
    assert (call.refused(), call.last_failed) == ([], None)
