"""What a decorator adds to a call that succeeds, beside those that retry anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import backoff
import stamina
import tenacity
from measuring import Line, Rounds, seconds_each, side_by_side

from kis_retry import (
    AccessToken,
    Credentials,
    MemoryTokenStore,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.stores.base import key_of

__all__ = ["RIVALS", "answer", "lines", "manager"]

ANSWER = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다.", "output": {"stck_prpr": "70000"}}
MICROSECOND = 1e-6
TIMES = 1_000

Decorator = Callable[[Any], Any]


def answer(symbol: str, headers: dict[str, str]) -> dict[str, Any]:
    """The call of which nothing is left but its answer."""
    return ANSWER


async def answer_async(symbol: str, headers: dict[str, str]) -> dict[str, Any]:
    return ANSWER


def refused(value: dict[str, Any]) -> bool:
    """The plainest predicate one would write, so that what is measured of the others is their own cost."""
    return value.get("msg_cd") == "EGW00123"


def by_tenacity(function: Any) -> Any:
    return tenacity.retry(retry=tenacity.retry_if_result(refused), stop=tenacity.stop_after_attempt(2))(function)


def by_stamina(function: Any) -> Any:
    """On an exception, since stamina does not look at results."""
    return stamina.retry(on=ConnectionError, attempts=2)(function)


def by_backoff(function: Any) -> Any:
    return backoff.on_predicate(backoff.constant, refused, max_tries=2, interval=0)(function)


RIVALS: dict[str, Decorator] = {"tenacity": by_tenacity, "stamina": by_stamina, "backoff": by_backoff}


def manager() -> TokenManager:
    """One that holds a token already: nothing is asked of any host."""
    credentials = Credentials("key", "secret", base_url="http://127.0.0.1:9")
    store = MemoryTokenStore()
    token = AccessToken("eyJ0eXAi." + "x" * 330, datetime.now(timezone.utc) + timedelta(hours=24))
    store.save(key_of(credentials), token)
    tokens = TokenManager(credentials, store=store, policy=RetryPolicy())
    tokens.token()
    return tokens


def lines(*, quick: bool) -> Iterator[Line]:
    rounds = 20 if quick else 100
    tokens = manager()
    ours = refresh_on_expired_token(tokens=tokens)
    watching = refresh_on_expired_token(tokens=tokens, watch_transport=True)
    headers = tokens.headers("FHKST01010100")
    yield from _compared("a function with headers", _calls(answer, ours, ("005930", headers)), rounds)
    yield from _compared("a method", _calls(_method, refresh_on_expired_token, (_Owner(tokens), "005930")), rounds)
    yield from _compared("watch_transport=True", _calls(answer, watching, ("005930", headers)), rounds)
    yield from _compared("a coroutine function", _awaits(answer_async, ours, ("005930", headers)), rounds)

    def both(function: Any) -> Any:
        return ours(retry_on_transient_error(function))

    yield from _compared(
        "both decorators", _calls(answer, both, ("005930", headers)), rounds, at_most=0.4, of_others=None
    )


class _Owner:
    def __init__(self, tokens: TokenManager) -> None:
        self.tokens = tokens


def _method(self: _Owner, symbol: str) -> dict[str, Any]:
    self.tokens.token()
    return ANSWER


def _contenders(function: Any, ours: Decorator) -> dict[str, Any]:
    return {"bare": function, "ours": ours(function), **{name: rival(function) for name, rival in RIVALS.items()}}


def _calls(function: Any, ours: Decorator, args: tuple[Any, ...]) -> dict[str, Callable[[], float]]:
    def timed(contender: Any) -> Callable[[], float]:
        return lambda: seconds_each(lambda: contender(*args), TIMES, time.thread_time)

    return {name: timed(contender) for name, contender in _contenders(function, ours).items()}


def _awaits(function: Any, ours: Decorator, args: tuple[Any, ...]) -> dict[str, Callable[[], float]]:
    async def seconds(contender: Any) -> float:
        began = time.thread_time()
        for _ in range(TIMES):
            await contender(*args)
        return (time.thread_time() - began) / TIMES

    def timed(contender: Any) -> Callable[[], float]:
        return lambda: asyncio.run(seconds(contender))

    return {name: timed(contender) for name, contender in _contenders(function, ours).items()}


def _compared(
    form: str,
    contenders: dict[str, Callable[[], float]],
    rounds: int,
    *,
    at_most: float = 0.25,
    of_others: float | None = 1,
) -> Iterator[Line]:
    measured: Rounds = side_by_side(contenders, rounds)
    for name in contenders:
        if name != "bare":
            added = measured.over(name, "bare") / MICROSECOND
            yield Line(f"{form}: added by {'the decorator' if name == 'ours' else name}", added, "µs")
    yield Line(f"{form}: of what tenacity adds", measured.ratio("ours", "tenacity", over="bare"), "×", at_most=at_most)
    for rival in ("stamina", "backoff"):
        yield Line(f"{form}: of what {rival} adds", measured.ratio("ours", rival, over="bare"), "×", at_most=of_others)
