"""
What the tests with one real library share. `KIS_RETRY_REAL` names it: "korea-investment-stock==0.19.0".

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
import requests
from requests.adapters import HTTPAdapter

from kis_retry import MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.retry import patches
from kis_retry.testing import KisGateway

THREADS = 16
REAL_HOSTS = ("https://openapi.koreainvestment.com:9443", "https://openapivts.koreainvestment.com:29443")
FILES = {"korea-investment-stock": "test_korea_investment_stock.py", "mojito2": "test_mojito.py"}

_NAME, _, _VERSION = os.environ.get("KIS_RETRY_REAL", "").partition("==")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if _NAME and (_NAME not in FILES or _installed(_NAME) != _VERSION):
    raise pytest.UsageError(
        f"KIS_RETRY_REAL is {_NAME}=={_VERSION}, installed is {_installed(_NAME)}; it takes one of {', '.join(FILES)}"
    )

collect_ignore = ["test_examples.py"] if not _NAME else []
collect_ignore += [file for name, file in FILES.items() if name != _NAME]


@pytest.fixture(scope="session")
def real_version() -> str:
    """The version of the library that is installed."""
    return _VERSION


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


class _Redirecting(HTTPAdapter):
    """Keeps connections, and takes what is meant for KIS to the gateway that is open."""

    def __init__(self) -> None:
        super().__init__(pool_maxsize=2 * THREADS)
        self.url = ""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        for host in REAL_HOSTS:
            if request.url is not None and request.url.startswith(host):
                request.url = self.url + request.url.removeprefix(host)
        return super().send(request, *args, **kwargs)


@pytest.fixture
def redirect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[KisGateway], None]]:
    """Have the library find a gateway where KIS would be, from its constructor on; the library itself is untouched."""
    adapter = _Redirecting()
    plain = requests.Session.get_adapter

    def get_adapter(session: requests.Session, url: str) -> Any:
        return adapter if url.startswith((*REAL_HOSTS, adapter.url)) else plain(session, url)

    def begin(gateway: KisGateway) -> None:
        adapter.url = gateway.url
        monkeypatch.setattr(requests.Session, "get_adapter", get_adapter)

    yield begin
    adapter.close()


@dataclass(frozen=True)
class Tally:
    """What became of a batch: how many answers were right, what the others were, and how many tokens were asked for."""

    calls: int
    right: int
    lost: dict[str, int]
    token_requests: int


@pytest.fixture
def measure(capsys: pytest.CaptureFixture[str]) -> Callable[..., Tally]:
    """Run pairs of a call and its right answer in 16 threads, and print a row of the table in the README."""

    def run(label: str, gateway: KisGateway, pairs: list[tuple[Callable[[], Any], Any]]) -> Tally:
        before = gateway.counts.token_requests
        with ThreadPoolExecutor(THREADS) as pool:
            verdicts = Counter(pool.map(_judge, pairs))
        right = verdicts.pop("", 0)
        tally = Tally(len(pairs), right, dict(verdicts.most_common()), gateway.counts.token_requests - before)
        how = ", ".join(f"{count:,} {what}" for what, count in tally.lost.items()) or "none"
        with capsys.disabled():
            sys.stdout.write(
                f"\n| {_NAME} {_VERSION} | {label} | {tally.calls:,} | {tally.calls - tally.right:,} | {how} "
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
