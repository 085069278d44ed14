"""
What the tests with real libraries share. `KIS_RETRY_REAL` names them: "pykis==0.7.0 kis-wrapper==0.3.0".

Without it nothing here is collected; with it, another version than the one installed fails the run.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

from expiries import THREADS
from kis_retry import MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.retry import patches
from kis_retry.testing import KisGateway
from redirect import Redirect

FILES = {"korea-investment-stock": "test_korea_investment_stock.py", "mojito2": "test_mojito.py"}
"""Libraries with tests of their own, and an example."""

REAL: dict[str, str] = dict(each.split("==") for each in os.environ.get("KIS_RETRY_REAL", "").split())


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


_missing = [f"{name}=={wanted}" for name, wanted in REAL.items() if _installed(name) != wanted]
if _missing:
    raise pytest.UsageError(f"KIS_RETRY_REAL names {', '.join(_missing)}, which is not what is installed")

collect_ignore = [file for name, file in FILES.items() if name not in REAL]
if not REAL.keys() & FILES.keys():
    collect_ignore.append("test_examples.py")
if not REAL:
    collect_ignore.append("test_recipes.py")


@pytest.fixture(scope="session")
def real_version() -> str:
    """The version of the one library that is installed."""
    (found,) = REAL.values()
    return found


@pytest.fixture(autouse=True)
def no_thread_left() -> None:
    """Threads of other people's libraries are theirs."""


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    """A broker that goes while protected leaves `requests` patched, if inert; the next test finds it plain."""
    yield
    while patches._watchers:
        patches.unwatch()


@pytest.fixture(params=[500, 200])
def gateway(request: pytest.FixtureRequest) -> Iterator[KisGateway]:
    """A gateway that refuses with HTTP 500 or 200; ETFs and the US exchanges are as in its catalogue."""
    with KisGateway(expired_status=request.param) as running:
        yield running


@pytest.fixture
def busy_gateway() -> Iterator[KisGateway]:
    """A gateway that takes a moment for each answer, as KIS does, so that many calls are under way at an expiry."""
    with KisGateway(latency=0.005) as running:
        yield running


@pytest.fixture
def manager_of() -> Callable[[KisGateway], TokenManager]:
    """Make a manager for a gateway that shares its token with nobody."""
    return lambda of: TokenManager(of.credentials, store=MemoryTokenStore(), policy=RetryPolicy())


@pytest.fixture
def redirect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[KisGateway], None]]:
    """Have the library find a gateway where KIS would be, from its constructor on; the library itself is untouched."""
    redirecting = Redirect(monkeypatch, THREADS)
    yield redirecting.begin
    redirecting.close()


@dataclass(frozen=True)
class Tally:
    """What became of a batch: how many answers were right, what the others were, and how many tokens were asked for."""

    calls: int
    right: int
    lost: dict[str, int]
    token_requests: int


@pytest.fixture
def measure(capsys: pytest.CaptureFixture[str]) -> Callable[..., Tally]:
    """Run pairs of a call and its right answer in 16 threads, and print a row of docs/en/alternatives.md."""

    library = " ".join(*REAL.items())

    def run(label: str, gateway: KisGateway, pairs: list[tuple[Callable[[], Any], Any]]) -> Tally:
        before = gateway.counts.token_requests
        with ThreadPoolExecutor(THREADS) as pool:
            verdicts = Counter(pool.map(_judge, pairs))
        right = verdicts.pop("", 0)
        tally = Tally(len(pairs), right, dict(verdicts.most_common()), gateway.counts.token_requests - before)
        how = ", ".join(f"{count:,} {what}" for what, count in tally.lost.items()) or "none"
        with capsys.disabled():
            sys.stdout.write(
                f"\n| {library} | {label} | {tally.calls:,} | {tally.calls - tally.right:,} | {how} "
                f"| {tally.token_requests} |\n"
            )
        return tally

    return run


def _judge(pair: tuple[Callable[[], Any], Any]) -> str:
    call, right = pair
    try:
        answer = call()
    except Exception as error:  # whatever the library makes of it is what the test wants to know
        return type(error).__name__
    if answer == right:
        return ""
    if isinstance(answer, dict) and answer.get("rt_cd") != "0":
        return f"refusals handed back ({answer.get('msg_cd')})"
    return "None in silence" if answer is None else "wrong answers"
