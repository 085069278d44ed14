"""Tasks that ask a source at once: one request at a time, on a thread beside the loop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from kis_retry import TokenIssueError
from kis_retry.tokens import worker
from kis_retry.tokens.source import as_source
from patience import PATIENCE, until_async
from sources import NumberedTokens

if TYPE_CHECKING:
    from kis_retry import AccessToken


class SlowTokens(NumberedTokens):
    """Its refreshes wait until they are let through."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(error=error)
        self.entered, self.let_through = threading.Event(), threading.Event()

    def refresh(self, rejected: AccessToken) -> AccessToken:
        self.entered.set()
        assert self.let_through.wait(PATIENCE)
        return super().refresh(rejected)


async def test_a_task_does_not_adopt_the_very_token_that_it_rejects() -> None:
    tokens = SlowTokens()
    source = as_source(tokens)
    first = asyncio.create_task(worker.replace(source, "t1"))
    await until_async(tokens.entered.is_set)
    second = asyncio.create_task(worker.replace(source, "t2"))  # which is what the refresh under way brings
    await asyncio.sleep(0)  # it waits now for the end of that
    tokens.let_through.set()
    found = [replacement.token.value for replacement in await asyncio.gather(first, second)]
    assert found == ["t2", "t3"]
    assert tokens.refreshed == ["t1", "t2"]


async def test_tasks_that_wait_for_a_refresh_share_its_failure_and_ask_no_more() -> None:
    tokens = SlowTokens(TokenIssueError("no"))
    source = as_source(tokens)
    tasks = [asyncio.create_task(worker.replace(source, "t1")) for _ in range(3)]
    await until_async(tokens.entered.is_set)
    tokens.let_through.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["no"] * 3
    assert tokens.refreshed == ["t1"]
