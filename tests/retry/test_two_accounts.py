"""Two accounts of one user in one decorated function, as real and paper trading are: each keeps its own token."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from answers import PRICE
from kis_retry import MemoryTokenStore, RefreshEvent, RetryPolicy, TokenManager, refresh_on_expired_token
from kis_retry.testing import KisGateway

THREADS = 16
CALLS = 2 * THREADS  # so many that more are refused than were under way, if each has to be


class Account:
    """One host, and a manager for it; `sent` are the tokens that its host was sent."""

    def __init__(self, gateway: KisGateway) -> None:
        self.gateway = gateway
        policy = RetryPolicy(issue_wait=0, transient_deadline=0)
        self.tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=policy)
        self.sent: set[str] = set()

    def ask(self) -> Any:
        headers = self.tokens.headers("FHKST01010100")
        response = requests.get(self.gateway.url + PRICE, headers=headers, timeout=9)
        self.sent.add(str(response.request.headers["authorization"]).removeprefix("Bearer "))
        return response.json()

    def ask_unseen(self) -> Any:
        request = urllib.request.Request(self.gateway.url + PRICE, headers=self.tokens.headers("FHKST01010100"))
        try:
            with urllib.request.urlopen(request, timeout=9) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return json.load(error)


@pytest.fixture
def real() -> Iterator[Account]:
    with KisGateway() as gateway:
        yield Account(gateway)


@pytest.fixture
def paper() -> Iterator[Account]:
    with KisGateway() as gateway:
        yield Account(gateway)


def returned(*answers: Any) -> Any:
    return next((answer for answer in answers if answer["rt_cd"] != "0"), answers[0])


def swallowed(*answers: Any) -> Any:
    return None if any("output" not in answer for answer in answers) else {"rt_cd": "0"}


def lost(fetch: Callable[[], Any]) -> int:
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda _: fetch(), range(CALLS)))
    return sum(answer is None or answer["rt_cd"] != "0" for answer in answers)


IN_THREADS = itertools.product(("real", "paper", "both"), ("paper first", "paper last"), (returned, swallowed))
ON_A_LOOP = [
    ("real", "paper first", returned),
    ("real", "paper last", swallowed),
    ("paper", "paper first", swallowed),
    ("paper", "paper last", returned),
    ("both", "paper first", returned),
    ("both", "paper last", swallowed),
]


@pytest.mark.parametrize(
    ("expired", "order", "of_two", "on_a_loop"),
    [*((*case, False) for case in IN_THREADS), *((*case, True) for case in ON_A_LOOP)],
)
def test_whichever_of_two_tokens_expires_nothing_is_lost(
    real: Account, paper: Account, expired: str, of_two: Any, order: str, on_a_loop: bool
) -> None:
    def both() -> Any:
        first, second = (paper, real) if order == "paper first" else (real, paper)
        return of_two(first.ask(), second.ask())

    if on_a_loop:

        @refresh_on_expired_token(tokens=real.tokens)
        async def fetch_async() -> Any:
            return await asyncio.to_thread(both)

        fetch = lambda: asyncio.run(fetch_async())  # one name for both
    else:
        fetch = refresh_on_expired_token(tokens=real.tokens)(both)
    assert fetch()["rt_cd"] == "0"
    accounts = {"real": [real], "paper": [paper], "both": [real, paper]}[expired]
    for account in accounts:
        account.gateway.expire()
    for account in (real, paper):
        account.gateway.reset_counts()
    assert lost(fetch) == 0
    for account in (real, paper):
        assert account.gateway.counts.token_requests == (1 if account in accounts else 0)
        assert account.gateway.counts.refused <= (THREADS if account in accounts else 0)
        assert all(account.tokens.issued(token) for token in account.sent), "none was sent to the other host"


def test_another_account_that_cannot_be_renewed_is_asked_once_and_given_up(
    real: Account, paper: Account, events: list[RefreshEvent]
) -> None:
    fetch = refresh_on_expired_token(tokens=real.tokens)(lambda: returned(real.ask(), paper.ask()))
    fetch()
    paper.gateway.refuse_calls("EGW00121")
    real.gateway.reset_counts()
    paper.gateway.reset_counts()
    paper.gateway.expire()
    assert fetch()["msg_cd"] == "EGW00121"
    assert (real.gateway.counts.calls, paper.gateway.counts.calls) == (2, 2), "one repeat"
    assert (real.gateway.counts.token_requests, paper.gateway.counts.token_requests) == (0, 1)
    assert [event.name for event in events] == ["token_expired", "token_refreshed", "token_expired", "call_given_up"]
    assert [event.attempt for event in events] == [1, 2, 2, 2], "a token is for the attempt that is made with it"
    assert events[0].token == events[1].previous_token
    assert events[2].token == events[1].token


def test_unseen_the_token_is_that_of_the_functions_own_source_whoever_was_asked_last(
    real: Account, paper: Account
) -> None:
    @refresh_on_expired_token(tokens=real.tokens)
    def fetch() -> Any:
        answer = real.ask_unseen()
        assert paper.ask_unseen()["rt_cd"] == "0"
        return answer

    assert fetch()["rt_cd"] == "0"
    real.gateway.expire()
    paper.gateway.reset_counts()
    assert fetch()["rt_cd"] == "0"
    assert paper.gateway.counts.token_requests == 0
