"""Tasks that ask a source at once: one request at a time, on a thread beside the loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from kis_retry import AccessToken, TokenIssueError
from kis_retry.tokens import worker
from kis_retry.tokens.single_flight import Flight
from kis_retry.tokens.source import Replacement, as_source
from patience import PATIENCE, until_async
from refreshes import copied, token_until
from sources import NumberedTokens


class SlowTokens(NumberedTokens):
    """Its refreshes wait until they are let through."""

    def __init__(self, error: Exception | None = None, prefix: str = "t") -> None:
        super().__init__(prefix, error)
        self.entered, self.let_through = threading.Event(), threading.Event()

    def refresh(self, rejected: AccessToken) -> AccessToken:
        self.entered.set()
        assert self.let_through.wait(PATIENCE)
        return super().refresh(rejected)


@pytest.mark.parametrize("prefix", ["t", "T"])
async def test_a_task_does_not_adopt_the_very_token_that_it_rejects(prefix: str) -> None:
    tokens = SlowTokens(prefix=prefix)
    source = as_source(tokens)
    first = asyncio.create_task(worker.replace(source, f"{prefix}1"))
    await until_async(tokens.entered.is_set)
    second = asyncio.create_task(worker.replace(source, f"{prefix}2"))  # which is what the refresh under way brings
    await asyncio.sleep(0)  # it waits now for the end of that
    tokens.let_through.set()
    found = [replacement.token.value for replacement in await asyncio.gather(first, second)]
    assert found == [f"{prefix}2", f"{prefix}3"]
    assert tokens.refreshed == [f"{prefix}1", f"{prefix}2"]


async def test_tasks_that_wait_for_a_refresh_share_its_failure_and_ask_no_more() -> None:
    tokens = SlowTokens(TokenIssueError("no"))
    source = as_source(tokens)
    tasks = [asyncio.create_task(worker.replace(source, "t1")) for _ in range(3)]
    await until_async(tokens.entered.is_set)
    tokens.let_through.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["no"] * 3
    assert tokens.refreshed == ["t1"]


FAR = 2_000_000_000.0


def under_way(source: Any, key: str | None) -> Flight[Any]:
    """Have a request of another task be under way, that is about `key`."""
    flight: Flight[Any] = Flight(key)
    worker._flights.of(source.identity)._current[""] = flight
    return flight


def end(source: Any, flight: Flight[Any]) -> None:
    worker._flights.of(source.identity)._current.clear()
    flight.answer(Replacement(token_until(FAR, "brought"), "issued"))


def holding(value: str) -> Any:
    """A source of one token, which may be asked for nothing."""

    class Holding:
        def token(self) -> AccessToken:
            return token_until(FAR, value)

        def refresh(self, rejected: AccessToken) -> AccessToken:
            raise AssertionError("another task asks")

    source = as_source(Holding())
    source.token()
    return source


async def test_while_a_token_is_being_renewed_the_good_one_is_handed_out_at_once() -> None:
    source = holding("good")
    under_way(source, "something else")
    assert (await worker.token(source)).value == "good"


@pytest.mark.parametrize("rejected", ["A-lesser-value", "x-greater-value", "good"])
async def test_in_place_of_a_refused_token_nothing_is_taken_before_the_request_under_way_has_ended(
    rejected: str,
) -> None:
    source = holding("good")
    flight = under_way(source, rejected)
    task = asyncio.create_task(worker.replace(source, copied(rejected)))
    await until_async(lambda: flight._waiters)
    assert not task.done()
    flight.answer(Replacement(token_until(FAR, "brought"), "issued"))
    assert await task == (token_until(FAR, "brought"), "memory")


@pytest.mark.parametrize("rejected", ["A-lesser-value", "x-greater-value"])
async def test_after_a_request_about_another_token_the_one_in_memory_is_taken(rejected: str) -> None:
    source = holding("good")
    flight = under_way(source, "m1")
    task = asyncio.create_task(worker.replace(source, rejected))
    await until_async(lambda: flight._waiters)
    end(source, flight)
    assert await task == (token_until(FAR, "good"), "memory")


async def test_who_wants_any_token_takes_the_one_in_memory_after_a_request_about_another() -> None:
    tokens = NumberedTokens()
    source = as_source(tokens)
    flight = under_way(source, "m1")
    task = asyncio.create_task(worker.token(source))
    await until_async(lambda: flight._waiters)
    source.token()
    tokens.number = 5
    end(source, flight)
    assert (await task).value == "t1", "and nobody is asked"


async def test_who_asks_says_where_it_is_from() -> None:
    source = as_source(NumberedTokens())
    assert await worker.replace(source, "t1") == (token_until(2_208_988_800, "t2"), "issued")
    assert await worker.replace(source, None) == (token_until(2_208_988_800, "t2"), "memory")
    assert (await worker.token(source)).value == "t2"


async def test_a_request_that_ends_without_an_outcome_is_made_anew() -> None:
    tokens = NumberedTokens()
    source = as_source(tokens)
    flight = under_way(source, "t1")
    task = asyncio.create_task(worker.replace(source, "t1"))
    await until_async(lambda: flight._waiters)
    worker._flights.of(source.identity)._current.clear()
    flight.abandon()
    assert await task == (token_until(2_208_988_800, "t2"), "issued")
    assert tokens.refreshed == ["t1"]
