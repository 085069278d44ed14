"""Under `requests_cache.install_cache()`: what is good may come from the cache, a failure of KIS never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import requests_cache

from answers import EXPIRED, GOOD, PRICE
from calls import refreshing
from kis_retry import (
    AccessToken,
    MemoryTokenStore,
    RetryPolicy,
    TokenManager,
    refresh_on_expired_token,
    retry_on_transient_error,
)
from kis_retry.context import CURRENT
from kis_retry.retry.caches import without_failures
from kis_retry.testing import KisGateway
from sources import NumberedTokens

Fetch = Callable[[int], Any]


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Installed before anything is decorated, and for requests of every method."""
    requests_cache.install_cache(
        backend="memory", allowable_methods=("GET", "HEAD", "POST"), allowable_codes=(200, 403, 500), expire_after=600
    )
    yield
    requests_cache.uninstall_cache()


@pytest.fixture(params=[500, 200])
def gateway(request: pytest.FixtureRequest) -> Iterator[KisGateway]:
    with KisGateway(expired_status=request.param) as running:
        yield running


@pytest.fixture
def fetch(gateway: KisGateway, manager: TokenManager) -> Fetch:
    base = manager.headers("FHKST01010100")

    @refresh_on_expired_token(tokens=manager)
    @retry_on_transient_error
    def fetch(symbol: int) -> Any:
        query = {"FID_INPUT_ISCD": f"{symbol:06d}"}
        return requests.get(gateway.url + PRICE, params=query, headers=base, timeout=9).json()

    return fetch


def test_a_refusal_is_not_kept(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.expire()
    gateway.reset_counts()
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert (gateway.counts.calls, gateway.counts.refused, gateway.counts.token_requests) == (2, 1, 1)


def test_a_refusal_that_was_kept_before_is_asked_for_anew(
    gateway: KisGateway, manager: TokenManager, fetch: Fetch
) -> None:
    gateway.expire()
    query, headers = {"FID_INPUT_ISCD": "000001"}, manager.headers("FHKST01010100")
    for _ in range(2):
        answer = requests.get(gateway.url + PRICE, params=query, headers=headers, timeout=9)
    assert getattr(answer, "from_cache", False)
    assert answer.json()["rt_cd"] == "1"
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3


def test_what_passes_by_itself_is_not_kept(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.refuse_calls("EGW00201", 2)
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert gateway.counts.calls == 3


def test_a_good_answer_is(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.reset_counts()
    assert [fetch(1)["rt_cd"] for _ in range(3)] == ["0"] * 3
    assert gateway.counts.calls == 1


def test_what_is_never_mended_is_handed_back_and_not_kept(gateway: KisGateway, fetch: Fetch) -> None:
    gateway.refuse_calls()
    gateway.expire()
    assert fetch(1)["msg_cd"] == "EGW00123"
    cache = requests_cache.get_cache()
    assert cache is not None
    assert not list(cache.responses)


def test_no_token_comes_from_a_cache(gateway: KisGateway) -> None:
    def issued() -> AccessToken:
        gateway.expire()
        return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy()).token()

    assert issued() != issued()


# One session's `send`, answer by answer.


class Session:
    """A caching session that gives one answer after the other; `forgotten` are the keys that were deleted."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.forgotten: list[str] = []
        self.cache = SimpleNamespace(delete=self.forgotten.append)
        self.sent: list[tuple[Any, ...]] = []

    @without_failures
    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        self.sent.append((request, *args, options))
        return self.answers.pop(0)


def kept(answer: dict[str, str], key: str | None, **found: bool) -> Any:
    fields = {**found, **({"cache_key": key} if key is not None else {})}
    return SimpleNamespace(json=lambda: answer, status_code=200, **fields)


BUSY = {"rt_cd": "1", "msg_cd": "EGW00316", "msg1": "재 조회 수행 부탁드립니다"}


@pytest.mark.parametrize("failure", [EXPIRED, BUSY])
@pytest.mark.parametrize(
    ("first", "second", "taken", "forgotten"),
    [
        ({"from_cache": False}, None, 0, ["k0"]),
        ({}, None, 0, ["k0"]),
        ({"from_cache": True}, GOOD, 1, ["k0"]),
        ({"from_cache": True}, "a failure", 1, ["k0", "k1"]),
    ],
)
def test_a_failure_out_of_the_cache_is_asked_for_anew_once_and_none_is_kept(
    failure: dict[str, str], first: dict[str, bool], second: Any, taken: int, forgotten: list[str]
) -> None:
    answers = [kept(failure, "k0", **first), kept(failure if second == "a failure" else GOOD, "k1", from_cache=False)]
    session = Session(*answers)
    CURRENT.set(refreshing(NumberedTokens()))
    assert session.send("request", 1, timeout=9) is answers[taken]
    assert session.forgotten == forgotten
    assert session.sent == [("request", 1, {"timeout": 9})] * (taken + 1)


def test_a_good_answer_and_one_outside_of_a_call_are_left_alone() -> None:
    bad, good = kept(EXPIRED, "k0", from_cache=True), kept(GOOD, "k1", from_cache=True)
    session = Session(bad, good)
    assert session.send("request") is bad
    CURRENT.set(refreshing(NumberedTokens()))
    assert session.send("request") is good
    assert (session.forgotten, len(session.sent)) == ([], 2)


def test_a_failure_that_was_not_kept_is_not_looked_for() -> None:
    session = Session(kept(EXPIRED, None, from_cache=False))
    CURRENT.set(refreshing(NumberedTokens()))
    session.send("request")
    assert session.forgotten == []


def test_codes_of_the_policy_say_what_a_refusal_is() -> None:
    session = Session(kept(EXPIRED, "k0", from_cache=False))
    CURRENT.set(refreshing(NumberedTokens(), policy=RetryPolicy(expired_codes=("EGW00121",))))
    session.send("request")
    assert session.forgotten == []


def test_the_sessions_own_send_keeps_its_name_and_docstring() -> None:
    def send(self: Session, request: Any) -> None:
        """Send."""

    wrapped = without_failures(send)
    assert (wrapped.__name__, wrapped.__doc__) == ("send", "Send.")
