"""Clients of both kinds, whose calls a test makes alike: `Asking`."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from kis_retry import AsyncKisClient, Credentials, KisClient, MemoryTokenStore, RateLimiter, RetryPolicy, TokenManager

__all__ = ["KINDS", "Asking", "asking"]

KINDS: dict[str, type[Any]] = {"sync": KisClient, "async": AsyncKisClient}


class Asking:
    """A client, an `AsyncKisClient` on an event loop of its own; what it hands back is waited for."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._loop = asyncio.new_event_loop() if isinstance(client, AsyncKisClient) else None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if not callable(found) or isinstance(found, (TokenManager, RateLimiter)):
            return found
        return lambda *args, **kwargs: self._waited(found(*args, **kwargs))

    def all_pages(self, *args: Any) -> list[Any]:
        """Every page, as a list."""
        pages = self.client.pages(*args)
        return self._waited(_listed(pages)) if self._loop else list(pages)

    def next_page(self, pages: Any) -> Any:
        """The next page; `StopIteration` or `StopAsyncIteration` after the last."""
        return self._waited(anext(pages)) if self._loop else next(pages)

    def shut(self) -> None:
        """Close the client, and the loop."""
        self.close()
        if self._loop is not None:
            self._loop.run_until_complete(asyncio.sleep(0))  # what closes connections is done then
            self._loop.close()

    def _waited(self, value: Any) -> Any:
        return self._loop.run_until_complete(value) if inspect.isawaitable(value) and self._loop else value


def asking(kind: str, credentials: Credentials, *, timeout: Any = (3.05, 10.0), **policy: Any) -> Asking:
    """A client of a kind, with a token of its own and no pace."""
    tokens = TokenManager(credentials, store=MemoryTokenStore(), policy=RetryPolicy(**policy))
    return Asking(KINDS[kind](tokens=tokens, limiter=RateLimiter(credentials, rate=0), timeout=timeout))


async def _listed(pages: Any) -> list[Any]:
    return [page async for page in pages]
